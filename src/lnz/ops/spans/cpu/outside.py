"""The outside pass: the probability of a span is shared out among where it splits, from the whole sentence down.

In proportion to the summands of the inside pass, by products only, so that the probabilities of the parts add up to
that of the whole. Arguments that are not numbers are pointers.
"""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, load, store
from lnz.ops.jit.cpu.rows import FLAGS, clear
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, max_lanes


@helper(fastmath=FLAGS)
def outside(chart, n):
    """``mass`` of all spans; all 0 where no tree is possible."""
    wide = chart.wide
    clear(chart.mass, n * wide)
    if n == 0 or not chart.logs[(n - 1) * wide] > -math.inf:
        return
    chart.mass[(n - 1) * wide] = 1.0
    for w in range(n - 1, 0, -1):
        ways = address(chart.ways, w * wide)
        for i in range(0, n - w, LANES):
            at, count = w * wide + i, min(LANES, n - w - i)
            mass = load(chart.mass, at, count)
            if not max_lanes(mass) > 0:
                continue
            inverse, row = load(chart.inverses, at, count), address(chart.mass, i)
            if all_lanes((inverse > 0) | (mass == 0)):
                share(mass * inverse, address(chart.weights, i), ways, row, w, wide)
            else:
                share_in_logs(mass, load(chart.below, at, count), address(chart.logs, i), row, w, wide)


@helper(fastmath=FLAGS)
def share(mass, weights, ways, row, w, wide):
    for d in range(w):
        left, right = d * wide, (w - 1 - d) * wide + d + 1
        part = ways[d] * mass * load(weights, left) * load(weights, right)
        store(load(row, left) + part, row, left)
        store(load(row, right) + part, row, right)


@helper(fastmath=FLAGS)
def share_in_logs(mass, below, logs, row, w, wide):
    for d in range(w):
        left, right = d * wide, (w - 1 - d) * wide + d + 1
        part = mass * exp(load(logs, left) + load(logs, right) - below)
        store(load(row, left) + part, row, left)
        store(load(row, right) + part, row, right)
