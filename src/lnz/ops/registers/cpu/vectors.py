"""Sixteen numbers in registers as one value of a kernel: ``+``, ``*``, ``<`` and the like work on all lanes.

A :class:`Vector` lives inside compiled functions only. Numbers beside a vector are spread over its lanes; comparisons
give vectors of booleans, which :func:`select` takes. Nothing is rounded differently from plain numbers, but that a
product may join the sum that takes it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, register_model

from lnz.ops.registers.cpu.exponential import exp as exponential
from lnz.ops.registers.cpu.lanes import BLOCK, INT, Lanes
from lnz.ops.registers.cpu.logarithm import log as logarithm

LANES = np.arange(BLOCK)
"""The number of each lane, to be loaded."""

_CONTRACT = ("contract",)
_built: Any = intrinsic  # whose functions are called without the context that they are written with


class Vector(types.Type):
    """``BLOCK`` numbers of one type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(f"Vector({dtype})")


@register_model(Vector)
class _Registers(PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), BLOCK))


def _spread(context: Any, builder: Any, kind: Any, value: Any, to: Vector) -> Any:
    """A value as a vector of kind ``to``: itself, or a number cast and put in every lane."""
    if isinstance(kind, Vector):
        return value
    lane = context.get_value_type(to.dtype)
    return Lanes(context, builder, to.dtype).spread(context.cast(builder, value, kind, to.dtype), lane)


def _vector_of(kinds: Any) -> Vector | None:
    """The kind that operands meet in; none where no vector is among them, or two of different kinds."""
    vectors = {kind for kind in kinds if isinstance(kind, Vector)}
    numbers = all(isinstance(kind, Vector | types.Number | types.Boolean) for kind in kinds)
    return vectors.pop() if len(vectors) == 1 and numbers else None


def _operator(symbol: Any, emit: Callable[[Any, Any, Any, Any], Any], logical: bool = False) -> None:
    """Make ``symbol`` work on vectors: ``emit(builder, dtype, a, b)``, booleans if ``logical``."""
    typed: Any = infer_global(symbol)

    @typed
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = _vector_of(args) if len(args) == 2 and not kws else None
            result: Any = Vector(types.boolean) if logical else kind
            return None if kind is None else result(*args)

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = _vector_of(signature.args)
        assert kind is not None
        a, b = (
            _spread(context, builder, k, v, kind) for k, v in zip(signature.args, arguments, strict=True)
        )  # fmt: skip
        return emit(builder, kind.dtype, a, b)

    for left, right in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(symbol, left, right)(lower)


def _either(real: str, integer: str) -> Callable[[Any, Any, Any, Any], Any]:
    def emit(builder: Any, dtype: Any, a: Any, b: Any) -> Any:
        if isinstance(dtype, types.Float):
            return getattr(builder, real)(a, b, flags=_CONTRACT)
        return getattr(builder, integer)(a, b)

    return emit


def _comparison(sign: str) -> Callable[[Any, Any, Any, Any], Any]:
    def emit(builder: Any, dtype: Any, a: Any, b: Any) -> Any:
        if isinstance(dtype, types.Float):
            return builder.fcmp_ordered(sign, a, b)
        return (builder.icmp_signed if getattr(dtype, "signed", True) else builder.icmp_unsigned)(sign, a, b)

    return emit


for _symbols, _real, _integer in (
    ((operator.add, operator.iadd), "fadd", "add"),
    ((operator.sub, operator.isub), "fsub", "sub"),
    ((operator.mul, operator.imul), "fmul", "mul"),
):
    for _symbol in _symbols:
        _operator(_symbol, _either(_real, _integer))
_operator(operator.truediv, lambda builder, dtype, a, b: builder.fdiv(a, b))
_operator(operator.and_, lambda builder, dtype, a, b: builder.and_(a, b))
_operator(operator.or_, lambda builder, dtype, a, b: builder.or_(a, b))
_operator(operator.xor, lambda builder, dtype, a, b: builder.xor(a, b))
_operator(operator.rshift, lambda builder, dtype, a, b: (builder.ashr if dtype.signed else builder.lshr)(a, b))
_operator(operator.lshift, lambda builder, dtype, a, b: builder.shl(a, b))
for _symbol, _sign in ((operator.eq, "=="), (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">")):
    _operator(_symbol, _comparison(_sign), logical=True)


def _place(context: Any, builder: Any, kind: Any, value: Any, index_kind: Any, index: Any) -> Any:
    places = [
        context.cast(builder, i, k, types.intp)
        for i, k in zip(cgutils.unpack_tuple(builder, index), index_kind, strict=True)
    ]
    array = context.make_array(kind)(context, builder, value)
    return cgutils.get_item_pointer(context, builder, kind, array, places, wraparound=False)


@_built
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The sixteen neighbours from ``array[index]`` on; all must exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _place(context, builder, array, arguments[0], index, arguments[1])
        kind = ir.VectorType(context.get_data_type(array.dtype), BLOCK)
        return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=array.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, index), generate


@_built
def store(typing_context: Any, vector: Any, array: Any, index: Any) -> Any:
    """Put a vector at ``array[index]`` and the fifteen places after it, in the array's type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _place(context, builder, array, arguments[1], index, arguments[2])
        builder.store(
            arguments[0], builder.bitcast(pointer, arguments[0].type.as_pointer()), align=array.dtype.bitwidth // 8
        )
        return context.get_dummy_value()

    if vector.dtype != array.dtype:
        return None
    return types.void(vector, array, index), generate


@_built
def spread(typing_context: Any, number: Any) -> Any:
    """The number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _spread(context, builder, number, arguments[0], Vector(number))

    return Vector(number)(number), generate


@_built
def select(typing_context: Any, where: Any, a: Any, b: Any) -> Any:
    """``a`` where it is true, else ``b``."""
    kind: Any = _vector_of((a, b))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = _spread(context, builder, a, arguments[1], kind)
        return builder.select(arguments[0], one, _spread(context, builder, b, arguments[2], kind))

    return None if kind is None else (kind(where, a, b), generate)


@_built
def converted(typing_context: Any, x: Any, dtype: Any) -> Any:
    """A number, or the lanes of a vector, as another type; integers lose their upper bits. Not floats as integers."""
    to = dtype.dtype

    def number(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], x, to)

    def lanes(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, kind = x.dtype, ir.VectorType(context.get_value_type(to), BLOCK)
        if to == source:
            return arguments[0]
        if isinstance(source, types.Float):
            return (builder.fpext if to.bitwidth > source.bitwidth else builder.fptrunc)(arguments[0], kind)
        if isinstance(to, types.Float):
            return (builder.sitofp if source.signed else builder.uitofp)(arguments[0], kind)
        if to.bitwidth == source.bitwidth:
            return arguments[0]
        if to.bitwidth < source.bitwidth:
            return builder.trunc(arguments[0], kind)
        return (builder.sext if source.signed else builder.zext)(arguments[0], kind)

    return (Vector(to)(x, dtype), lanes) if isinstance(x, Vector) else (to(x, dtype), number)


@_built
def gather(typing_context: Any, array: Any, index: Any, where: Any, other: Any) -> Any:
    """``array[index]`` of a contiguous vector, lane by lane, at ``int64`` indices; ``other`` where not asked for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = Lanes(context, builder, array.dtype)
        data = context.make_array(array)(context, builder, arguments[0]).data
        start = lanes.spread(builder.ptrtoint(data, INT), INT)
        size = ir.Constant(ir.VectorType(INT, BLOCK), [lanes.size] * BLOCK)
        places = builder.add(start, builder.mul(arguments[1], size))
        pointers = builder.inttoptr(places, ir.VectorType(data.type, BLOCK))
        rest = _spread(context, builder, other, arguments[3], Vector(array.dtype))
        name = f"llvm.masked.gather.v{BLOCK}{'f32' if lanes.size == 4 else 'f64'}.v{BLOCK}p0"
        kinds = [pointers.type, ir.IntType(32), arguments[2].type, lanes.vector]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(lanes.vector, kinds), name)
        return builder.call(function, [pointers, ir.Constant(ir.IntType(32), lanes.size), arguments[2], rest])

    return Vector(array.dtype)(array, index, where, other), generate


@_built
def exp(typing_context: Any, x: Any) -> Any:
    """:func:`lnz.ops.math.cpu.exp` of every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return exponential(Lanes(context, builder, x.dtype), arguments[0])

    return x(x), generate


@_built
def log(typing_context: Any, x: Any) -> Any:
    """:func:`lnz.ops.math.cpu.log` of every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return logarithm(Lanes(context, builder, x.dtype), arguments[0])

    return x(x), generate
