"""Best segmentations: the (max, +) recursion back over the steps, and a walk forward along it (Viterbi 1967).

begin_t(l) = max_w s_t(w, l) + after_{t+w+1}(l) and after_t(k) = max_l A(k, l) + begin_t(l), float64, are all that is
kept; the walk looks for the maximising width and label again, once per segment. Shapes as in
:mod:`lnz.ops.semi_markov.reference`.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, lane_numbers, store
from lnz.ops.jit.cpu.product import maximise, workspace
from lnz.ops.jit.cpu.rows import clear
from lnz.ops.jit.cpu.vectors import LANES, select
from lnz.ops.semi_markov.cpu.tiles import TILE, padded, rows_of_labels, square, tile_of
from lnz.ops.semi_markov.cpu.widths import FLAGS, room_to_fold, stretch, top_of_widths
from lnz.ops.semi_markov.records import CONTINUED
from lnz.typing import IGNORE


@kernel(fastmath=FLAGS)
def viterbi(first, last, given, labels, scores):
    """Of sequences first … last − 1: ``labels int64 [B, T]``, −100 beyond, and float64 ``scores [B]``, both written.

    An impossible sequence gets −100 and −inf.
    """
    segment, edge, lengths, kind = given.segment, given.edge, given.lengths, given.kind
    _, steps, W, size = segment.shape
    rows = min(TILE, last - first) if len(edge) == 1 else 1
    begins, afters = rows_of_labels(rows, steps, size, np.float64), np.zeros((rows, (steps + 2) * size + 32))
    transposed = square(size, np.float64)
    state, message = workspace(TILE, padded(size), np.float64), workspace(TILE, padded(size), np.float64)
    folds, columns = room_to_fold(), state.T
    transposed[:] = -math.inf
    for at in range(first, last, rows):
        _, count, longest = tile_of(lengths, at, min(rows, last - at))
        own = at if len(edge) > 1 else 0
        if len(kind) > 0 and (at == first or len(edge) > 1):
            transpose(address(edge, own), transposed, size)
        for r in range(count):
            clear(address(afters, (r, lengths[at + r] * size)), size)
        state[:] = -math.inf
        for t in range(longest - 1, -1, -1):
            for r in range(count):
                widths = min(W, lengths[at + r] - t)
                if widths > 0:
                    ahead, best = address(afters, (r, (t + 1) * size)), address(begins, (r, t))
                    scores_of = address(segment, (at + r, t))
                    best_widths(scores_of, ahead, widths, size, best, address(state, r), address(folds, 0))
            if t == 0:
                break
            if len(kind) == 0:
                transpose(address(edge, (own, t - 1)), transposed, size)
            maximise(columns, transposed, message, count, size)
            for r in range(count):
                for k in range(size if t < lengths[at + r] else 0):
                    afters[r, t * size + k] = message[r, k]
        for r in range(count):
            place, scores[at + r] = walk(given, at + r, begins[r], afters[r], labels[at + r])
            for t in range(place, steps):
                labels[at + r, t] = IGNORE


@helper()
def transpose(scores, out, size):
    """``out[l, k] = scores[k, l]``, of which there is a pointer."""
    for k in range(size):
        for l in range(size):
            out[l, k] = scores[k * size + l]


@helper(fastmath=FLAGS)
def best_widths(scores, following, widths, size, begins, state, folds):
    """begin_t of a sequence, into ``begins`` and ``state``; pointers to rows."""
    for column in range(0, size, LANES):
        run = stretch(widths, size, column)
        top = top_of_widths(address(scores, column), address(following, column), run, size, folds)
        top = select(lane_numbers() < size - column, top, -math.inf)
        store(top, begins, column)
        store(top, state, column)


@helper(fastmath=FLAGS)
def walk(given, b, begins, after, labels):
    """Write a best segmentation; how many steps of it there are (0 where none is possible), and its score."""
    segment, edge, n = given.segment, given.edge, given.lengths[b]
    W, size, own, label, t = segment.shape[2], edge.shape[3], b if len(edge) > 1 else 0, 0, 0
    if n == 0:
        return 0, 0.0
    for l in range(size):
        label = l if begins[0, l] > begins[0, label] else label
    score = begins[0, label]
    if score == -math.inf:
        return 0, score
    while t < n:
        width, top = 0, -math.inf
        for w in range(min(W, n - t)):
            value = segment[b, t, w, label] + after[(t + w + 1) * size + label]
            if value > top:
                width, top = w, value
        labels[t] = label
        for at in range(t + 1, t + width + 1):
            labels[at] = CONTINUED
        t += width + 1
        if t < n:
            place, top, previous = t - 1 if len(given.kind) == 0 else 0, -math.inf, label
            for l in range(size):
                value = edge[own, place, previous, l] + begins[t, l]
                if value > top:
                    label, top = l, value
    return n, score
