"""Best segmentations: the (max, +) recursion back over the steps, and a walk forward along it (Viterbi 1967).

begin_t(l) = max_w s_t(w, l) + after_{t+w+1}(l) and after_t(k) = max_l A(k, l) + begin_t(l), float64, are all that is
kept; the walk looks for the maximising width and label again, once per segment. Shapes as in
:mod:`lnz.ops.semi_markov.reference`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.memory import lane_numbers, store
from lnz.ops.jit.cpu.product import maximise, workspace
from lnz.ops.jit.cpu.vectors import LANES, select
from lnz.ops.semi_markov.cpu.back import TILE, rows_of_labels
from lnz.ops.semi_markov.cpu.widths import FLAGS, room_to_fold, stretch, top_of_widths

CONTINUED, IGNORE = -1, -100


@kernel(fastmath=FLAGS)
def viterbi(kind, segment, edge, lengths, steps, W, first, last, labels, scores):
    """Of sequences first … last − 1: ``labels int64 [B, T]``, −100 beyond, and float64 ``scores [B]``, both written.

    Arguments as in :func:`lnz.ops.semi_markov.cpu.likelihood.run`. An impossible sequence gets −100 and −inf.
    """
    size = edge.shape[3]
    rows = min(TILE, last - first) if len(edge) == 1 else 1
    begins, afters = rows_of_labels(rows, steps, size, np.float64), np.zeros((rows, (steps + 2) * size + 32))
    padded, folds = begins.shape[2], room_to_fold()
    transposed = workspace(padded, padded + 16, np.float64)
    state, message = workspace(TILE, padded, np.float64), workspace(TILE, padded, np.float64)
    transposed[:] = -math.inf
    for at in range(first, last, rows):
        count, longest = min(rows, last - at), 0
        own = at if len(edge) > 1 else 0
        if len(kind) > 0 and (at == first or len(edge) > 1):
            transpose(edge[own, 0], transposed)
        for r in range(count):
            n = lengths[at + r]
            longest = max(longest, n)
            afters[r, n * size : (n + 1) * size] = 0
        state[:] = -math.inf
        for t in range(longest - 1, -1, -1):
            best_widths(segment, lengths, at, count, steps, W, size, t, afters, begins, state, folds)
            if t > 0:
                if len(kind) == 0:
                    transpose(edge[own, t - 1], transposed)
                best_labels(lengths, at, count, size, t, transposed, state, message, afters)
        for r in range(count):
            n = lengths[at + r]
            place, score = walk(kind, segment, edge, at + r, own, n, steps, W, begins[r], afters[r], labels[at + r])
            scores[at + r] = score
            labels[at + r, place:] = IGNORE


@njit
def transpose(scores, out):
    for k in range(len(scores)):
        for l in range(len(scores)):
            out[l, k] = scores[k, l]


@njit(fastmath=FLAGS)
def best_widths(segment, lengths, first, count, steps, W, size, t, after, begins, state, folds):
    """begin_t of ``count`` sequences, into ``begins`` and ``state``."""
    for r in range(count):
        left = lengths[first + r] - t
        if left <= 0:
            continue
        widths = min(W, left)
        row = ((first + r) * steps + t) * W * size
        for column in range(0, size, LANES):
            blocks, lanes, last = stretch(widths, size, column)
            ahead = (t + 1) * size + column
            top = top_of_widths(segment, row + column, after, r, ahead, blocks, size, lanes, last, folds)
            top = select(lane_numbers() < size - column, top, -math.inf)
            store(top, begins, (r, t, column))
            store(top, state, (r, column))


@njit(fastmath=FLAGS)
def best_labels(lengths, first, count, size, t, transposed, state, message, after):
    """after_t of ``count`` sequences."""
    maximise(state.T, transposed, message, count, size)
    for r in range(count):
        if t < lengths[first + r]:
            for k in range(size):
                after[r, t * size + k] = message[r, k]


@njit(fastmath=FLAGS)
def walk(kind, segment, edge, b, own, n, steps, W, begins, after, labels):
    """Write a best segmentation; how many steps of it there are (0 where none is possible), and its score."""
    size, label, t = edge.shape[3], 0, 0
    if n == 0:
        return 0, 0.0
    for l in range(size):
        label = l if begins[0, l] > begins[0, label] else label
    score = begins[0, label]
    if score == -math.inf:
        return 0, score
    while t < n:
        row, width, top = ((b * steps + t) * W) * size + label, 0, -math.inf
        for w in range(min(W, n - t)):
            value = segment[row + w * size] + after[(t + w + 1) * size + label]
            if value > top:
                width, top = w, value
        labels[t] = label
        labels[t + 1 : t + width + 1] = CONTINUED
        t += width + 1
        if t < n:
            place, top, previous = t - 1 if len(kind) == 0 else 0, -math.inf, label
            for l in range(size):
                value = edge[own, place, previous, l] + begins[t, l]
                if value > top:
                    label, top = l, value
    return n, score
