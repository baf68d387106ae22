"""Samples of segmentations: the pass back over the steps, and walks forward that choose by its summands."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.semi_markov.cpu.back import TILE, back, room_for_tables, rows_of_labels
from lnz.ops.semi_markov.cpu.labels import lift_table
from lnz.ops.semi_markov.cpu.viterbi import CONTINUED, IGNORE
from lnz.ops.semi_markov.cpu.widths import FLAGS


@kernel(fastmath=FLAGS)
def draw(kind, segment, edge, lengths, steps, W, first, last, limit, weights, uniform, labels, exact):
    """Of sequences first … last − 1: ``labels int64 [n, B, T]``, −100 beyond, by ``uniform [n, B, T, 2]`` numbers.

    Other arguments as in :func:`lnz.ops.semi_markov.cpu.likelihood.run`; ``weights`` to work in.
    """
    size, dtype = edge.shape[3], segment.dtype
    rows = min(TILE, last - first) if len(edge) == 1 or len(kind) == 0 else 1
    begins, ahead = rows_of_labels(rows, steps, size, np.float64), rows_of_labels(rows, steps, size, dtype)
    inverses, leaves = rows_of_labels(rows, steps, size, dtype), rows_of_labels(rows, steps, size, dtype)
    afters, choices = workspace(rows, (steps + 2) * size + 32, np.float64), np.zeros(max(W, size))
    table, transposed = room_for_tables(size, dtype)
    padded = begins.shape[2]
    state, message = workspace(TILE, padded, dtype), workspace(TILE, padded, dtype)
    tops, rare, peaks = workspace(TILE, padded, np.float64), np.zeros((rows, steps), np.bool_), np.zeros(rows)
    proper = True
    for at in range(first, last, rows):
        count = min(rows, last - at)
        if len(kind) > 0 and (at == first or len(edge) > 1):
            proper = lift_table(edge, at if len(edge) > 1 else 0, table, transposed, tops, ahead)
        for r in range(count):
            exact[at + r] = proper or lengths[at + r] < 2
        back(
            kind, segment, edge, lengths, W, at, count, limit, tops, transposed, state, message, begins, ahead,
            inverses, leaves, afters, rare, peaks, weights, table, exact,
        )  # fmt: skip
        for r in range(count):
            b = at + r
            for m in range(len(labels)):
                walk(
                    kind, edge, b, lengths[b], steps, W, weights, begins[r], ahead[r], afters[r], uniform[m, b],
                    labels[m, b], choices,
                )  # fmt: skip


@njit(fastmath=FLAGS)
def walk(kind, edge, b, n, steps, W, weights, begins, ahead, after, uniform, labels, choices):
    """Draw one segmentation of sequence b: a label, and a width, in turn."""
    size, own, t, label = edge.shape[3], b if len(edge) > 1 else 0, 0, 0
    labels[n:] = IGNORE
    while t < n:
        if t == 0:
            for l in range(size):
                choices[l] = ahead[0, l]
        else:
            place, far = t - 1 if len(kind) == 0 else 0, after[t * size + label]
            far = far if far > -math.inf else 0.0
            for l in range(size):
                choices[l] = exp(edge[own, place, label, l] + begins[t, l] - far)
        label = pick(choices, size, uniform[t, 0])
        row, widths = (b * steps + t) * W * size + label, min(W, n - t)
        for w in range(widths):
            choices[w] = weights[row + w * size]
        width = pick(choices, widths, uniform[t, 1])
        labels[t] = label
        labels[t + 1 : t + width + 1] = CONTINUED
        t += width + 1


@njit(fastmath=FLAGS)
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
