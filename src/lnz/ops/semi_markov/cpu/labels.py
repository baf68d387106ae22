"""What a step does over pairs of labels, going back: what follows a segment.

exp(A(k, l) − max_l A(k, l)) and exp(begin(l) − max begin) are multiplied and summed. Where such a sum is too small for
its dtype to say what it is (``limit``), the step does the row of that label with logarithms instead, so that any range
of scores is right; elsewhere underflow is negligible. Arguments that are rows are pointers.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, full_like, lane_numbers, load, store
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, astype, broadcast, max_lanes, select, sum_lanes
from lnz.ops.semi_markov.cpu.widths import FLAGS


@helper(fastmath=FLAGS)
def exp_shifted(scores, out, ahead, size):
    """``out = exp(scores − top)``; the top, 0 if all is −∞, Σ ``out`` · ``ahead``, and whether all are numbers."""
    mass = full_like(scores, 0)
    top = full_like(scores, -math.inf)
    for column in range(0, size, LANES):
        score = load(scores, column, min(LANES, size - column), -math.inf)
        top = select(score > top, score, top)
    peak = max_lanes(top)
    if peak == -math.inf:
        peak = max_lanes(mass)
    proper = broadcast(peak) < math.inf
    for column in range(0, size, LANES):
        n = min(LANES, size - column)
        below = load(scores, column, n, -math.inf) - peak
        proper = proper & (below <= 0)
        factor = exp(below)
        store(factor, out, column, n)
        mass += factor * load(ahead, column)
    return peak, sum_lanes(mass), all_lanes(proper)


@helper(fastmath=FLAGS)
def exp_table(scores, tables, ahead, size):
    """Fill in ``tables`` from a pointer to the scores of the one table, ``AS_ONE``; whether all are numbers.

    The sums with ``ahead`` are of no use here.
    """
    table, transposed, tops, proper = tables.table, tables.transposed, tables.tops, True
    for k in range(size):
        top, _, numbers = exp_shifted(address(scores, k * size), address(table, k), ahead, size)
        tops[0, k] = top
        proper = proper and numbers
        for l in range(size):
            transposed[l, k] = table[k, l]
    return proper


@helper(fastmath=FLAGS)
def begin(shifts, sums, begins, inverses, ahead, size):
    """begin = ``shifts`` + ln ``sums`` into ``begins``, 1 / ``sums`` into ``inverses``; max begin, 0 if all is −∞.

    And exp(begin − that) into ``ahead``.
    """
    top = broadcast(-math.inf)
    for column in range(0, size, LANES):
        mass = load(sums, column)
        value = load(shifts, column) + astype(log(mass), np.float64)
        value = select(lane_numbers() < size - column, value, -math.inf)
        store(value, begins, column)
        store(select(mass > 0, 1 / mass, 0), inverses, column)
        top = select(value > top, value, top)
    peak = max_lanes(top)
    peak = peak if peak > -math.inf else 0.0
    for column in range(0, size, LANES):
        store(exp(astype(load(begins, column) - peak, ahead)), ahead, column)
    return peak


@helper(fastmath=FLAGS)
def after(message, tops, peak, limit, afters, leaves, size):
    """after = ``tops`` + ``peak`` + ln ``message`` into ``afters``, 1 / ``message`` into ``leaves``.

    ``leaves`` is 0 where the message is below the limit; whether that is so for any label.
    """
    few = False
    for column in range(0, size, LANES):
        mass = load(message, column)
        value = load(tops, column) + peak + astype(log(mass), np.float64)
        store(value, afters, column, min(LANES, size - column))
        enough = mass > limit
        store(select(enough, 1 / mass, 0), leaves, column)
        few = few or not all_lanes(enough | (lane_numbers() > size - 1 - column))
    return few


@helper(fastmath=FLAGS)
def after_in_logs(scores, begins, afters, leaves, size):
    """after(k) = ln Σ_l exp(A(k, l) + begin(l)) of the labels whose ``leaves`` are 0."""
    for k in range(size):
        if leaves[k] == 0:
            afters[k] = log_sum(address(scores, k * size), begins, size)


@helper(fastmath=FLAGS)
def log_sum(scores, begins, size):
    """ln Σ exp(scores + begins)."""
    top, mass = -math.inf, 0.0
    for l in range(size):
        value = scores[l] + begins[l]
        top = value if value > top else top
    if top == -math.inf:
        return top
    for l in range(size):
        mass += exp(scores[l] + begins[l] - top)
    return top + math.log(mass)
