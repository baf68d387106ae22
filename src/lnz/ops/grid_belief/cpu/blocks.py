"""The steps of a sweep in probabilities, sixteen pixels at a time in registers.

Loops of :mod:`.lanes` along a row of 64 pixels spend as long on getting started as on arithmetic; here one pass over
the labels reads each message once and writes each product once. ``gather`` and ``commit`` of :mod:`.sweep` do the same
in any domain. Lanes past the end of a row are masked, so that nothing outside an array is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.grid_belief.cpu.product import BLOCK

_INT = ir.IntType(64)


class _Lanes:
    """Loads and stores of ``BLOCK`` neighbouring numbers of which the first ``n`` exist (all, where ``n`` is None)."""

    def __init__(self, context: Any, builder: Any, dtype: Any, n: Any = None) -> None:
        self.context, self.builder = context, builder
        self.size = dtype.bitwidth // 8
        self.scalar = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.scalar, BLOCK)
        self.mask = None
        if n is not None:
            numbers = ir.Constant(ir.VectorType(_INT, BLOCK), list(range(BLOCK)))
            self.mask = builder.icmp_signed("<", numbers, self.spread(n, _INT))

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

    def load(self, array: tuple[Any, Any], *index: Any) -> Any:
        pointer = self._pointer(array, index)
        if self.mask is None:
            return self.builder.load(pointer, align=self.size)
        function = self._intrinsic("load", self.vector, [pointer.type, ir.IntType(32), self.mask.type, self.vector])
        return self.builder.call(function, [pointer, self._alignment, self.mask, self.constant(0.0)])

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
        name = f"llvm.masked.{verb}.v{BLOCK}{'f32' if self.size == 4 else 'f64'}.p0"
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    def product(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b)


def _whole_or_masked(context: Any, builder: Any, dtype: Any, n: Any, generate: Callable[[_Lanes], None]) -> None:
    """The same code twice: for full blocks, and with a mask for the last of a row."""
    full = builder.icmp_signed(">=", n, ir.Constant(_INT, BLOCK))
    with builder.if_else(full, likely=True) as (whole, masked):
        with whole:
            generate(_Lanes(context, builder, dtype))
        with masked:
            generate(_Lanes(context, builder, dtype, n))


def _arrays(context: Any, builder: Any, signature: Any, arguments: Any, count: int) -> list[tuple[Any, Any]]:
    kinds = signature.args[:count]
    return [(k, context.make_array(k)(context, builder, a)) for k, a in zip(kinds, arguments, strict=False)]


@intrinsic
def gather_block(
    typing_context: Any, u: Any, M: Any, ends: Any, below: Any, b: Any, h: Any, w: Any, at: Any, n: Any
) -> Any:
    """What pixels ``w + at …`` of row h send, from scores ``u [L, W]`` and messages, into ``ends`` and ``below``.

    ``ends [·, L, at …]``: to the right (a lane late), to the left, down by the row above (which was left in ``below
    [L, w + at …]``), up; what row h sends down is left in ``below`` instead.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        u, M, ends, below = _arrays(context, builder, signature, arguments, 4)
        b, h, w, at, n = arguments[4:]
        direction = [ir.Constant(_INT, d) for d in range(4)]
        labels = builder.extract_value(u[1].shape, 0)
        column = builder.add(w, at)
        later = builder.add(at, ir.Constant(_INT, 1))

        def products(lanes: _Lanes) -> None:
            with cgutils.for_range(builder, labels) as loop:
                l, times = loop.index, lanes.product
                score = lanes.load(u, l, column)
                left, right, up, down = (lanes.load(M, d, b, h, l, column) for d in direction)
                vertical, horizontal = times(times(score, up), down), times(times(score, left), right)
                lanes.store(times(vertical, left), ends, direction[0], l, later)
                lanes.store(times(vertical, right), ends, direction[1], l, at)
                lanes.store(lanes.load(below, l, column), ends, direction[2], l, at)
                lanes.store(times(horizontal, down), ends, direction[3], l, at)
                lanes.store(times(horizontal, up), below, l, column)

        _whole_or_masked(context, builder, signature.args[0].dtype, n, products)
        return context.get_dummy_value()

    return types.void(u, M, ends, below, *(types.intp,) * 5), generate


@intrinsic
def commit_block(
    typing_context: Any,
    x: Any,
    M: Any,
    change: Any,
    d: Any,
    b: Any,
    h: Any,
    w: Any,
    at: Any,
    n: Any,
    count: Any,
    check: Any,
) -> Any:
    """Store ``x [L, at …]``, scaled to sum ``count``, as the messages that arrive from ``d`` at pixels ``w + at …``.

    Where ``check``, ``change [at …]`` becomes the largest change so far.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, M, change = _arrays(context, builder, signature, arguments, 3)
        d, b, h, w, at, n, count, check = arguments[3:]
        labels = builder.extract_value(M[1].shape, 3)
        column = builder.add(w, at)

        def stored(lanes: _Lanes) -> None:
            total = cgutils.alloca_once_value(builder, lanes.constant(0.0))
            with cgutils.for_range(builder, labels) as loop:
                builder.store(builder.fadd(builder.load(total), lanes.load(x, loop.index, at)), total)
            sums = builder.load(total)
            possible = builder.fcmp_ordered(">", sums, lanes.constant(0.0))
            scale = builder.select(possible, builder.fdiv(lanes.spread(count), sums), lanes.constant(0.0))
            with cgutils.for_range(builder, labels) as loop:
                new = lanes.product(lanes.load(x, loop.index, at), scale)
                with builder.if_then(check, likely=False):
                    difference = builder.fsub(new, lanes.load(M, d, b, h, loop.index, column))
                    backwards = builder.fsub(lanes.constant(0.0), difference)
                    sign = builder.fcmp_ordered("<", difference, lanes.constant(0.0))
                    size = builder.select(sign, backwards, difference)
                    largest = lanes.load(change, at)
                    grown = builder.fcmp_ordered(">", size, largest)
                    lanes.store(builder.select(grown, size, largest), change, at)
                lanes.store(new, M, d, b, h, loop.index, column)

        _whole_or_masked(context, builder, signature.args[0].dtype, n, stored)
        return context.get_dummy_value()

    return types.void(x, M, change, *(types.intp,) * 6, x.dtype, types.boolean), generate
