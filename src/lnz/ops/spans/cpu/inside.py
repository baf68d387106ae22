"""The inside pass: the sums below spans, sixteen spans of one width side by side.

Rows of a chart hold the spans of one width w by their first words i. Where a span splits after d + 1 words, its parts
are entry i of row d and entry i + d + 1 of row w − 1 − d: for neighbouring spans, neighbours. So the inner loop over
splits multiplies two rows and adds them up. Charts are float64, less a constant per width; where a sum is too small for
what underflowed to be negligible beside it, it is done with logarithms instead, so that any range of scores is right.
Arguments named ``row`` are pointers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, full_like, lane_numbers, load, store
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.jit.cpu.rows import FLAGS, highest
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, max_lanes, maximum, select

LIMIT = 1e-260  # of a sum of products of numbers up to 1: what underflows is negligible beside it


class Chart(NamedTuple):
    """One sentence; float64 ``[N, N']`` by width and first word, N' with room for a vector beyond the last word.

    Attributes:
        own: ln of the sum over labels of a span, less the highest score of the sentence.
        logs: β, the same times the sum over what is below.
        below: ln of the sum over what is below; 0 for single words.
        weights: exp(β − the largest of the width).
        inverses: 1 / what is below, in units of the factors; 0 where that was computed with logarithms.
        mass: the probability that a span is in the tree.
        factors: by width and split, what the product of two weights is to be multiplied by, ``[N, N']``.
        tops: the largest β of each width ``[1, N']``.
    """

    own: Any
    logs: Any
    below: Any
    weights: Any
    inverses: Any
    mass: Any
    factors: Any
    tops: Any


@helper()
def new_chart(N):
    wide = (N + LANES - 1) // LANES * LANES + 2 * LANES
    a, b, c = workspace(N, wide, np.float64), workspace(N, wide, np.float64), workspace(N, wide, np.float64)
    d, e, f = workspace(N, wide, np.float64), workspace(N, wide, np.float64), workspace(N, wide, np.float64)
    return Chart(a, b, c, d, e, f, workspace(N, wide, np.float64), workspace(1, wide, np.float64))


@helper(fastmath=FLAGS)
def highest_of(scores, b, n):
    """The largest score of the spans of a sentence: 0 where all are −∞, +∞ where any is NaN or +∞."""
    size, top = scores.shape[3], -math.inf
    for i in range(n):
        top = max(top, float(highest(address(scores, (b, i, i)), (n - i) * size)))
    return top if top > -math.inf else 0.0


@helper(fastmath=FLAGS)
def inside(chart, n):
    """All of the chart but ``own``, which is there, and ``mass``."""
    wide = chart.own.shape[1]
    for w in range(n):
        if w > 0:
            set_factors(address(chart.tops, 0), address(chart.factors, w), w)
        top = -math.inf
        for i in range(0, n - w, LANES):
            top = max(top, step(chart, w, i, min(LANES, n - w - i), wide))
        chart.tops[0, w] = top
        top = top if top > -math.inf else 0.0
        for i in range(0, n - w, LANES):
            store(exp(load(chart.logs, (w, i)) - top), chart.weights, (w, i), min(LANES, n - w - i))


@helper(fastmath=FLAGS)
def set_factors(tops, row, w):
    """exp(top of left + top of right − their largest) per split; and that largest, after them."""
    most = -math.inf
    for d in range(w):
        row[d] = tops[d] + tops[w - 1 - d]
        most = max(most, row[d])
    row[w] = most if most > -math.inf else 0.0
    for d in range(w):
        row[d] = exp(row[d] - row[w])


@helper(fastmath=FLAGS)
def step(chart, w, i, count, wide):
    """``logs``, ``below`` and ``inverses`` of ``count`` spans of width w from word i on; the largest of ``logs``."""
    own = load(chart.own, (w, i), count, -math.inf)
    below = full_like(chart.own, 0.0)
    if w > 0:
        row = address(chart.factors, w)
        mass = weighted_sum(address(chart.weights, (0, i)), row, w, wide)
        enough = mass > LIMIT
        below = row[w] + log(mass)
        if not all_lanes(enough | (own == -math.inf)):
            below = select(enough, below, log_sum(address(chart.logs, (0, i)), w, wide))
        store(select(enough, 1.0 / mass, 0.0), chart.inverses, (w, i), count)
    logs = own + below
    store(below, chart.below, (w, i), count)
    store(logs, chart.logs, (w, i), count)
    return max_lanes(select(lane_numbers() < count, logs, -math.inf))


@helper(fastmath=FLAGS)
def weighted_sum(row, factors, w, wide):
    """Σ_d of products of weights, from a pointer to those of the first words of width 0."""
    total = full_like(row, 0.0)
    for d in range(w):
        total += factors[d] * load(row, d * wide) * load(row, (w - 1 - d) * wide + d + 1)
    return total


@helper(fastmath=FLAGS)
def log_sum(row, w, wide):
    """ln Σ_d exp of sums of logarithms."""
    top, total = full_like(row, -math.inf), full_like(row, 0.0)
    for d in range(w):
        top = maximum(load(row, d * wide) + load(row, (w - 1 - d) * wide + d + 1), top)
    peak = select(top > -math.inf, top, 0.0)
    for d in range(w):
        total += exp(load(row, d * wide) + load(row, (w - 1 - d) * wide + d + 1) - peak)
    return peak + log(total)
