"""The steps of a sweep in probabilities, sixteen pixels at a time in registers.

Loops of :mod:`.lanes` along a row of 64 pixels spend as long on getting started as on arithmetic; here one pass over
the labels reads each message once and writes each product once. ``gather`` and ``commit`` of :mod:`.sweep` do the same
in any domain. Lanes past the end of a row are masked, so that nothing outside an array is touched.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.registers.cpu.lanes import INT, Lanes, arrays, whole_or_masked


@intrinsic
def gather_block(
    typing_context: Any, u: Any, M: Any, ends: Any, below: Any, b: Any, h: Any, w: Any, at: Any, n: Any
) -> Any:
    """What pixels ``w + at …`` of row h send, from scores ``u [L, W]`` and messages, into ``ends`` and ``below``.

    ``ends [·, L, at …]``: to the right (a lane late), to the left, down by the row above (which was left in ``below
    [L, w + at …]``), up; what row h sends down is left in ``below`` instead.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        u, M, ends, below = arrays(context, builder, signature, arguments, 4)
        b, h, w, at, n = arguments[4:]
        direction = [ir.Constant(INT, d) for d in range(4)]
        labels = builder.extract_value(u[1].shape, 0)
        column = builder.add(w, at)
        later = builder.add(at, ir.Constant(INT, 1))

        def products(lanes: Lanes) -> None:
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

        whole_or_masked(context, builder, signature.args[0].dtype, n, products)
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
        x, M, change = arrays(context, builder, signature, arguments, 3)
        d, b, h, w, at, n, count, check = arguments[3:]
        labels = builder.extract_value(M[1].shape, 3)
        column = builder.add(w, at)

        def stored(lanes: Lanes) -> None:
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

        whole_or_masked(context, builder, signature.args[0].dtype, n, stored)
        return context.get_dummy_value()

    return types.void(x, M, change, *(types.intp,) * 6, x.dtype, types.boolean), generate
