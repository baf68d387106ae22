"""Tree-reweighted messages on a grid: what nodes send, and what an edge adds to the upper bound.

Messages count ρ times at the node where they arrive, by the edge they come over, and then one is taken away in full:
see the reference of tree-reweighted messages. Node scores are logarithms. In probabilities, powers of messages are
taken through their logarithms, and a quotient takes one away: that costs a fourth of the exponentials that four
messages sent in logarithms would.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.grid_belief.cpu.blocks import Received, Sent
from lnz.ops.grid_belief.cpu.lanes import FLAGS, add, copy, fill, larger, multiply_add
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, for_blocks, full_like, load, store
from lnz.ops.jit.cpu.vectors import by_dtype, maximum, select

LEAST_SINGLE, LEAST_DOUBLE = 1e-32, 1e-300  # of a possible label of a node: then 0 is for impossible ones only


@njit(fastmath=FLAGS)
def gather_powers(at, n, received, powers, sent, products, top):
    """:func:`~.blocks.gather_block` with powers, and the product of all into ``products [labels, room]``, largest 1.

    ``powers``: four pointers, how much each message counts; ``top``: the logarithm of what that was divided by.
    """
    labels, scores, messages, line = received
    ends, room, below, wide = sent
    from_left, from_right, from_up, from_down = messages
    across_left, across_right, down_up, down_down = (
        load(powers[0], at, n), load(powers[1], at, n), load(powers[2], at, n), load(powers[3], at, n),
    )  # fmt: skip
    most = full_like(scores, -np.inf)
    for l in range(labels):
        here = l * line + at
        total = load(scores, here, n)
        total += across_left * log(load(from_left, here, n, 1))
        total += across_right * log(load(from_right, here, n, 1))
        total += down_up * log(load(from_up, here, n, 1))
        total += down_down * log(load(from_down, here, n, 1))
        most = maximum(total, most)
        store(total, products, l * room + at, n)
    store(most, top, at, n)
    for l in range(labels):
        here, there, rest = l * line + at, l * room + at, l * wide + at
        total = load(products, there, n)
        possible = total > -np.inf
        share = select(possible, maximum(exp(total - most), by_dtype(scores, LEAST_SINGLE, LEAST_DOUBLE)), 0)
        left, right = load(from_left, here, n, 1), load(from_right, here, n, 1)
        up, down = load(from_up, here, n, 1), load(from_down, here, n, 1)
        # two quotients for four: products of two messages are far from the ends of the range
        level = select(possible, share / (left * right), 0)
        upright = select(possible, share / (up * down), 0)
        store(share, products, there, n)
        store(level * left, ends[0], there + 1, n)
        store(level * right, ends[1], there, n)
        store(load(below, rest, n), ends[2], there, n)
        store(upright * down, ends[3], there, n)
        store(upright * up, below, rest, n)


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
        messages = (
            address(M, (0, b, h, 0, w)), address(M, (1, b, h, 0, w)),
            address(M, (2, b, h, 0, w)), address(M, (3, b, h, 0, w)),
        )  # fmt: skip
        powers = address(across, (h, w)), address(across, (h, w + 1)), address(down, (h, w)), address(down, (h + 1, w))
        received = Received(len(u), address(u, (0, w)), messages, M.shape[4])
        to = address(ends, 0), address(ends, 1), address(ends, 2), address(ends, 3)
        sent = Sent(to, ends.shape[2], address(below, (0, w)), below.shape[1])
        for_blocks(gather_powers, n, received, powers, sent, address(x, 0), address(top, 0))
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
