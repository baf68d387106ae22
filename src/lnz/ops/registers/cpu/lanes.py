"""Sixteen neighbouring numbers at a time: masked loads and stores, and what intrinsics over them are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

BLOCK = 16
INT = ir.IntType(64)


class Lanes:
    """Loads and stores of ``BLOCK`` neighbouring numbers of which the first ``n`` exist (all, where ``n`` is None)."""

    def __init__(self, context: Any, builder: Any, dtype: Any, n: Any = None) -> None:
        self.context, self.builder = context, builder
        self.size = dtype.bitwidth // 8
        self.scalar = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.scalar, BLOCK)
        self.mask = None
        if n is not None:
            numbers = ir.Constant(ir.VectorType(INT, BLOCK), list(range(BLOCK)))
            self.mask = builder.icmp_signed("<", numbers, self.spread(n, INT))

    def spread(self, value: Any, scalar: Any = None) -> Any:
        """One number in every lane."""
        vector = ir.VectorType(scalar or self.scalar, BLOCK)
        single = self.builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
        return self.builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), first)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.vector, [value] * BLOCK)

    def _pointer(self, array: tuple[Any, Any], index: tuple[Any, ...]) -> Any:
        kind, value = array
        pointer = cgutils.get_item_pointer(self.context, self.builder, kind, value, index, wraparound=False)
        return self.builder.bitcast(pointer, self.vector.as_pointer())

    def load(self, array: tuple[Any, Any], *index: Any, other: Any = 0.0) -> Any:
        """The numbers from ``array[index]`` on, ``other`` (a number, or a vector of them) where there are none."""
        pointer = self._pointer(array, index)
        if self.mask is None:
            return self.builder.load(pointer, align=self.size)
        function = self._intrinsic("load", self.vector, [pointer.type, ir.IntType(32), self.mask.type, self.vector])
        rest = other if isinstance(other, ir.Value) else self.constant(other)
        return self.builder.call(function, [pointer, self._alignment, self.mask, rest])

    def store(self, value: Any, array: tuple[Any, Any], *index: Any) -> None:
        pointer = self._pointer(array, index)
        if self.mask is None:
            self.builder.store(value, pointer, align=self.size)
            return
        function = self._intrinsic("store", ir.VoidType(), [self.vector, pointer.type, ir.IntType(32), self.mask.type])
        self.builder.call(function, [value, pointer, self._alignment, self.mask])

    @property
    def _alignment(self) -> Any:
        return ir.Constant(ir.IntType(32), self.size)

    def _intrinsic(self, verb: str, result: Any, arguments: list[Any]) -> Any:
        kind = f"{'i' if isinstance(self.scalar, ir.IntType) else 'f'}{8 * self.size}"
        name = f"llvm.masked.{verb}.v{BLOCK}{kind}.p0"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def product(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def smaller(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def reduced(self, values: Any, verb: str) -> Any:
        """The sum (``fadd``), largest (``fmax``) or smallest (``fmin``) of all lanes."""
        name = f"llvm.vector.reduce.{verb}.v{BLOCK}{'f32' if self.size == 4 else 'f64'}"
        start = [ir.Constant(self.scalar, 0.0)] if verb == "fadd" else []
        kind = ir.FunctionType(self.scalar, [s.type for s in start] + [self.vector])
        flags = ("reassoc",) if verb == "fadd" else ("nnan",)
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, [*start, values], fastmath=flags)


def whole_or_masked(context: Any, builder: Any, dtype: Any, n: Any, generate: Callable[[Lanes], None]) -> None:
    """The same code twice: for full blocks, and with a mask for the last of a row."""
    full = builder.icmp_signed(">=", n, ir.Constant(INT, BLOCK))
    with builder.if_else(full, likely=True) as (whole, masked):
        with whole:
            generate(Lanes(context, builder, dtype))
        with masked:
            generate(Lanes(context, builder, dtype, n))


def along(context: Any, builder: Any, dtype: Any, n: Any, generate: Callable[[Lanes, Any], None]) -> None:
    """``generate(lanes, at)`` for every block of a row of n numbers, the last one masked where n asks for it."""
    whole = builder.sdiv(n, ir.Constant(INT, BLOCK))
    with cgutils.for_range(builder, whole) as loop:
        generate(Lanes(context, builder, dtype), builder.mul(loop.index, ir.Constant(INT, BLOCK)))
    done = builder.mul(whole, ir.Constant(INT, BLOCK))
    rest = builder.sub(n, done)
    with builder.if_then(builder.icmp_signed(">", rest, ir.Constant(INT, 0))):
        generate(Lanes(context, builder, dtype, rest), done)


def arrays(context: Any, builder: Any, signature: Any, arguments: Any, count: int) -> list[tuple[Any, Any]]:
    kinds = signature.args[:count]
    return [(k, context.make_array(k)(context, builder, a)) for k, a in zip(kinds, arguments, strict=False)]


def running(builder: Any, lanes: Lanes, start: float) -> Any:
    """A place in registers for one number per lane."""
    return cgutils.alloca_once_value(builder, lanes.constant(-math.inf if start == -math.inf else start))
