"""From one end of an edge to the other: the products of edge tables with what their ends send."""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.grid_belief.cpu.lanes import (
    FLAGS,
    add,
    add_exp,
    add_log,
    copy,
    fill,
    larger_sum,
    multiply_add,
)  # fmt: skip
from lnz.ops.grid_belief.forms import FULL, POTTS, TABLE, WEIGHTED
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.product import matmul


@njit(fastmath=FLAGS)
def scaled(domain, out, weight, score, low, high):
    """A score of the table at consecutive edges, shifted so that the largest of each edge's table is 0."""
    for k in range(out.size):
        w = weight[k]
        out[k] = w * score - (w * high if w > 0 else w * low)
    if len(domain) == 0:
        for k in range(out.size):
            out[k] = exp(out[k])


@njit(fastmath=FLAGS)
def pair(domain, edges, entry, row, column, i, j, out):
    """The table's entry (i, j) at consecutive edges."""
    kind, square, weight, full, extent, choice = edges
    if kind == TABLE and choice.size:
        for k in range(out.size):
            out[k] = square[choice[entry, row, column + k], 0, i, j]
    elif kind == TABLE:
        fill(out, square[entry, 0, i, j])
    elif kind == FULL:
        copy(out, full[entry, row, i, j, column : column + out.size])
    else:
        score = square[min(entry, square.shape[0] - 1), 0, i, j]
        scaled(domain, out, weight[entry, row, column : column + out.size], score, extent[0], extent[1])


@njit(fastmath=FLAGS)
def multiply_runs(square, chosen, ends, out, first, n):
    """Products with the tables ``square[chosen[k]]``, ``chosen [first:n]``: a product per run of edges with one table.

    From the left, as each spills over its end.
    """
    labels, start = square.shape[2], first
    for k in range(first + 1, n + 1):
        if k == n or chosen[k - first] != chosen[start - first]:
            table = square[chosen[start - first]]
            for end in range(2):
                matmul(table[end], ends[end, :, start:], out[end, :, start:], labels, labels, k - start)
            start = k


@njit(fastmath=FLAGS)
def potts(out, x, total, same, other):
    for k in range(out.size):
        out[k] = other[k] * total[k] + (same[k] - other[k]) * x[k]


@njit(fastmath=FLAGS)
def add_both(there, back, x, y, weight, score, shift):
    """One entry of a table at consecutive edges, for what its two ends, x and y, send to the other."""
    for k in range(weight.size):
        t = exp(weight[k] * score - shift[k])
        onward, backward = there[k] + t * x[k], back[k] + t * y[k]
        there[k] = onward
        back[k] = backward


@njit(fastmath=FLAGS)
def transfer(domain, edges, entry, row, column, ends, side, first, n, out, lanes):
    """What edges ``first … n − 1`` from (row, column) on make of their ends: ``out[0]`` onwards, ``out[1]`` back."""
    kind, square, weight, _, extent, choice = edges
    labels = square.shape[2]
    t = lanes[3, first:n]
    if len(domain) == 0 and kind == TABLE and choice.size:
        chosen = choice[entry, row, column + first : column + n]
        multiply_runs(square, chosen, ends[2 * side : 2 * side + 2], out, first, n)
        return
    if len(domain) == 0 and kind == TABLE:
        for end in range(2):
            matmul(square[entry, end], ends[2 * side + end], out[end], labels, labels, n)
        return
    if len(domain) == 0 and kind == POTTS:
        for j in range(2):
            pair(domain, edges, entry, row, column + first, 0, j, lanes[3 + j, first:n])
        for end in range(2):
            fill(lanes[0], 0)
            for l in range(labels):
                add(lanes[0, first:n], ends[2 * side + end, l, first:n])
            for l in range(labels):
                potts(out[end, l, first:n], ends[2 * side + end, l, first:n], lanes[0, first:n], t, lanes[4, first:n])
        return
    if len(domain) == 0 and kind == WEIGHTED:
        weights = weight[entry, row, column + first : column + n]
        for k in range(t.size):
            t[k] = weights[k] * (extent[1] if weights[k] > 0 else extent[0])
        for end in range(2):
            for l in range(labels):
                fill(out[end, l], 0)
        for i in range(labels):
            for j in range(labels):
                x, y = ends[2 * side, i, first:n], ends[2 * side + 1, j, first:n]
                score = square[min(entry, square.shape[0] - 1), 0, i, j]
                add_both(out[0, j, first:n], out[1, i, first:n], x, y, weights, score, t)
        return
    for pass_ in range(2 if len(domain) == 1 else 1):
        for end in range(2):
            for l in range(labels):
                fill(out[end + 2 * pass_, l], 0 if len(domain) == 0 or pass_ else -np.inf)
        for i in range(labels):
            for j in range(labels):
                pair(domain, edges, entry, row, column + first, i, j, t)
                for end in range(2):
                    source, target = (i, j) if end == 0 else (j, i)
                    x = ends[2 * side + end, source, first:n]
                    y = out[end, target, first:n]
                    if len(domain) == 0:
                        multiply_add(y, x, t)
                    elif pass_ == 0:
                        larger_sum(y, x, t)
                    else:
                        add_exp(out[end + 2, target, first:n], x, t, y)
    if len(domain) == 1:
        for end in range(2):
            for l in range(labels):
                add_log(out[end, l, first:n], out[end + 2, l, first:n])
