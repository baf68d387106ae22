"""Rows of one checkerboard colour redrawn, sixteen nodes at a time in registers.

The weights of all labels given the neighbours are summed label by label; how many of the sums a uniform number times
the last one passes is the label drawn. In the domain ``EXP`` scores come as their exponentials and are multiplied, in
``LOG`` they are added, and exponentials taken below the largest.
"""

from __future__ import annotations

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, full_like, gather, lane_numbers, load, store
from lnz.ops.jit.cpu.random import ready_words, sharing, uniform
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, select

FLAGS = {"contract"}


@helper(inline="always")
def _same(domain, score, label, neighbour, gain):
    """Include what an edge gains where the neighbour has this label too."""
    return select(neighbour == label, score * gain if len(domain) == 0 else score + gain, score)


@helper(inline="always")
def _include(domain, score, weight, entry):
    """Include the entries of edges' tables, which weights scale in ``LOG``."""
    return score * entry if len(domain) == 0 else score + weight * entry


@helper(fastmath=FLAGS)
def rows_of_labels(grid, states, key, rows, work):
    """Redraw one colour of rows; arguments as in :func:`lnz.ops.gibbs.cpu.grid.sweep`."""
    domain, free, node, beta, width = grid.domain, grid.free, grid.node, grid.beta[0], grid.width
    (kind_across, across, across_table), (kind_down, down, down_table) = grid.across, grid.down
    labels, blocks, colour, image = node.shape[3], free.shape[2] // LANES, rows.step & 1, rows.image
    square = labels * labels
    own_across, own_down = across_table.size > square, down_table.size > square  # tables
    shared, across_all, down_all = node.shape[1] == 1, across.shape[2] == 1, down.shape[2] == 1
    tables_across, tables_down = address(across_table, 0), address(down_table, 0)
    words, sums = address(work.words, 0), address(work.sums, 0)
    neutral = 1 if len(domain) == 0 else 0
    k0, k1, ready = key[0], key[1], -1
    for r in range(rows.low, rows.high):
        s, a0, d0 = (r + colour) & 1, 0 if across_all else r, 0 if down_all else r
        beside = address(states, (image, 1 - colour, r + 1, s))
        above, below = address(states, (image, 1 - colour, r, 1)), address(states, (image, 1 - colour, r + 2, 1))
        own, may = address(states, (image, colour, r + 1, 1)), address(free, (colour, r))
        scores = address(node, (0, 0) if shared else (colour, r))
        before, after = address(across, (0, colour, a0)), address(across, (1, colour, a0))
        upper, lower = address(down, (0, colour, d0)), address(down, (1, colour, d0))
        for block in range(blocks):
            number, at = r * blocks + block, LANES * block
            if number >> sharing(node) != ready:
                ready = number >> sharing(node)
                ready_words(words, ready, image, rows.step, k0, k1)
            a1, d1, mine = 0 if across_all else at, 0 if down_all else at, 0 if shared else at * labels
            left, right, over, under = load(beside, at), load(beside, at + 1), load(above, at), load(below, at)
            gain_left, gain_right = load(before, a1), load(after, a1)
            gain_over, gain_under = load(upper, d1), load(lower, d1)
            column = (lane_numbers() + at) * 2 + s  # of the grid
            place_left = astype(left, np.int64) * labels  # the neighbour comes first in the table
            place_right = astype(right, np.int64)
            place_over = astype(over, np.int64) * labels
            place_under = astype(under, np.int64)
            if own_across:
                place_left += (column + (r * (width - 1) - 1)) * square
                place_right += (column + r * (width - 1)) * square
            if own_down:
                place_over += (column + (r - 1) * width) * square
                place_under += (column + r * width) * square
            total = top = full_like(scores, 0)
            for l in range(labels):
                score = load(scores, mine + l * LANES)
                if len(kind_across) == 0:
                    score = _same(domain, score, l, left, gain_left)
                    score = _same(domain, score, l, right, gain_right)
                else:
                    entry = gather(tables_across, place_left + l, left > -1, neutral)
                    score = _include(domain, score, gain_left, entry)
                    entry = gather(tables_across, place_right + l * labels, right > -1, neutral)
                    score = _include(domain, score, gain_right, entry)
                if len(kind_down) == 0:
                    score = _same(domain, score, l, over, gain_over)
                    score = _same(domain, score, l, under, gain_under)
                else:
                    entry = gather(tables_down, place_over + l, over > -1, neutral)
                    score = _include(domain, score, gain_over, entry)
                    entry = gather(tables_down, place_under + l * labels, under > -1, neutral)
                    score = _include(domain, score, gain_under, entry)
                if len(domain) == 0:
                    total += score
                    store(total, sums, l * LANES)
                else:
                    top = select(score > top, score, top) if l > 0 else score
                    store(score, sums, l * LANES)
            if len(domain) > 0:
                for l in range(labels):
                    total += exp((load(sums, l * LANES) - top) * beta)
                    store(total, sums, l * LANES)
            mark, drawn = total * uniform(words, number, node), broadcast(np.int32(0))
            for l in range(labels - 1):
                drawn = select(load(sums, l * LANES) <= mark, drawn + 1, drawn)
            changes = (load(may, at) == 1) & (total > 0)
            store(select(changes, astype(drawn, own), load(own, at)), own, at)
