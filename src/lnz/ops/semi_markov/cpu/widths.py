"""What a step does over the widths of its segments, sixteen scores at a time.

Scores ``[B, T, W, L]`` and everything that meets them lie flat, steps of L numbers behind one another: what lies ahead
of the segments that start at t is then the stretch from t + 1 on, in the order of their scores. Where L is at most 8, a
register takes as many widths as fit, and what belongs to one label is folded together; ``folds [3, 32]`` is for that,
−∞ in the upper half of its first row and 0 in that of the second.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import load, store
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, astype, broadcast, select

FLAGS = {"contract"}
TOP, SUM, REPEAT = range(3)  # the rows of ``folds``


@njit
def room_to_fold():
    folds = np.zeros((3, 2 * LANES))
    folds[TOP] = -math.inf
    return folds


@njit(inline="always")
def packing(size):
    """How many widths a register takes."""
    return LANES // size if size <= LANES // 2 else 1


@njit(inline="always")
def stretch(widths, size, column):
    """The scores of so many widths, from a column of labels on: how many registers, lanes of each, and of the last."""
    packed = packing(size)
    blocks, lanes = (widths + packed - 1) // packed, min(LANES, packed * size - column)
    return blocks, lanes, lanes if packed == 1 else (widths - (blocks - 1) * packed) * size


@njit(fastmath=FLAGS)
def top_of_widths(segment, at, after, r, ahead, blocks, size, lanes, last, folds):
    """max_w s_t(w, l) + after_{t+w+1}(l) of a register of labels, again for every width that the register takes.

    Args:
        segment: s, flat.
        at: where the scores start.
        after: float64 ``[count, ≥ (T + 1) L + 16]``.
        r: the row of ``after``.
        ahead: where in it.
        blocks: the number of registers.
        size: L.
        lanes: how much of a register is taken.
        last: of the last one.
        folds: see above.
    """
    packed, top = packing(size), broadcast(-math.inf)
    stride = packed * size
    for i in range(blocks):
        n = lanes if i < blocks - 1 else last
        score = astype(load(segment, (at + i * stride,), n, -math.inf), np.float64)
        score += load(after, (r, ahead + i * stride))
        top = select(score > top, score, top)
    if packed > 1:
        store(top, folds, (TOP, 0))
        for k in range(1, packed):
            other = load(folds, (TOP, k * size))
            top = select(other > top, other, top)
        for k in range(packed):
            store(top, folds, (REPEAT, k * size))
        top = load(folds, (REPEAT, 0))
    return top


@njit(fastmath=FLAGS)
def sum_widths(segment, lengths, first, count, steps, W, size, t, after, weights, shifts, sums, folds, exact):
    """Σ_w exp(s_t(w, l) + after_{t+w+1}(l)) as ``sums`` · exp(``shifts``), the summands · exp(−shift) into ``weights``.

    Args:
        segment: s, flat.
        lengths: ``int64 [B]``.
        first: of the sequences side by side.
        count: of them.
        steps: T.
        W: the largest width.
        size: L.
        t: the step.
        after: float64 ``[count, ≥ (T + 1) L + 16]``.
        weights: flat, written; 0 for segments that reach beyond the end.
        shifts: float64 ``[count, L rounded up to 16]``, written.
        sums: likewise, in the dtype of the scores.
        folds: see above.
        exact: bool ``[B]``, set to False where a score is NaN or ∞.
    """
    packed = packing(size)
    stride = packed * size
    for r in range(count):
        left = lengths[first + r] - t
        if left <= 0:
            continue
        widths = min(W, left)
        row = ((first + r) * steps + t) * W * size
        for column in range(0, size, LANES):
            blocks, lanes, last = stretch(widths, size, column)
            at, ahead = row + column, (t + 1) * size + column
            top = top_of_widths(segment, at, after, r, ahead, blocks, size, lanes, last, folds)
            top = select(top > -math.inf, top, 0.0)
            total, proper = broadcast(0.0), top < math.inf  # in float32, small weights would vanish one by one
            for i in range(blocks):
                n = lanes if i < blocks - 1 else last
                score = astype(load(segment, (at + i * stride,), n, -math.inf), np.float64)
                score += load(after, (r, ahead + i * stride))
                below = astype(score - top, segment.dtype)
                proper = proper & (below <= 0)
                weight = exp(below)
                store(weight, weights, (at + i * stride,), n)
                total += astype(weight, np.float64)
            if packed > 1:
                store(total, folds, (SUM, 0))
                for k in range(1, packed):
                    total += load(folds, (SUM, k * size))
            store(top, shifts, (r, column))
            store(astype(total, segment.dtype), sums, (r, column))
            if not all_lanes(proper):
                exact[first + r] = False
        for i in range(row + widths * size, row + W * size):
            weights[i] = 0
