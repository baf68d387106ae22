"""Vectors of which only the first lanes exist, and what the lanes of a vector come to together."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.registers.cpu.lanes import BLOCK, Lanes
from lnz.ops.registers.cpu.vectors import Vector

_built: Any = intrinsic  # whose functions are called without the context that they are written with


@_built
def load_first(typing_context: Any, array: Any, index: Any, n: Any, other: Any) -> Any:
    """The n numbers from ``array[index]`` on, ``other`` in the lanes after them."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, places, count, rest = arguments
        lanes = Lanes(context, builder, array.dtype, context.cast(builder, count, n, types.intp))
        rest = lanes.spread(context.cast(builder, rest, other, array.dtype))
        return lanes.load(
            (array, context.make_array(array)(context, builder, value)),
            *_cast(context, builder, index, places),
            other=rest,
        )

    return Vector(array.dtype)(array, index, n, other), generate


@_built
def store_first(typing_context: Any, vector: Any, array: Any, index: Any, n: Any) -> Any:
    """Put the first n lanes at ``array[index]`` and the places after it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, value, places, count = arguments
        lanes = Lanes(context, builder, array.dtype, context.cast(builder, count, n, types.intp))
        lanes.store(
            vector, (array, context.make_array(array)(context, builder, value)), *_cast(context, builder, index, places)
        )
        return context.get_dummy_value()

    return (types.void(vector, array, index, n), generate) if vector.dtype == array.dtype else None


def _cast(context: Any, builder: Any, kinds: Any, index: Any) -> list[Any]:
    places = cgutils.unpack_tuple(builder, index)
    return [context.cast(builder, place, kind, types.intp) for place, kind in zip(places, kinds, strict=True)]


@_built
def every(typing_context: Any, flags: Any) -> Any:
    """Whether all lanes are true."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(1), [arguments[0].type])
        name = f"llvm.vector.reduce.and.v{BLOCK}i1"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

    return types.boolean(flags), generate


def _reduction(verb: str) -> Any:
    @_built
    def reduced(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return Lanes(context, builder, x.dtype).reduced(arguments[0], verb)

        return x.dtype(x), generate

    return reduced


total = _reduction("fadd")
"""The sum of all lanes."""

highest = _reduction("fmax")
"""The largest of all lanes, none of which is NaN."""
