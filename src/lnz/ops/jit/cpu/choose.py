"""Draws from a few weights."""

from __future__ import annotations

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.rows import FLAGS


@helper(fastmath=FLAGS)
def pick(weights, count, uniform):
    """The first place at which the cumulative sum passes ``uniform`` times the whole; never one of weight 0."""
    total = 0.0
    for i in range(count):
        total += weights[i]
    left, chosen = uniform * total, 0
    for i in range(count):
        if weights[i] > 0:
            chosen = i
            left -= weights[i]
            if left < 0:
                break
    return chosen
