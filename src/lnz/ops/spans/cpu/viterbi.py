"""Best trees: the (max, +) recursion, and a walk down that looks for the maximising splits again.

Rows of the chart as in :mod:`.inside`, float64. Shapes as in :mod:`lnz.ops.spans.reference`.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.charts import ABSENT
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, full_like, load, store
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.jit.cpu.rows import FLAGS
from lnz.ops.jit.cpu.vectors import LANES, maximum
from lnz.typing import IGNORE


@kernel(fastmath=FLAGS)
def viterbi(first, last, scores, lengths, labels, totals):
    """Of sentences first … last − 1: ``labels int64 [B, N, N]`` and float64 ``totals [B]``, both written.

    An impossible sentence gets −100 and −inf.
    """
    N = scores.shape[1]
    wide = (N + LANES - 1) // LANES * LANES + 2 * LANES
    best, kinds, stack = workspace(N, wide, np.float64), np.empty((N, N), np.int64), np.empty((N + 1, 2), np.int64)
    for b in range(first, last):
        n = lengths[b]
        for i in range(n):
            for w in range(n - i):
                kinds[i, w] = largest(address(scores, (b, i, i + w)), scores.shape[3])
                best[w, i] = scores[b, i, i + w, kinds[i, w]]
        for w in range(1, n):
            for i in range(0, n - w, LANES):
                count = min(LANES, n - w - i)
                store(load(best, (w, i)) + best_of(address(best, (0, i)), w, wide), best, (w, i), count)
        totals[b] = best[n - 1, 0] if n > 0 else 0.0
        blank(labels[b], n if totals[b] > -math.inf else 0)
        if totals[b] > -math.inf and n > 0:
            walk(best, kinds, n, labels[b], stack)


@helper(fastmath=FLAGS)
def largest(row, size):
    at = 0
    for l in range(1, size):
        at = l if row[l] > row[at] else at
    return at


@helper(fastmath=FLAGS)
def best_of(row, w, wide):
    """max_d of the sums of two parts, from a pointer to those of width 0."""
    top = full_like(row, -math.inf)
    for d in range(w):
        top = maximum(load(row, d * wide) + load(row, (w - 1 - d) * wide + d + 1), top)
    return top


@helper()
def blank(labels, n):
    """No constituent among n words, padding beyond."""
    for i in range(len(labels)):
        for j in range(len(labels)):
            labels[i, j] = ABSENT if i < n and j < n else IGNORE


@helper(fastmath=FLAGS)
def walk(best, kinds, n, labels, stack):
    """Write the labels of a best tree."""
    stack[0, 0], stack[0, 1], height = 0, n - 1, 1
    while height > 0:
        height -= 1
        i, w = stack[height, 0], stack[height, 1]
        labels[i, i + w] = kinds[i, w]
        split, top = 0, -math.inf
        for d in range(w):
            value = best[d, i] + best[w - 1 - d, i + d + 1]
            if value > top:
                split, top = d, value
        if w > 0:
            stack[height, 0], stack[height, 1] = i + split + 1, w - 1 - split
            stack[height + 1, 0], stack[height + 1, 1] = i, split
            height += 2
