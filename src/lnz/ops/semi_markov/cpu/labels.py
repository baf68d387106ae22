"""What a step does over pairs of labels, going back: what follows a segment, for a few sequences side by side.

exp(A(k, l) − max_l A(k, l)) and exp(begin(l) − max begin) are multiplied and summed. Where such a sum is too small for
its dtype to say what it is (``limit``), the step does the row of that label with logarithms instead, so that any range
of scores is right; elsewhere what underflows is nothing beside the sum. Rows ``[…, L rounded up to 16]`` hold zeros
beyond the labels, those of logarithms −∞.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import lane_numbers, load, store
from lnz.ops.jit.cpu.product import multiply
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, astype, broadcast, max_lanes, select, sum_lanes
from lnz.ops.semi_markov.cpu.widths import FLAGS

ROWWISE: tuple[()] = ()  # whether positions have tables of their own, by a length that the compiler knows,
AS_ONE = (0,)  # or share one


@njit(fastmath=FLAGS)
def lift(scores, entry, place, k, out, row, tops, line, ahead, r, t):
    """``out[row] = exp(scores[entry, place, k] − top)``, with the top, 0 if all is −∞, into ``tops[line, k]``.

    Also Σ ``out[row] · ahead[r, t]``, and whether all scores are numbers.
    """
    size, top = scores.shape[3], broadcast(scores.dtype.type(-math.inf))
    for column in range(0, size, LANES):
        score = load(scores, (entry, place, k, column), min(LANES, size - column), -math.inf)
        top = select(score > top, score, top)
    peak = max_lanes(top)
    peak = peak if peak > -math.inf else scores.dtype.type(0)
    tops[line, k] = peak
    mass, proper = broadcast(scores.dtype.type(0)), broadcast(peak) < math.inf
    for column in range(0, size, LANES):
        n = min(LANES, size - column)
        below = load(scores, (entry, place, k, column), n, -math.inf) - peak
        proper = proper & (below <= 0)
        factor = exp(below)
        store(factor, out, (row, k, column), n)
        mass += factor * load(ahead, (r, t, column))
    return sum_lanes(mass), all_lanes(proper)


@njit(fastmath=FLAGS)
def lift_table(scores, entry, table, transposed, tops, ahead):
    """``table[0] = exp(scores[entry, 0] − tops)``, with a top per row, and the transpose; whether all are numbers."""
    size, proper = scores.shape[3], True
    for k in range(size):
        numbers = lift(scores, entry, 0, k, table, 0, tops, 0, ahead, 0, 0)[1]
        proper = proper and numbers
        for l in range(size):
            transposed[l, k] = table[0, k, l]
    return proper


@njit(fastmath=FLAGS)
def begin(lengths, first, count, size, t, shifts, sums, begins, inverses, ahead, state, peaks):
    """begin_t = ``shifts`` + ln ``sums`` and 1 / ``sums``; exp(begin_t − peak) in ``ahead`` and ``state``."""
    for r in range(count):
        if t >= lengths[first + r]:
            continue
        top = broadcast(-math.inf)
        for column in range(0, size, LANES):
            mass = load(sums, (r, column))
            value = load(shifts, (r, column)) + astype(log(mass), np.float64)
            value = select(lane_numbers() < size - column, value, -math.inf)
            store(value, begins, (r, t, column))
            store(select(mass > 0, 1 / mass, 0), inverses, (r, t, column))
            top = select(value > top, value, top)
        peak = max_lanes(top)
        peak = peak if peak > -math.inf else 0.0
        peaks[r] = peak
        for column in range(0, size, LANES):
            value = exp(astype(load(begins, (r, t, column)) - peak, ahead.dtype))
            store(value, ahead, (r, t, column))
            store(value, state, (r, column))


@njit(fastmath=FLAGS)
def after(
    kind, edge, lengths, first, count, size, t, limit, transposed, columns, message, tops, begins, peaks, ahead, afters,
    leaves, rare, factors, exact,
):  # fmt: skip
    """after_t from begin_t: over the labels of the segment that starts at t, given that of the one before it.

    Args:
        kind: ``AS_ONE`` or ``ROWWISE``.
        edge: A, ``[B or 1, S, L, L]``.
        lengths: ``int64 [B]``.
        first: of the sequences side by side.
        count: of them.
        size: L.
        t: the step.
        limit: what a sum must exceed.
        transposed: of :func:`lift_table`, ``AS_ONE``.
        columns: exp(begin_t − peak), transposed.
        message: ``[count, L …]``, to work in.
        tops: float64 ``[1, L …]`` of :func:`lift_table`; ``ROWWISE`` ``[count, L …]``, to work in.
        begins: float64 ``[count, T, L …]``.
        peaks: float64 ``[count]``.
        ahead: exp(begin − peak), ``[count, T, L …]``.
        afters: float64 ``[count, ≥ (T + 1) L]``, written.
        leaves: one over the sums ``[count, T, L …]``, written; 0 where they are too small.
        rare: bool ``[count, T]``, written: whether one is.
        factors: ``[B · S or 1, L, ≥ L]``; ``ROWWISE`` exp(A − top) is written, each after the other if there is 1.
        exact: bool ``[B]``, set to False where a score is NaN or ∞.
    """
    if len(kind) > 0:
        multiply(columns, transposed, message, count, size)
    for r in range(count):
        if t >= lengths[first + r]:
            continue
        own, place, line = first + r if len(edge) > 1 else 0, t - 1 if len(kind) == 0 else 0, 0
        if len(kind) == 0:
            line, row = r, (first + r) * edge.shape[1] + t - 1 if len(factors) > 1 else 0
            for k in range(size):
                message[r, k], proper = lift(edge, own, place, k, factors, row, tops, line, ahead, r, t)
                exact[first + r] = exact[first + r] and proper
        few = False
        for column in range(0, size, LANES):
            mass = load(message, (r, column))
            value = load(tops, (line, column)) + peaks[r] + astype(log(mass), np.float64)
            store(value, afters, (r, t * size + column), min(LANES, size - column))
            enough = mass > limit
            store(select(enough, 1 / mass, 0), leaves, (r, t, column))
            few = few or not all_lanes(enough | (lane_numbers() > size - 1 - column))
        rare[r, t] = few
        if few:
            for k in range(size):
                if leaves[r, t, k] == 0:
                    afters[r, t * size + k] = log_sum(edge[own, place, k], begins[r, t])


@njit(fastmath=FLAGS)
def log_sum(scores, begins):
    """ln Σ exp(scores + begins)."""
    top, mass = -math.inf, 0.0
    for l in range(scores.size):
        value = scores[l] + begins[l]
        top = value if value > top else top
    if top == -math.inf:
        return top
    for l in range(scores.size):
        mass += exp(scores[l] + begins[l] - top)
    return top + math.log(mass)
