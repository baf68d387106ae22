"""The vector language of kernels: a few neighbouring numbers in registers as one value.

A :class:`Vector` of ``width`` numbers lives inside compiled functions only. Operators work on all lanes; a number
beside a vector is broadcast, cast to the vector's type; comparisons give vectors of booleans for :func:`select`.
Nothing is rounded differently from plain numbers, except that a product may join the sum that takes it. Vectors come
from memory and go back to it by :mod:`lnz.ops.jit.cpu.memory`; ``exp`` and ``log`` are in :mod:`lnz.ops.jit.cpu.math`.

Most kernels take ``LANES`` neighbouring labels or pixels; what counts sequences or float64 states takes half of that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload, register_model

LANES = 16
"""The width of a vector where none is said: a cache line of float32."""

INT = ir.IntType(64)
_CONTRACT = ("contract",)
intrinsic: Any = _intrinsic  # whose functions are called without the context that they are written with


class Vector(types.Type):
    """``width`` numbers of one type."""

    def __init__(self, dtype: Any, width: int = LANES) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(f"Vector({dtype}, {width})")


@register_model(Vector)
class _Registers(PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.width))


def llvm_type(context: Any, kind: Vector) -> Any:
    return context.get_value_type(kind)


def splat(builder: Any, value: Any, width: int) -> Any:
    """One LLVM number in every lane."""
    nothing, zero = ir.Constant(ir.VectorType(value.type, width), ir.Undefined), ir.Constant(ir.IntType(32), 0)
    single = builder.insert_element(nothing, value, zero)
    return builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(zero.type, width), [0] * width))


def as_vector(context: Any, builder: Any, kind: Any, value: Any, to: Vector) -> Any:
    """A value as a vector of kind ``to``: itself, or a number cast and broadcast."""
    if isinstance(kind, Vector):
        return value
    return splat(builder, context.cast(builder, value, kind, to.dtype), to.width)


def common(kinds: Any) -> Vector | None:
    """The vector type of an operation; none where no operand is a vector, or two are of different types."""
    vectors = {kind for kind in kinds if isinstance(kind, Vector)}
    numbers = all(isinstance(kind, Vector | types.Number | types.Boolean) for kind in kinds)
    return vectors.pop() if len(vectors) == 1 and numbers else None


def call(builder: Any, name: str, result: Any, arguments: list[Any], **options: Any) -> Any:
    """Call an intrinsic function of LLVM's."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments, **options)


def _operator(symbol: Any, emit: Callable[[Any, Any, Any, Any], Any], logical: bool = False) -> None:
    """Make ``symbol`` work on vectors: ``emit(builder, dtype, a, b)``, booleans if ``logical``."""
    typed: Any = infer_global(symbol)

    @typed
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kind = common(args) if len(args) == 2 and not kws else None
            if kind is None:
                return None
            result: Any = Vector(types.boolean, kind.width) if logical else kind
            return result(*args)

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = common(signature.args)
        assert kind is not None
        pairs = zip(signature.args, arguments, strict=True)
        a, b = (as_vector(context, builder, k, v, kind) for k, v in pairs)
        return emit(builder, kind.dtype, a, b)

    for left, right in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(symbol, left, right)(lower)


def _arithmetic(real: str, integer: str) -> Callable[[Any, Any, Any, Any], Any]:
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
        _operator(_symbol, _arithmetic(_real, _integer))
_operator(operator.truediv, lambda builder, dtype, a, b: builder.fdiv(a, b))
for _symbols, _name in (
    ((operator.and_, operator.iand), "and_"),
    ((operator.or_, operator.ior), "or_"),
    ((operator.xor, operator.ixor), "xor"),
    ((operator.lshift,), "shl"),
):
    for _symbol in _symbols:
        _operator(_symbol, lambda builder, dtype, a, b, name=_name: getattr(builder, name)(a, b))
_operator(operator.rshift, lambda builder, dtype, a, b: (builder.ashr if dtype.signed else builder.lshr)(a, b))
for _symbol, _sign in (
    (operator.eq, "=="), (operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">="),
):  # fmt: skip
    _operator(_symbol, _comparison(_sign), logical=True)


WIDTH = types.IntegerLiteral(LANES)
"""The default of a parameter ``width``."""


@intrinsic
def broadcast(typing_context: Any, number: Any, width: Any = WIDTH) -> Any:
    """The number in every lane."""
    size = literal(width)
    if size is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return splat(builder, arguments[0], size)

    return Vector(number, size)(number, width), generate


def literal(width: Any) -> int | None:
    """The number that a type of an argument stands for, whether given or left at its default."""
    value = getattr(width, "value", width)
    value = getattr(value, "literal_value", value)
    return getattr(value, "literal_value", value if isinstance(value, int) else None)


def by_dtype(x, single, double):
    """A constant for float32, and one for float64, by the numbers of an array, pointer or vector."""
    raise TypeError("only for use inside compiled functions")


@overload(by_dtype, inline="always")
def _by_dtype(x, single, double):
    if x.dtype.bitwidth == 32:
        return lambda x, single, double: single
    return lambda x, single, double: double


@intrinsic
def select(typing_context: Any, where: Any, a: Any, b: Any) -> Any:
    """``a`` where it is true, else ``b``; of numbers too."""
    kind: Any = common((a, b))
    if kind is None and isinstance(a, types.Number) and isinstance(b, types.Number):
        result = typing_context.unify_types(a, b)

        def choose(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = (context.cast(builder, v, k, result) for k, v in zip((a, b), arguments[1:], strict=True))
            return builder.select(arguments[0], *values)

        return result(types.boolean, a, b), choose

    if kind is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = (as_vector(context, builder, k, v, kind) for k, v in zip((a, b), arguments[1:], strict=True))
        return builder.select(arguments[0], *values)

    return kind(where, a, b), generate


def _extreme(sign: str) -> Any:
    @intrinsic
    def extreme(typing_context: Any, a: Any, b: Any) -> Any:
        kind: Any = common((a, b))

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, y = (as_vector(context, builder, k, v, kind) for k, v in zip((a, b), arguments, strict=True))
            return builder.select(_comparison(sign)(builder, kind.dtype, x, y), x, y)

        return None if kind is None else (kind(a, b), generate)

    return extreme


maximum = _extreme(">")
"""The larger, lane by lane; the second where one is NaN."""

minimum = _extreme("<")
"""The smaller, lane by lane; the second where one is NaN."""


@intrinsic
def shift_in(typing_context: Any, before: Any, x: Any) -> Any:
    """The lanes of x moved up by one, and the last lane of ``before`` first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = list(range(x.width - 1, 2 * x.width - 1))
        return builder.shuffle_vector(*arguments, ir.Constant(ir.VectorType(ir.IntType(32), x.width), places))

    return x(before, x), generate


@intrinsic
def negative(typing_context: Any, x: Any) -> Any:
    """−x of floats."""
    return x(x), lambda context, builder, signature, arguments: builder.fneg(arguments[0])


@intrinsic
def absolute(typing_context: Any, x: Any) -> Any:
    """|x| of floats."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = llvm_type(context, x)
        return call(builder, f"llvm.fabs.v{x.width}f{x.dtype.bitwidth}", kind, arguments)

    return x(x), generate


@intrinsic
def astype(typing_context: Any, x: Any, dtype: Any) -> Any:
    """A number, or the lanes of a vector, as another type: a dtype, or that of the numbers of an array or pointer.

    Integers lose their upper bits. Not floats as integers.
    """
    to = dtype.dtype

    def number(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], x, to)

    def lanes(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, kind = x.dtype, llvm_type(context, Vector(to, x.width))
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

    if isinstance(x, Vector):
        return Vector(to, x.width)(x, dtype), lanes
    return to(x, dtype), number


@intrinsic
def bits_as(typing_context: Any, x: Any, dtype: Any) -> Any:
    """The bits of a number, or of the lanes of a vector, read as another type of the same size."""
    to = Vector(dtype.dtype, x.width) if isinstance(x, Vector) else dtype.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(to))

    return to(x, dtype), generate


def _reduction(real: str, integer: str, flags: tuple[str, ...]) -> Any:
    @intrinsic
    def reduced(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scalar = context.get_value_type(x.dtype)
            if not isinstance(x.dtype, types.Float):
                name = f"llvm.vector.reduce.{integer}.v{x.width}i{x.dtype.bitwidth}"
                return call(builder, name, scalar, list(arguments))
            start = [ir.Constant(scalar, 0.0)] if real == "fadd" else []
            name = f"llvm.vector.reduce.{real}.v{x.width}f{x.dtype.bitwidth}"
            return call(builder, name, scalar, [*start, arguments[0]], fastmath=flags)

        return x.dtype(x), generate

    return reduced


sum_lanes = _reduction("fadd", "add", ("reassoc",))
"""The sum of all lanes."""

max_lanes = _reduction("fmax", "smax", ("nnan",))
"""The largest of all lanes, none of which is NaN."""

min_lanes = _reduction("fmin", "smin", ("nnan",))
"""The smallest of all lanes, none of which is NaN."""


def _quantifier(verb: str) -> Any:
    @intrinsic
    def quantified(typing_context: Any, flags: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return call(builder, f"llvm.vector.reduce.{verb}.v{flags.width}i1", ir.IntType(1), list(arguments))

        return types.boolean(flags), generate

    return quantified


all_lanes = _quantifier("and")
"""Whether all lanes are true."""


def _rows(operation: str) -> Any:
    """Reduce each row of a tuple of vectors; halves of rows are merged, so that all rows share the last steps."""

    @intrinsic
    def reduced(typing_context: Any, rows: Any) -> Any:
        kind, count = rows.dtype, rows.count

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            def combine(a: Any, b: Any) -> Any:
                if operation == "sum":
                    return builder.fadd(a, b)
                return builder.select(builder.fcmp_ordered(">", a, b), a, b)

            def shuffle(a: Any, b: Any, places: list[int]) -> Any:
                return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))

            vectors, width = cgutils.unpack_tuple(builder, arguments[0]), kind.width
            length = width
            while len(vectors) > 1:
                length //= 2
                lower = [lane for lane in range(2 * width) if lane % (2 * length) < length]
                upper = [lane + length for lane in lower]
                pairs = zip(vectors[::2], vectors[1::2], strict=True)
                vectors = [combine(shuffle(a, b, lower), shuffle(a, b, upper)) for a, b in pairs]
            (row,) = vectors
            while length > 1:
                length //= 2
                size = row.type.count
                lower = [lane for lane in range(size) if lane % (2 * length) < length]
                row = combine(shuffle(row, row, lower), shuffle(row, row, [lane + length for lane in lower]))
            return row

        return Vector(kind.dtype, count)(rows), generate

    return reduced


sum_rows = _rows("sum")
"""The sum of each of n vectors of one type (n a power of two, at most their width), as a vector of width n."""

max_rows = _rows("max")
"""The largest number of each of n vectors, as :func:`sum_rows`."""
