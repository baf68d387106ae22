"""Tree-reweighted messages on a grid: what nodes send, and what an edge adds to the upper bound.

Messages count ρ times at the node where they arrive, by the edge they come over, and then one is taken away in full:
see the reference of tree-reweighted messages. Node scores are logarithms. In probabilities, powers of messages are
taken through their logarithms, and a quotient takes one away: that costs a fourth of the exponentials that four
messages sent in logarithms would.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.grid_belief.cpu.lanes import FLAGS, add, copy, fill, larger, multiply_add
from lnz.ops.math.cpu import log
from lnz.ops.registers.cpu.exponential import exp as exp_of
from lnz.ops.registers.cpu.lanes import BLOCK, INT, Lanes, arrays, whole_or_masked
from lnz.ops.registers.cpu.logarithm import log as log_of

LEAST = {4: 1e-32, 8: 1e-300}
"""What a possible label of a node counts at least, by the bytes of a number: then 0 is for impossible ones only."""


@intrinsic
def gather_powers(
    typing_context: Any, u: Any, M: Any, across: Any, down: Any, ends: Any, below: Any, x: Any, top: Any, b: Any,
    h: Any, w: Any, at: Any, n: Any
) -> Any:  # fmt: skip
    """:func:`~.blocks.gather_block` with powers, and the product of all into ``x [L, at …]``, largest 1.

    ``top [at …]``: the logarithm of what that was divided by.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        u, M, across, down, ends, below, x, top = arrays(context, builder, signature, arguments, 8)
        b, h, w, at, n = arguments[8:]
        one = ir.Constant(INT, 1)
        direction = [ir.Constant(INT, d) for d in range(4)]
        labels = builder.extract_value(u[1].shape, 0)
        column, later, lower = builder.add(w, at), builder.add(at, one), builder.add(h, one)

        def powers(lanes: Lanes) -> None:
            zero = lanes.constant(0.0)
            rho = [lanes.load(across, h, column), lanes.load(across, h, builder.add(column, one)),
                   lanes.load(down, h, column), lanes.load(down, lower, column)]  # fmt: skip
            largest = cgutils.alloca_once_value(builder, lanes.constant(-np.inf))
            with cgutils.for_range(builder, labels) as loop:
                total = lanes.load(u, loop.index, column)
                for d, power in zip(direction, rho, strict=True):
                    message = log_of(lanes, lanes.load(M, d, b, h, loop.index, column, other=1.0))
                    total = builder.fadd(total, builder.fmul(power, message, flags=("contract",)), flags=("contract",))
                builder.store(lanes.larger(total, builder.load(largest)), largest)
                lanes.store(total, x, loop.index, at)
            most = builder.load(largest)
            lanes.store(most, top, at)
            with cgutils.for_range(builder, labels) as loop:
                l = loop.index
                total = lanes.load(x, l, at)
                possible = builder.fcmp_ordered(">", total, lanes.constant(-np.inf))
                share = lanes.larger(exp_of(lanes, builder.fsub(total, most)), lanes.constant(LEAST[lanes.size]))
                share = builder.select(possible, share, zero)
                left, right, up, lowest = (lanes.load(M, d, b, h, l, column, other=1.0) for d in direction)
                # two quotients for four: products of two messages are far from the ends of the range
                level = builder.select(possible, builder.fdiv(share, lanes.product(left, right)), zero)
                upright = builder.select(possible, builder.fdiv(share, lanes.product(up, lowest)), zero)
                lanes.store(share, x, l, at)
                lanes.store(lanes.product(level, left), ends, direction[0], l, later)
                lanes.store(lanes.product(level, right), ends, direction[1], l, at)
                lanes.store(lanes.load(below, l, column), ends, direction[2], l, at)
                lanes.store(lanes.product(upright, lowest), ends, direction[3], l, at)
                lanes.store(lanes.product(upright, up), below, l, column)

        whole_or_masked(context, builder, signature.args[0].dtype, n, powers)
        return context.get_dummy_value()

    return types.void(u, M, across, down, ends, below, x, top, *(types.intp,) * 5), generate


@njit(fastmath=FLAGS)
def send_but(out, total, received):
    """What is left of a sum without a part of it: −inf stays, whatever the part."""
    for k in range(out.size):
        out[k] = total[k] - received[k] if total[k] > -np.inf else total[k]


@njit(fastmath=FLAGS)
def gather_reweighted(domain, u, M, across, down, b, h, w, n, ends, below, x, top):
    """:func:`~.sweep.gather` where incoming messages count ``across [H, W + 1]`` and ``down [H + 1, W]`` times, by the
    edges before and after each pixel. ``x [L, n]`` becomes the product of all, largest ``exp top [n]`` times that.
    """
    if len(domain) == 0:
        for at in range(0, n, BLOCK):
            gather_powers(u, M, across, down, ends, below, x, top, b, h, w, at, n - at)  # type: ignore[call-arg]
        return
    fill(top[:n], 0)
    for l in range(u.shape[0]):
        from_left, from_right = M[0, b, h, l, w : w + n], M[1, b, h, l, w : w + n]
        from_up, from_down = M[2, b, h, l, w : w + n], M[3, b, h, l, w : w + n]
        total = x[l, :n]
        copy(total, u[l, w : w + n])
        multiply_add(total, across[h, w : w + n], from_left)
        multiply_add(total, across[h, w + 1 : w + 1 + n], from_right)
        multiply_add(total, down[h, w : w + n], from_up)
        multiply_add(total, down[h + 1, w : w + n], from_down)
        send_but(ends[0, l, 1 : n + 1], total, from_right)
        send_but(ends[1, l, :n], total, from_left)
        copy(ends[2, l, :n], below[l, w : w + n])
        send_but(below[l, w : w + n], total, from_down)
        send_but(ends[3, l, :n], total, from_up)


@njit(fastmath=FLAGS, error_model="numpy")
def larger_quotient(domain, worst, new, old, possible):
    """The larger of ``worst`` and new / old (in logarithms new − old), where the label is possible."""
    if len(domain) == 0:
        for k in range(worst.size):
            value = new[k] / old[k] if possible[k] > 0 else worst[k]
            worst[k] = value if value > worst[k] else worst[k]
    else:
        for k in range(worst.size):
            value = new[k] - old[k] if possible[k] > -np.inf else worst[k]
            worst[k] = value if value > worst[k] else worst[k]


@njit(fastmath=FLAGS, error_model="numpy")
def excess(domain, M, b, h, w, row, column, side, first, n, ends, out, senders, lanes):
    """δ of edges ``first … n − 1`` from (row, column) on, into ``lanes[5]``: how much sums of theirs exceed 1, at most.

    ``out`` are their new messages, before they are normalised; ``senders``: what the products of all at the earlier and
    at the later ends sum to.
    """
    delta, worst = lanes[5, first:n], lanes[0, first:n]
    fill(delta, -np.inf)
    for end in range(2):
        at_row, at_column = (row, column + first) if end else (h, w + first)
        fill(worst, 0 if len(domain) == 0 else -np.inf)
        for l in range(M.shape[3]):
            old = M[2 * side + end, b, at_row, l, at_column : at_column + n - first]
            larger_quotient(domain, worst, out[end, l, first:n], old, ends[2 * side + 1 - end, l, first:n])
        total = senders[end]
        for k in range(worst.size):
            worst[k] = log(worst[k] / total[k]) if len(domain) == 0 else worst[k] - total[k]
        larger(delta, worst)


@njit(fastmath=FLAGS)
def log_totals(domain, out, total, top):
    """ln Z of nodes, from what the products of all sum to."""
    for k in range(out.size):
        out[k] = log(total[k]) if len(domain) == 0 else total[k]
    add(out, top)
