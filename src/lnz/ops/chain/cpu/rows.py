"""What a step of a chain does to its row of labels, a vector at a time.

Rows are pointers (:mod:`lnz.ops.jit.cpu.memory`). Scratch rows hold as many labels as whole vectors do, with zeros
beyond the labels; rows of the chain ``[B, T, L]`` end with the labels, so their last block is masked.
"""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import fold_blocks, for_blocks, full_like, load, store
from lnz.ops.jit.cpu.vectors import all_lanes, max_lanes, maximum, min_lanes, minimum, select, sum_lanes

FLAGS = {"contract"}
# products of sums in float64 whose logarithm is not taken yet: one more sum, of at least e^−637, leaves none of them 0
SMALL, LARGE = 1e-20, 1e20


@helper(fastmath=FLAGS)
def largest(x, size):
    """The maximum of ``x``, NaN passed over."""
    return max_lanes(fold_blocks(climb, full_like(x, -math.inf), size, x))


@helper(fastmath=FLAGS)
def climb(top, at, n, x):
    return maximum(load(x, at, n, -math.inf), top)


@helper(fastmath=FLAGS)
def exp_shifted(x, top, out, size):
    """``out = exp(x − top)``; whether all of ``x`` is a number of at most ``top``."""
    return all_lanes(fold_blocks(_exp_shifted, full_like(x, 0) == 0, size, x, top, out))


@helper(fastmath=FLAGS)
def _exp_shifted(finite, at, n, x, top, out):
    values = load(x, at, n, -math.inf)
    store(exp(values - top), out, at, n)
    return finite & (values <= top)


@helper(fastmath=FLAGS)
def forward_step(message, factor, local, state, size):
    """``message *= factor`` and ``state = message · local``; the sum of that. Also the step backward, for exp(x) β."""
    return sum_lanes(fold_blocks(_forward_step, full_like(local, 0), size, message, factor, local, state))


@helper(fastmath=FLAGS)
def _forward_step(total, at, n, message, factor, local, state):
    arrived = load(message, at, n) * factor
    product = arrived * load(local, at, n)
    store(product, state, at, n)
    store(arrived, message, at, n)
    return total + product


@helper()
def fill(x, value, size):
    """``x = value``."""
    for_blocks(_fill, size, x, value)


@helper()
def _fill(at, n, x, value):
    store(full_like(x, value), x, at, n)


@helper(fastmath=FLAGS)
def plus(a, b, out, size):
    """``out = a + b``, pointers; returns ``out``."""
    for_blocks(_plus, size, a, b, out)
    return out


@helper(fastmath=FLAGS)
def _plus(at, n, a, b, out):
    store(load(a, at, n) + load(b, at, n), out, at, n)


@helper(fastmath=FLAGS)
def scaled_copy(x, factor, out, size):
    """``out = x · factor``."""
    for_blocks(_scaled_copy, size, x, factor, out)


@helper(fastmath=FLAGS)
def _scaled_copy(at, n, x, factor, out):
    store(load(x, at, n) * factor, out, at, n)


@helper(fastmath=FLAGS)
def overlap(forward_factor, backward_factor, size):
    """Their product, summed."""
    return sum_lanes(fold_blocks(_overlap, full_like(forward_factor, 0), size, forward_factor, backward_factor))


@helper(fastmath=FLAGS)
def _overlap(total, at, n, forward_factor, backward_factor):
    return total + load(forward_factor, at, n) * load(backward_factor, at, n)


@helper(fastmath=FLAGS)
def write_marginals(forward_factor, backward_factor, local, at_node, at_edge, size):
    """Into ``local`` the marginals, forward · backward · ``at_node``; into forward the old local · it · ``at_edge``."""
    for_blocks(_write_marginals, size, forward_factor, backward_factor, local, at_node, at_edge)


@helper(fastmath=FLAGS)
def _write_marginals(at, n, forward_factor, backward_factor, local, at_node, at_edge):
    message, own = load(forward_factor, at, n), load(local, at, n)
    store(message * load(backward_factor, at, n) * at_node, local, at, n)
    store(message * own * at_edge, forward_factor, at, n)


@helper(fastmath=FLAGS)
def smallest(x, lowest, size):
    """The smallest of x and ``lowest``, exact zeros left out."""
    least = min_lanes(fold_blocks(_smallest, full_like(x, math.inf), size, x))
    return least if least < lowest else lowest


@helper(fastmath=FLAGS)
def _smallest(least, at, n, x):
    values = load(x, at, n)
    return select(values > 0, minimum(values, least), least)


@helper(fastmath=FLAGS)
def span(x, size):
    """The largest and the smallest score, −inf left out, and whether there is one that was left out."""
    none = full_like(x, 0)
    least, left_out = fold_blocks(_span, (full_like(x, math.inf), none), size, x)
    return largest(x, size), min_lanes(least), max_lanes(left_out) > 0


@helper(fastmath=FLAGS)
def _span(found, at, n, x):
    least, left_out = found
    values = load(x, at, n, math.inf)
    infinite = values == -math.inf
    return select(infinite, least, minimum(values, least)), select(infinite, 1, left_out)
