"""Vectors from memory and back, and pointers into arrays.

``load``, ``store`` and ``gather`` take an array and an index, or a pointer and an offset. A pointer (:func:`address`)
is a plain number to Numba: passing one to a helper function costs nothing, where an array is some eight numbers and a
count of references. Whoever makes a pointer keeps the array alive. Indices are not checked and do not wrap.

A row whose length is no multiple of the width ends with a masked block: ``load(x, at, n)`` takes the first ``n``
numbers and ``other`` for the rest, ``store(v, x, at, n)`` writes no more than these. :func:`blocks` walks along a row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.vectors import INT, LANES, WIDTH, Vector, as_vector, call, intrinsic, literal, llvm_type, splat


def _pointer(context: Any, builder: Any, kind: Any, value: Any, index_kind: Any, index: Any) -> Any:
    """The LLVM pointer to ``array[index]``, or ``offset`` numbers after a pointer."""
    if isinstance(index_kind, types.UniTuple | types.Tuple):
        parts, kinds = cgutils.unpack_tuple(builder, index), list(index_kind)
    else:
        parts, kinds = [index], [index_kind]
    places = [context.cast(builder, part, k, types.intp) for part, k in zip(parts, kinds, strict=True)]
    if isinstance(kind, types.CPointer):
        return builder.gep(value, places)
    array = context.make_array(kind)(context, builder, value)
    places += [ir.Constant(INT, 0)] * (kind.ndim - len(places))
    return cgutils.get_item_pointer(context, builder, kind, array, places, wraparound=False)


@intrinsic
def address(typing_context: Any, array: Any, index: Any) -> Any:
    """The pointer to ``array[index]``, axes left out at 0; or ``index`` numbers after a pointer."""
    kind = array if isinstance(array, types.CPointer) else types.CPointer(array.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _pointer(context, builder, array, arguments[0], index, arguments[1])

    return kind(array, index), generate


@intrinsic
def pointer_to(typing_context: Any, place: Any, like: Any) -> Any:
    """The pointer at an ``int64`` address to numbers of the dtype of an array ``like``."""
    kind = types.CPointer(like.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(place, like), generate


def _mask(context: Any, builder: Any, kind: Any, n: Any, width: int) -> Any:
    """Which lanes are among the first n; none where all are."""
    if isinstance(kind, types.NoneType) or getattr(kind, "value", 0) is None:
        return None
    numbers = ir.Constant(ir.VectorType(INT, width), list(range(width)))
    return builder.icmp_signed("<", numbers, splat(builder, context.cast(builder, n, kind, types.intp), width))


def _lane(dtype: Any) -> str:
    return f"{'f' if isinstance(dtype, types.Float) else 'i'}{dtype.bitwidth}"


@intrinsic
def load(typing_context: Any, x: Any, index: Any, n: Any = None, other: Any = 0, width: Any = WIDTH) -> Any:
    """``width`` neighbours from ``x[index]`` on; or the first n of them, and ``other`` in the lanes after these."""
    size = literal(width)
    if size is None:
        return None
    kind = Vector(x.dtype, size)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, at, count, rest, _ = arguments
        pointer = _pointer(context, builder, x, value, index, at)
        vector, align = llvm_type(context, kind), x.dtype.bitwidth // 8
        pointer = builder.bitcast(pointer, vector.as_pointer())
        mask = _mask(context, builder, signature.args[2], count, size)
        if mask is None:
            return builder.load(pointer, align=align)
        rest = _other(context, builder, signature.args[3], rest, kind)
        name = f"llvm.masked.load.v{size}{_lane(x.dtype)}.p0"
        return call(builder, name, vector, [pointer, ir.Constant(ir.IntType(32), align), mask, rest])

    return kind(x, index, _given(n), _given(other), width), generate


def _given(kind: Any) -> Any:
    """The type of an argument that may be left out."""
    return types.Omitted(kind) if kind is None or isinstance(kind, int) else kind


def _other(context: Any, builder: Any, kind: Any, value: Any, to: Vector) -> Any:
    if isinstance(kind, types.Omitted):
        return ir.Constant(llvm_type(context, to), [kind.value] * to.width)
    return as_vector(context, builder, kind, value, to)


@intrinsic
def store(typing_context: Any, vector: Any, x: Any, index: Any, n: Any = None) -> Any:
    """Put a vector, or its first n lanes, at ``x[index]`` and the places after it; the types must be one."""
    if not isinstance(vector, Vector) or vector.dtype != x.dtype:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, target, at, count = arguments
        pointer, align = _pointer(context, builder, x, target, index, at), x.dtype.bitwidth // 8
        pointer = builder.bitcast(pointer, value.type.as_pointer())
        mask = _mask(context, builder, signature.args[3], count, vector.width)
        if mask is None:
            builder.store(value, pointer, align=align)
        else:
            name = f"llvm.masked.store.v{vector.width}{_lane(x.dtype)}.p0"
            call(builder, name, ir.VoidType(), [value, pointer, ir.Constant(ir.IntType(32), align), mask])
        return context.get_dummy_value()

    return types.void(vector, x, index, _given(n)), generate


@intrinsic
def gather(typing_context: Any, x: Any, index: Any, where: Any, other: Any) -> Any:
    """``x[index]`` of a contiguous vector or pointer, at ``int64`` indices; ``other`` where ``where`` is false."""
    kind = Vector(x.dtype, index.width)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, places, mask, rest = arguments
        start = _pointer(context, builder, x, value, types.intp, ir.Constant(INT, 0))
        align = x.dtype.bitwidth // 8
        pointers = _lanes_at(builder, start, places, kind.width, align)
        rest = as_vector(context, builder, other, rest, kind)
        name = f"llvm.masked.gather.v{kind.width}{_lane(x.dtype)}.v{kind.width}p0"
        arguments = [pointers, ir.Constant(ir.IntType(32), align), mask, rest]
        return call(builder, name, llvm_type(context, kind), arguments)

    return kind(x, index, where, other), generate


@intrinsic
def scatter(typing_context: Any, vector: Any, x: Any, index: Any, where: Any) -> Any:
    """Put lanes at ``x[index]`` of a pointer, at ``int64`` indices, where ``where`` is true; the inverse of gather."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, start, places, mask = arguments
        align, width = x.dtype.bitwidth // 8, vector.width
        pointers = _lanes_at(builder, start, places, width, align)
        name = f"llvm.masked.scatter.v{width}{_lane(x.dtype)}.v{width}p0"
        call(builder, name, ir.VoidType(), [value, pointers, ir.Constant(ir.IntType(32), align), mask])
        return context.get_dummy_value()

    return types.void(vector, x, index, where), generate


def _lanes_at(builder: Any, start: Any, places: Any, width: int, size: int) -> Any:
    """Pointers to numbers of ``size`` bytes at places after a pointer."""
    bytes_after = builder.mul(places, ir.Constant(ir.VectorType(INT, width), [size] * width))
    addresses = builder.add(splat(builder, builder.ptrtoint(start, INT), width), bytes_after)
    return builder.inttoptr(addresses, ir.VectorType(start.type, width))


@intrinsic
def first_lanes(typing_context: Any, n: Any, width: Any = WIDTH) -> Any:
    """Which lanes are among the first n; for ``None`` all, as :func:`load` and :func:`store` have it."""
    size = literal(width)
    if size is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        mask = _mask(context, builder, signature.args[0], arguments[0], size)
        return ir.Constant(ir.VectorType(ir.IntType(1), size), [1] * size) if mask is None else mask

    return Vector(types.boolean, size)(n, width), generate


@intrinsic
def load_bits(typing_context: Any, x: Any, index: Any, width: Any) -> Any:
    """The bits of ``x[index]``, an array or pointer of ``uint8``, as a vector of booleans; the lowest first."""
    size = literal(width)
    if size != x.dtype.bitwidth:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, x, arguments[0], index, arguments[1])
        return builder.bitcast(builder.load(pointer), ir.VectorType(ir.IntType(1), size))

    return Vector(types.boolean, size)(x, index, width), generate


@intrinsic
def store_bits(typing_context: Any, flags: Any, x: Any, index: Any) -> Any:
    """The inverse of :func:`load_bits`."""
    if flags.width != x.dtype.bitwidth:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, x, arguments[1], index, arguments[2])
        builder.store(builder.bitcast(arguments[0], ir.IntType(flags.width)), pointer)
        return context.get_dummy_value()

    return types.void(flags, x, index), generate


@intrinsic
def full_like(typing_context: Any, x: Any, value: Any, width: Any = WIDTH) -> Any:
    """``value`` in every lane, in the type of the numbers of an array or pointer."""
    size = literal(width)
    if size is None:
        return None
    kind = Vector(x.dtype, size)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return as_vector(context, builder, value, arguments[1], kind)

    return kind(x, value, width), generate


@intrinsic
def lane_numbers(typing_context: Any, width: Any = WIDTH) -> Any:
    """0, 1, 2 … as a vector of int64."""
    size = literal(width)
    if size is None:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.VectorType(INT, size), list(range(size)))

    return Vector(types.int64, size)(width), generate


@helper(forceinline=True)  # else the address of ``body`` stays in the code, which cannot be kept on disk then
def for_blocks(body, size, *arguments):
    """``body(at, None, *arguments)`` for every whole block of a row of ``size`` numbers, then ``body(at, n, …)``."""
    whole = size - size % LANES
    for at in range(0, whole, LANES):
        body(at, None, *arguments)
    if whole < size:
        body(whole, size - whole, *arguments)


@helper(forceinline=True)
def fold_blocks(body, start, size, *arguments):
    """``start`` after ``value = body(value, at, n, *arguments)`` along the blocks of :func:`for_blocks`."""
    value = start
    whole = size - size % LANES
    for at in range(0, whole, LANES):
        value = body(value, at, None, *arguments)
    if whole < size:
        value = body(value, whole, size - whole, *arguments)
    return value
