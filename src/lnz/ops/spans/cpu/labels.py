"""Labels of spans: summed out before the recursion, and given their shares of the spans after it.

Two numbers per span are kept in between: an exponential is computed again sooner than it is read from memory.
Arguments named ``row`` and ``out`` are pointers. Shapes as in :mod:`lnz.ops.spans.reference`.
"""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, fold_blocks, for_blocks, full_like, load, store
from lnz.ops.jit.cpu.rows import FLAGS, clear, highest
from lnz.ops.jit.cpu.vectors import LANES, max_lanes, sum_lanes
from lnz.ops.spans.cpu.inside import LN2, exponent_above


@helper(fastmath=FLAGS)
def sum_labels(chart, scores, b, n):
    """``peaks``, ``totals``, ``own`` and ``factor`` of a sentence of n words; its highest score.

    That is 0 where all are −∞, +∞ where any is NaN or +∞: ``own`` then means nothing. A single label is its own peak:
    ``totals`` are not written then, and ``peaks`` may be −∞.
    """
    top, size = -math.inf, scores.shape[3]
    for i in range(n):
        row = address(scores, (b, i))
        for w in range(n - i):
            at = w * chart.wide + i
            if size == 1:
                peak = float(row[i + w]) if row[i + w] < math.inf else math.inf
            else:
                peak, chart.totals[at] = label_sum(address(row, (i + w) * size), size)
            chart.peaks[at] = peak
            if size == 1 or chart.totals[at] > 0:
                top = max(top, peak)
    top = top if top > -math.inf else 0.0
    for w in range(n):
        set_own(chart, w, n, top, size)
    return top


@helper(fastmath=FLAGS)
def set_own(chart, w, n, top, size):
    """``own``, ``factor`` and its exponent of the spans of a width."""
    highest, first = -math.inf, w * chart.wide
    for i in range(0, n - w, LANES):
        count = min(LANES, n - w - i)
        own = load(chart.peaks, first + i, count, -math.inf) - top
        if size > 1:
            own += log(load(chart.totals, first + i, count, 0.0))
        store(own, chart.own, first + i)
        highest = max(highest, max_lanes(own))
    exponent = exponent_above(highest)
    chart.units[w] = exponent
    for at in range(first, first + n - w, LANES):
        store(exp(load(chart.own, at) - exponent * LN2), chart.factor, at)


@helper(fastmath=FLAGS)
def label_sum(row, size):
    """The highest of several scores of a span, and Σ exp(score − highest).

    0 and 0 where all are −∞; +∞ and 1 where any is NaN or +∞.
    """
    peak = float(highest(row, size))
    if peak == -math.inf:
        return 0.0, 0.0
    if peak == math.inf:
        return peak, 1.0
    return peak, float(sum_lanes(fold_blocks(_add_exponentials, full_like(row, 0.0), size, row, peak)))


@helper(fastmath=FLAGS)
def _add_exponentials(total, at, n, row, peak):
    return total + exp(load(row, at, n, -math.inf) - peak)


@kernel(fastmath=FLAGS)
def share(first, last, scores, lengths, peaks, shares, weights, marginals):
    """Of sentences first … last − 1: ``marginals`` = weights · shares · exp(scores − peaks), ``[B, N, N, L]``."""
    N, size = scores.shape[1], scores.shape[3]
    for b in range(first, last):
        n = lengths[b]
        for i in range(n):
            clear(address(marginals, (b, i)), i * size)
            row, out = address(scores, (b, i)), address(marginals, (b, i))
            peak, part = address(peaks, (b, i)), address(shares, (b, i))
            if size == 1:
                for_blocks(_weigh, n - i, address(part, i), weights[b], address(out, i))
            else:
                for j in range(i, n):
                    own, written = address(row, j * size), address(out, j * size)
                    for_blocks(_share, size, own, peak[j], part[j] * weights[b], written)
            clear(address(out, n * size), (N - n) * size)
        for i in range(n, N):
            clear(address(marginals, (b, i)), N * size)


@helper(fastmath=FLAGS)
def _share(at, n, row, peak, factor, out):
    store(exp(load(row, at, n, -math.inf) - peak) * factor, out, at, n)


@helper(fastmath=FLAGS)
def _weigh(at, n, row, factor, out):
    store(load(row, at, n) * factor, out, at, n)
