"""What a step does over the widths of its segments, sixteen scores at a time.

Scores ``[B, T, W, L]`` and everything that meets them lie in steps of L numbers behind one another: what lies ahead of
the segments that start at t is then the stretch from t + 1 on, in the order of their scores. Where L is at most 8, a
register takes as many widths as fit, and what belongs to one label is folded together; ``folds``, three rows of 32
numbers, is for that, −∞ in the upper half of its first row and 0 in that of the second.

Arguments that are rows are pointers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, load, store
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, astype, broadcast, select

FLAGS = {"contract"}
TOP, SUM, REPEAT = 0, 2 * LANES, 4 * LANES  # where the rows of ``folds`` start


class Stretch(NamedTuple):
    """The scores of some widths from a column of labels on, in registers.

    Attributes:
        packed: widths per register.
        blocks: how many registers.
        step: numbers from one register to the next.
        lanes: how much is taken of a register.
        last: how much of the last one.
    """

    packed: int
    blocks: int
    step: int
    lanes: int
    last: int


@helper()
def room_to_fold():
    folds = np.zeros(3 * 2 * LANES)
    for place in range(TOP, SUM):
        folds[place] = -math.inf
    return folds


@helper()
def stretch(widths, size, column):
    """How ``widths`` times ``size`` labels lie in registers."""
    packed = LANES // size if size <= LANES // 2 else 1
    blocks, lanes = (widths + packed - 1) // packed, min(LANES, packed * size - column)
    return Stretch(
        packed, blocks, packed * size, lanes, lanes if packed == 1 else (widths - (blocks - 1) * packed) * size
    )


@helper(fastmath=FLAGS)
def top_of_widths(scores, following, run, size, folds):
    """max_w s(w, l) + after(w, l) of a register of labels, again for every width that the register takes."""
    top = broadcast(-math.inf)
    for i in range(run.blocks):
        n = run.lanes if i < run.blocks - 1 else run.last
        score = astype(load(scores, i * run.step, n, -math.inf), np.float64) + load(following, i * run.step)
        top = select(score > top, score, top)
    if run.packed > 1:
        store(top, folds, TOP)
        for k in range(1, run.packed):
            other = load(folds, TOP + k * size)
            top = select(other > top, other, top)
        top = repeat(top, run, size, folds)
    return top


@helper(fastmath=FLAGS)
def repeat(values, run, size, folds):
    """The first ``size`` numbers again for every width that a register takes."""
    for k in range(run.packed):
        store(values, folds, REPEAT + k * size)
    return load(folds, REPEAT)


@helper(fastmath=FLAGS)
def sum_widths(scores, following, weights, widths, size, shifts, sums, folds):
    """Σ_w exp(s(w, l) + after(w, l)) as ``sums`` · exp(``shifts``), the summands · exp(−shift) into ``weights``.

    Args:
        scores: s_t ``[W, L]``.
        following: after_{t+1} and on, float64.
        weights: as ``scores``, written.
        widths: of the segments that do not reach beyond the end.
        size: L.
        shifts: float64 ``[L']``, written.
        sums: ``[L']`` in the dtype of the scores, written.
        folds: see above.

    Returns whether all scores are numbers.
    """
    numbers = True
    for column in range(0, size, LANES):
        run = stretch(widths, size, column)
        mine, ahead, out = address(scores, column), address(following, column), address(weights, column)
        top = top_of_widths(mine, ahead, run, size, folds)
        top = select(top > -math.inf, top, 0.0)
        total, proper = broadcast(0.0), top < math.inf  # in float32, small weights would vanish one by one
        for i in range(run.blocks):
            n = run.lanes if i < run.blocks - 1 else run.last
            score = astype(load(mine, i * run.step, n, -math.inf), np.float64) + load(ahead, i * run.step)
            below = astype(score - top, weights)
            proper = proper & (below <= 0)
            weight = exp(below)
            store(weight, out, i * run.step, n)
            total += astype(weight, np.float64)
        if run.packed > 1:
            store(total, folds, SUM)
            for k in range(1, run.packed):
                total += load(folds, SUM + k * size)
        store(top, shifts, column)
        store(astype(total, sums), sums, column)
        numbers = numbers and all_lanes(proper)
    return numbers
