"""The inside pass: the sums below spans, sixteen spans of one width side by side.

Rows of a chart hold the spans of one width w by their first words i. Where a span splits after d + 1 words, its parts
are entry i of row d and entry i + d + 1 of row w − 1 − d: for neighbouring spans, neighbours. So the inner loop over
splits multiplies two rows and adds them up. Charts are float64, in units of a power of two per width, so that no width
waits for a logarithm of the one below; where a sum is too small for what underflowed to be negligible beside it, it is
done with logarithms instead, so that any range of scores is right. Arguments named ``row`` are pointers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, full_like, load, store
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.jit.cpu.rows import FLAGS
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, bits_as, max_lanes, maximum, select

LN2 = math.log(2.0)
LIMIT = 1e-170  # of a sum of products of numbers up to 1: what underflows is negligible beside it …
SMALLEST = 1e-120  # … if the largest number of a width was no less than this before it was scaled
NONE = -(2**40)  # the exponent of a width of which no span is possible


class Chart(NamedTuple):
    """One sentence: pointers to float64 ``[N, wide]`` by width and first word, with room for a vector beyond the last.

    Attributes:
        peaks: the highest score of a span; 0 where all are −∞, unless it is a single one.
        totals: the sum over its labels of exp(score − peak), where there are several.
        own: ln of the sum over labels of a span, less the highest score of the sentence.
        factor: exp(own) in units of 2 to the exponent of the width, up to 1.
        logs: β, own and the ln of the sum over what is below.
        below: ln of the sum over what is below; 0 for single words.
        weights: exp(β) in units of 2 to the exponent of the width, below 1.
        inverses: 1 / what is below, in units of the ways; 0 where that was computed with logarithms.
        mass: the probability that a span is in the tree.
        ways: by width and split, what the product of two weights is to be multiplied by, powers of two.
        units: int64 ``[N]``, the exponents of ``factor`` by width.
        exponents: int64 ``[N]``, those of ``weights``.
        wide: how far apart rows are.
    """

    peaks: Any
    totals: Any
    own: Any
    factor: Any
    logs: Any
    below: Any
    weights: Any
    inverses: Any
    mass: Any
    ways: Any
    units: Any
    exponents: Any
    wide: Any


@helper()
def new_room(N):
    """The memory of a chart, which :func:`chart_in` points into: numbers, and exponents."""
    wide = (N + LANES - 1) // LANES * LANES + 2 * LANES
    return workspace(10 * N, wide, np.float64).reshape(10, N, wide), np.zeros((2, N), np.int64)


@helper()
def chart_in(numbers, exponents):
    """The chart in a room, of which this says nothing to Numba: called in the loop that uses it, it keeps it alive."""
    peaks, totals, own, factor = address(numbers, 0), address(numbers, 1), address(numbers, 2), address(numbers, 3)
    logs, below, weights = address(numbers, 4), address(numbers, 5), address(numbers, 6)
    inverses, mass, ways = address(numbers, 7), address(numbers, 8), address(numbers, 9)
    units, tops, wide = address(exponents, 0), address(exponents, 1), numbers.shape[2]
    return Chart(peaks, totals, own, factor, logs, below, weights, inverses, mass, ways, units, tops, wide)


@helper(fastmath=FLAGS)
def inside(chart, n):
    """All of the chart but what sums over labels, which is there, and ``mass``."""
    for w in range(n):
        unit = set_ways(chart.exponents, address(chart.ways, w * chart.wide), w) if w > 0 else 0
        top, enough = 0.0, True
        for i in range(0, n - w, LANES):
            highest, right = step(chart, w, i, min(LANES, n - w - i), unit * LN2)
            top, enough = max(top, highest), enough & right
        if not enough or 0.0 < top < SMALLEST:
            width_in_logs(chart, w, n)
        elif top > 0:
            up = exponent_of(top)
            chart.exponents[w] = unit + chart.units[w] + up
            for at in range(w * chart.wide, w * chart.wide + n - w, LANES):
                store(load(chart.weights, at) * power_of_two(-up), chart.weights, at)
        else:
            chart.exponents[w] = NONE


@helper()
def set_ways(exponents, row, w):
    """Per split, 2 to the exponent of the product of its parts less the largest of these; and the largest."""
    most = exponents[0] + exponents[w - 1]
    for d in range(w):
        most = max(most, exponents[d] + exponents[w - 1 - d])
    for d in range(w):
        row[d] = power_of_two(exponents[d] + exponents[w - 1 - d] - most)
    return most


@helper()
def power_of_two(exponent):
    """2^exponent, up to 1023; 0 below −1022."""
    return bits_as((max(exponent, -1023) + 1023) << 52, np.float64)


@helper()
def exponent_of(x):
    """That with x / 2^exponent in [½, 1), of a positive normal number."""
    return (bits_as(x, np.int64) >> 52) - 1022


@helper(fastmath=FLAGS)
def step(chart, w, i, count, unit):
    """``logs``, ``below``, ``inverses`` and ``weights``, not yet scaled, of ``count`` spans of width w from word i on.

    The largest weight, and whether all sums are large enough for what underflows to be negligible.
    """
    at = w * chart.wide + i
    own = load(chart.own, at, count, -math.inf)
    mass = full_like(chart.own, 1.0)
    if w > 0:
        mass = weighted_sum(address(chart.weights, i), address(chart.ways, w * chart.wide), w, chart.wide)
    enough = mass > LIMIT
    weights = select(enough, load(chart.factor, at, count, 0.0) * mass, 0.0)
    below = unit + log(mass)
    store(weights, chart.weights, at)
    store(select(enough, 1.0 / mass, 0.0), chart.inverses, at, count)
    store(below, chart.below, at, count)
    store(own + below, chart.logs, at, count)
    return max_lanes(weights), all_lanes(enough | (own == -math.inf))


@helper(fastmath=FLAGS)
def weighted_sum(row, ways, w, wide):
    """Σ_d of products of weights, from a pointer to those of the first words of width 0."""
    even, odd = full_like(row, 0.0), full_like(row, 0.0)  # neither addition waits for the other
    for d in range(0, w - 1, 2):
        even += ways[d] * load(row, d * wide) * load(row, (w - 1 - d) * wide + d + 1)
        odd += ways[d + 1] * load(row, (d + 1) * wide) * load(row, (w - 2 - d) * wide + d + 2)
    if w % 2 == 1:
        even += ways[w - 1] * load(row, (w - 1) * wide) * load(row, w)
    return even + odd


@helper(fastmath=FLAGS)
def width_in_logs(chart, w, n):
    """The sums of a width that are too small, by logarithms, and all of its weights."""
    top = -math.inf
    for i in range(0, n - w, LANES):
        at, count = w * chart.wide + i, min(LANES, n - w - i)
        own, below = load(chart.own, at, count, -math.inf), load(chart.below, at)
        if w > 0:
            sums = log_sum(address(chart.logs, i), w, chart.wide)
            below = select(load(chart.inverses, at) > 0, below, sums)
        store(below, chart.below, at, count)
        store(own + below, chart.logs, at, count)
        top = max(top, max_lanes(own + below))
    exponent = exponent_above(top)
    chart.exponents[w] = exponent
    for i in range(0, n - w, LANES):
        at, count = w * chart.wide + i, min(LANES, n - w - i)
        store(exp(load(chart.logs, at, count, -math.inf) - exponent * LN2), chart.weights, at)


@helper()
def exponent_above(top):
    """Of a power of two that is no less than exp(top)."""
    return math.floor(top / LN2) + 1 if top > -math.inf else NONE


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
