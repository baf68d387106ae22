"""Samples of labellings: forward filtering, backward sampling."""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.chain.cpu.rows import FLAGS
from lnz.ops.chain.cpu.sweep import lift_table
from lnz.ops.jit.cpu import kernel

IGNORE = -100


@njit(fastmath=FLAGS)
def weigh(out, message, local, column):
    for l in range(out.size):
        out[l] = message[l] * local[l] * column[l]


@njit(fastmath=FLAGS)
def pick(weights, uniform):
    """The first label at which the cumulative sum passes ``uniform`` times the whole; never one of weight 0."""
    total = 0.0
    for l in range(weights.size):
        total += weights[l]
    left, chosen = uniform * total, 0
    for l in range(weights.size):
        if weights[l] > 0:
            chosen = l
            left -= weights[l]
            if left < 0:
                break
    return chosen


@kernel(fastmath=FLAGS)
def draw(nodes, before, edge, lengths, first, last, uniform, labels):
    """Of sequences first … last − 1: ``labels int64 [n, B, T]``, −100 beyond, by ``uniform [n, B, T]`` numbers.

    ``nodes`` and ``before`` as the stages ``LIFT`` and ``FORWARD`` leave them; ``edge [B or 1, T − 1 or 1, L, L]``.
    """
    size = nodes.shape[2]
    several = edge.shape[1] > 1
    columns, weights, ones = (
        np.empty((size, size), nodes.dtype),
        np.empty(size, nodes.dtype),
        np.ones(size, nodes.dtype),
    )
    for b in range(first, last):
        own = b if len(edge) > 1 else 0
        n = lengths[b]
        labels[:, b, n:] = IGNORE
        for t in range(n - 1, -1, -1):
            if t < n - 1 and (several or t == n - 2):
                lift_table(edge[own, t if several else 0], columns, True)
            for m in range(len(labels)):
                column = columns[labels[m, b, t + 1]] if t < n - 1 else ones
                weigh(weights, before[b, t], nodes[b, t], column)
                labels[m, b, t] = pick(weights, uniform[m, b, t])
