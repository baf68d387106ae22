"""Best labellings: the (max, +) recursion of a few sequences side by side, and the walk back (Viterbi 1967).

The step forward keeps the values only, so that it is one addition and one maximum per pair of labels, in registers; the
walk back looks for the maximising label again, of one column per step. Values are taken relative to the best one of
their step, so that they keep their accuracy in long chains.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sweep import TILE
from lnz.ops.jit.cpu import kernel
from lnz.ops.registers.cpu.product import best

IGNORE = -100


@njit(fastmath=FLAGS)
def relative(out, message, x, top):
    for l in range(out.size):
        out[l] = message[l] + (x[l] - top)


@njit(fastmath=FLAGS)
def copy(out, x):
    for l in range(out.size):
        out[l] = x[l]


@njit(fastmath=FLAGS)
def highest(x):
    top = x[0]
    for l in range(x.size):
        top = x[l] if x[l] > top else top
    return top


@njit(fastmath=FLAGS)
def maximiser(values, column):
    """The first l of the largest ``values[l] + column[l]``."""
    top, place = values[0] + column[0], 0
    for l in range(values.size):
        total = values[l] + column[l]
        if total > top:
            top, place = total, l
    return place


@kernel(fastmath=FLAGS)
def viterbi(node, edge, lengths, first, last, labels, scores):
    """Of sequences first … last − 1: ``labels int64 [B, T]``, −100 beyond, and float64 ``scores [B]``, both written.

    ``node [B, T, L]``, ``edge [B or 1, T − 1 or 1, L, L]``. An impossible chain gets −100 and −inf.
    """
    T, size = node.shape[1:]
    padded = (size + 15) // 16 * 16
    several, rows = edge.shape[1] > 1, TILE if len(edge) == 1 else 1
    table, columns = np.zeros((size, padded + 16), node.dtype), np.zeros((size, size), node.dtype)
    state, message = np.zeros((TILE, padded), node.dtype), np.zeros((TILE, padded), node.dtype)
    values = np.empty((rows, T, size), node.dtype)
    for at in range(first, last, rows):
        count, own, longest = min(rows, last - at), at if len(edge) > 1 else 0, 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
        for t in range(longest):
            if t == 0:
                message[:] = 0
            else:
                if several or (t == 1 and (at == first or len(edge) > 1)):
                    scores_here = edge[own, t - 1 if several else 0]
                    for i in range(size):
                        copy(table[i, :size], scores_here[i])
                        if not several:
                            copy(columns[:, i], scores_here[i])
                best(state.T, table, message, count, size, size)
            for r in range(count):
                if t < lengths[at + r]:
                    top = highest(message[r, :size])
                    if top == -math.inf:
                        top = node.dtype.type(0)
                    relative(values[r, t], message[r, :size], node[at + r, t], top)
                    copy(state[r, :size], values[r, t])
        for r in range(count):
            b, n = at + r, lengths[at + r]
            labels[b, :] = IGNORE
            scores[b] = 0.0
            if n == 0:
                continue
            label, total = 0, 0.0
            for l in range(size):
                if values[r, n - 1, l] > values[r, n - 1, label]:
                    label = l
            for t in range(n - 1, -1, -1):
                labels[b, t] = label
                total += node[b, t, label]
                if t:
                    if several:
                        previous = maximiser(values[r, t - 1], edge[own, t - 1, :, label])
                        total += edge[own, t - 1, previous, label]
                    else:
                        previous = maximiser(values[r, t - 1], columns[label])
                        total += columns[label, previous]
                    label = previous
            scores[b] = total
            if total == -math.inf:
                labels[b, :] = IGNORE
