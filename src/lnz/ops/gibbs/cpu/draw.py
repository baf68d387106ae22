"""Rows of one checkerboard colour redrawn, sixteen nodes at a time in registers.

The weights of all labels given the neighbours are summed label by label; how many of the sums a uniform number times
the last one passes is the label drawn. In the domain ``EXP`` scores come as their exponentials and are multiplied, in
``LOG`` they are added, and exponentials taken below the largest.

Functions that are inlined take no arrays, and arrays come alone, not in tuples: Numba would count references to them
block by block.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import gather, lane_numbers, load, store
from lnz.ops.jit.cpu.random import ready_words, sharing, uniform
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, select

FLAGS = {"contract"}
EXP: tuple[()] = ()  # a domain is the length of a tuple, which the compiler knows
LOG = (0,)
EQUAL: tuple[()] = ()  # and so is what edges say: whether labels are equal,
TABLE = (0,)  # or what a table has


@njit(inline="always")
def _same(domain, score, label, neighbour, gain):
    """Include what an edge gains where the neighbour has this label too."""
    return select(neighbour == label, score * gain if len(domain) == 0 else score + gain, score)


@njit(inline="always")
def _include(domain, score, weight, entry):
    """Include the entries of edges' tables, which weights scale in ``LOG``."""
    return score * entry if len(domain) == 0 else score + weight * entry


@njit(fastmath=FLAGS)
def rows_of_labels(
    domain, states, free, node, kind_across, across, across_table, kind_down, down, down_table, beta, key, words, sums,
    image, step, low, high,
):  # fmt: skip
    """Redraw one colour of rows.

    Args:
        domain: as in :func:`lnz.ops.gibbs.cpu.grid.sweep`, whose arrays these are.
        states: see there.
        free: see there.
        node: see there.
        kind_across: ``EQUAL`` or ``TABLE``, of the horizontal edges.
        across: what equal labels gain, or what scales the tables in ``LOG``, ``[2, 2, H or 1, K or 16]``.
        across_table: ``[L · L]`` for all edges, or ``[E · L · L]``; not read in ``EQUAL``.
        kind_down: of the vertical ones.
        down: likewise.
        down_table: likewise.
        beta: one over the temperature.
        key: of the random numbers, and W.
        words: ``uint32 [4, 16]``, random.
        sums: ``[L, 16]``, to work in.
        image: the number of the image.
        step: of the half-sweep.
        low: the first row.
        high: the row after the last.
    """
    labels, blocks, colour = node.shape[3], free.shape[2] // LANES, step & 1
    width, square = key[2], labels * labels
    shared = node.shape[1] == 1
    across_all, down_all = across.shape[2] == 1, down.shape[2] == 1
    neutral = 1 if len(domain) == 0 else 0
    k0, k1, ready = key[0], key[1], -1
    for r in range(low, high):
        s = (r + colour) & 1
        n0, n1 = (0, 0) if shared else (colour, r)
        a0, d0 = 0 if across_all else r, 0 if down_all else r
        for block in range(blocks):
            number, at = r * blocks + block, LANES * block
            if number >> sharing(node) != ready:
                ready = number >> sharing(node)
                ready_words(words, ready, image, step, k0, k1)
            a1, d1, n2 = 0 if across_all else at, 0 if down_all else at, 0 if shared else block
            left = load(states, (image, 1 - colour, r + 1, at + s))
            right = load(states, (image, 1 - colour, r + 1, at + s + 1))
            above = load(states, (image, 1 - colour, r, at + 1))
            below = load(states, (image, 1 - colour, r + 2, at + 1))
            gain_left, gain_right = load(across, (0, colour, a0, a1)), load(across, (1, colour, a0, a1))
            gain_above, gain_below = load(down, (0, colour, d0, d1)), load(down, (1, colour, d0, d1))
            column = (lane_numbers() + at) * 2 + s  # of the grid
            place_left = astype(left, np.int64) * labels  # the neighbour comes first in the table
            place_right = astype(right, np.int64)
            place_above = astype(above, np.int64) * labels
            place_below = astype(below, np.int64)
            if across_table.size > square:
                place_left += (column + (r * (width - 1) - 1)) * square
                place_right += (column + r * (width - 1)) * square
            if down_table.size > square:
                place_above += (column + (r - 1) * width) * square
                place_below += (column + r * width) * square
            total = top = broadcast(node.dtype.type(0))
            for l in range(labels):
                score = load(node, (n0, n1, n2, l, 0))
                if len(kind_across) == 0:
                    score = _same(domain, score, l, left, gain_left)
                    score = _same(domain, score, l, right, gain_right)
                else:
                    entry = gather(across_table, place_left + l, left > -1, neutral)
                    score = _include(domain, score, gain_left, entry)
                    entry = gather(across_table, place_right + l * labels, right > -1, neutral)
                    score = _include(domain, score, gain_right, entry)
                if len(kind_down) == 0:
                    score = _same(domain, score, l, above, gain_above)
                    score = _same(domain, score, l, below, gain_below)
                else:
                    entry = gather(down_table, place_above + l, above > -1, neutral)
                    score = _include(domain, score, gain_above, entry)
                    entry = gather(down_table, place_below + l * labels, below > -1, neutral)
                    score = _include(domain, score, gain_below, entry)
                if len(domain) == 0:
                    total += score
                    store(total, sums, (l, 0))
                else:
                    top = select(score > top, score, top) if l > 0 else score
                    store(score, sums, (l, 0))
            if len(domain) > 0:
                for l in range(labels):
                    total += exp((load(sums, (l, 0)) - top) * beta)
                    store(total, sums, (l, 0))
            mark, drawn = total * uniform(words, number, node), broadcast(np.int32(0))
            for l in range(labels - 1):
                drawn = select(load(sums, (l, 0)) <= mark, drawn + 1, drawn)
            before = load(states, (image, colour, r + 1, at + 1))
            may = (load(free, (colour, r, at)) == 1) & (total > 0)
            store(select(may, astype(drawn, states.dtype), before), states, (image, colour, r + 1, at + 1))
