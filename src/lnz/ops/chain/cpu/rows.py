"""What a step of a chain does to its row of labels, in registers.

Scratch rows ``[rows, labels rounded up to 16]`` hold zeros beyond the labels; rows of the chain ``[B, T, L]`` end with
them, so that their last block is masked.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.math.cpu import exp
from lnz.ops.registers.cpu import exponential
from lnz.ops.registers.cpu.lanes import BLOCK, Lanes, along, arrays, running

FLAGS = {"contract"}
# products of sums in float64 whose logarithm is not taken yet: one more sum, of at least e^−637, leaves none of them 0
SMALL, LARGE = 1e-20, 1e20


def _length(builder: Any, array: tuple[Any, Any]) -> Any:
    return builder.extract_value(array[1].shape, 2)


@intrinsic
def shift(typing_context: Any, x: Any, b: Any, t: Any, top: Any, out: Any) -> Any:
    """``out[b, t] = exp(x[b, t] − top)``; whether all of ``x[b, t]`` is a number of at most ``top``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, out = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i])) for i in (0, 4)
        )
        b, t, top = arguments[1:4]
        flags = ir.VectorType(ir.IntType(1), BLOCK)
        proper = cgutils.alloca_once_value(builder, ir.Constant(flags, [1] * BLOCK))

        def step(lanes: Any, at: Any) -> None:
            values, highest = lanes.load(x, b, t, at, other=-math.inf), lanes.spread(top)
            numbers = builder.fcmp_ordered("<=", values, highest)
            builder.store(builder.and_(builder.load(proper), numbers), proper)
            lanes.store(exponential.exp(lanes, builder.fsub(values, highest)), out, b, t, at)

        along(context, builder, signature.args[0].dtype, _length(builder, x), step)
        every = ir.FunctionType(ir.IntType(1), [flags])
        function = cgutils.get_or_insert_function(builder.module, every, f"llvm.vector.reduce.and.v{BLOCK}i1")
        return builder.call(function, [builder.load(proper)])

    return types.boolean(x, types.intp, types.intp, x.dtype, out), generate


@intrinsic
def arrive(typing_context: Any, message: Any, r: Any, factor: Any, local: Any, state: Any, b: Any, t: Any) -> Any:
    """``message[r] *= factor`` and ``state[r] = message[r] · local[b, t]``; the sum of that."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        message, local, state = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i]))
            for i in (0, 3, 4)
        )
        r, factor, b, t = arguments[1], arguments[2], arguments[5], arguments[6]
        dtype = signature.args[0].dtype
        total = running(builder, Lanes(context, builder, dtype), 0.0)

        def step(lanes: Any, at: Any) -> None:
            arrived = lanes.product(lanes.load(message, r, at), lanes.spread(factor))
            product = lanes.product(arrived, lanes.load(local, b, t, at))
            lanes.store(product, state, r, at)
            builder.store(builder.fadd(builder.load(total), product), total)
            lanes.store(arrived, message, r, at)

        along(context, builder, dtype, _length(builder, local), step)
        return Lanes(context, builder, dtype).reduced(builder.load(total), "fadd")

    return message.dtype(message, types.intp, message.dtype, local, state, types.intp, types.intp), generate


@intrinsic
def keep(typing_context: Any, values: Any, r: Any, factor: Any, kept: Any, b: Any, t: Any) -> Any:
    """``kept[b, t] = values[r] · factor``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, kept = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i])) for i in (0, 3)
        )
        r, factor, b, t = arguments[1], arguments[2], arguments[4], arguments[5]

        def step(lanes: Any, at: Any) -> None:
            lanes.store(lanes.product(lanes.load(values, r, at), lanes.spread(factor)), kept, b, t, at)

        along(context, builder, signature.args[0].dtype, _length(builder, kept), step)
        return context.get_dummy_value()

    return types.void(values, types.intp, values.dtype, kept, types.intp, types.intp), generate


@intrinsic
def take(typing_context: Any, x: Any, b: Any, t: Any, factor: Any, out: Any, r: Any) -> Any:
    """``out[r] = x[b, t] · factor``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, out = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i])) for i in (0, 4)
        )
        b, t, factor, r = arguments[1], arguments[2], arguments[3], arguments[5]

        def step(lanes: Any, at: Any) -> None:
            lanes.store(lanes.product(lanes.load(x, b, t, at), lanes.spread(factor)), out, r, at)

        along(context, builder, signature.args[0].dtype, _length(builder, x), step)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, x.dtype, out, types.intp), generate


@njit(fastmath=FLAGS)
def shrink(state, r, size, factor):
    """``state[r] *= factor``."""
    for l in range(size):
        state[r, l] *= factor


@intrinsic
def overlap(typing_context: Any, before: Any, after: Any, b: Any, t: Any) -> Any:
    """``before[b, t] · after[b, t]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        before, after = arrays(context, builder, signature, arguments, 2)
        b, t = arguments[2:]
        dtype = signature.args[0].dtype
        total = running(builder, Lanes(context, builder, dtype), 0.0)

        def step(lanes: Any, at: Any) -> None:
            product = lanes.product(lanes.load(before, b, t, at), lanes.load(after, b, t, at))
            builder.store(builder.fadd(builder.load(total), product), total)

        along(context, builder, dtype, _length(builder, before), step)
        return Lanes(context, builder, dtype).reduced(builder.load(total), "fadd")

    return before.dtype(before, after, types.intp, types.intp), generate


@intrinsic
def settle(typing_context: Any, before: Any, after: Any, local: Any, b: Any, t: Any, at_node: Any, at_edge: Any) -> Any:
    """``local`` becomes ``before · after · at_node``, and ``before`` becomes ``before · local · at_edge``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        before, after, local = arrays(context, builder, signature, arguments, 3)
        b, t, at_node, at_edge = arguments[3:]

        def step(lanes: Any, at: Any) -> None:
            message, own = lanes.load(before, b, t, at), lanes.load(local, b, t, at)
            node = lanes.product(lanes.product(message, lanes.load(after, b, t, at)), lanes.spread(at_node))
            lanes.store(lanes.product(lanes.product(message, own), lanes.spread(at_edge)), before, b, t, at)
            lanes.store(node, local, b, t, at)

        along(context, builder, signature.args[0].dtype, _length(builder, before), step)
        return context.get_dummy_value()

    return types.void(before, after, local, types.intp, types.intp, before.dtype, before.dtype), generate


@intrinsic
def largest(typing_context: Any, x: Any, b: Any, t: Any) -> Any:
    """The maximum of ``x[b, t]``, NaN passed over."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arrays(context, builder, signature, arguments, 1)
        b, t = arguments[1:]
        dtype = signature.args[0].dtype
        top = running(builder, Lanes(context, builder, dtype), -math.inf)

        def step(lanes: Any, at: Any) -> None:
            values = lanes.load(x, b, t, at, other=-math.inf)
            builder.store(lanes.larger(values, builder.load(top)), top)

        along(context, builder, dtype, _length(builder, x), step)
        return Lanes(context, builder, dtype).reduced(builder.load(top), "fmax")

    return x.dtype(x, types.intp, types.intp), generate


@intrinsic
def fill(typing_context: Any, out: Any, b: Any, t: Any, value: Any) -> Any:
    """``out[b, t] = value``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (out,) = arrays(context, builder, signature, arguments, 1)
        b, t, value = arguments[1:]
        along(
            context, builder, signature.args[0].dtype, _length(builder, out),
            lambda lanes, at: lanes.store(lanes.spread(value), out, b, t, at),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp, out.dtype), generate


@njit(fastmath=FLAGS)
def exponentiate(out, x, top):
    """``out = exp(x − top)``; whether all of x is a number of at most ``top``."""
    numbers = 0
    for l in range(out.size):
        numbers += 1 if x[l] <= top else 0
        out[l] = exp(x[l] - top)
    return numbers == out.size


@njit(fastmath=FLAGS)
def smallest(x, lowest):
    """The smallest of x and ``lowest``, exact zeros left out."""
    for l in range(x.size):
        lowest = x[l] if 0 < x[l] < lowest else lowest
    return lowest


@njit(fastmath=FLAGS)
def span(x):
    """The largest and the smallest score, −inf left out, and whether there is one that was left out."""
    high, low, infinite = -math.inf, math.inf, 0
    for l in range(x.size):
        high = x[l] if x[l] > high else high
        low = x[l] if -math.inf < x[l] < low else low
        infinite += 1 if x[l] == -math.inf else 0
    return high, low, infinite > 0
