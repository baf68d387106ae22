"""Rows of one checkerboard colour of a binary grid redrawn: one weight per node, the odds of label 1."""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import load, store
from lnz.ops.jit.cpu.random import ready_words, sharing, uniform
from lnz.ops.jit.cpu.vectors import LANES, broadcast, select


@njit(inline="always")
def _times(odds, neighbour, gain):
    return select(neighbour == 1, odds * gain, odds)


@njit(fastmath={"contract"})
def rows_of_odds(states, free, odds, across, down, key, words, image, step, low, high):
    """Redraw one colour of rows.

    Args:
        states: as in :func:`lnz.ops.gibbs.cpu.grid.sweep`, whose arrays these are.
        free: see there.
        odds: ``[2, H, K / 16, 1, 16]`` or ``[1, 1, 1, 1, 16]``, of label 1 where all neighbours have label 0.
        across: what a horizontal neighbour of label 1 multiplies them by, ``[2, 2, H or 1, K or 16]``.
        down: likewise.
        key: of the random numbers.
        words: ``uint32 [4, 16]``, random.
        image: the number of the image.
        step: of the half-sweep.
        low: the first row.
        high: the row after the last.
    """
    blocks, colour = free.shape[2] // LANES, step & 1
    shared, across_all, down_all = odds.shape[1] == 1, across.shape[2] == 1, down.shape[2] == 1
    one, zero = broadcast(states.dtype.type(1)), broadcast(states.dtype.type(0))
    k0, k1, ready = key[0], key[1], -1
    for r in range(low, high):
        s = (r + colour) & 1
        n0, n1 = (0, 0) if shared else (colour, r)
        a0, d0 = 0 if across_all else r, 0 if down_all else r
        for block in range(blocks):
            number, at = r * blocks + block, LANES * block
            if number >> sharing(odds) != ready:
                ready = number >> sharing(odds)
                ready_words(words, ready, image, step, k0, k1)
            a1, d1, n2 = 0 if across_all else at, 0 if down_all else at, 0 if shared else block
            weight = load(odds, (n0, n1, n2, 0, 0))
            left = load(states, (image, 1 - colour, r + 1, at + s))
            right = load(states, (image, 1 - colour, r + 1, at + s + 1))
            above = load(states, (image, 1 - colour, r, at + 1))
            below = load(states, (image, 1 - colour, r + 2, at + 1))
            weight = _times(weight, left, load(across, (0, colour, a0, a1)))
            weight = _times(weight, right, load(across, (1, colour, a0, a1)))
            weight = _times(weight, above, load(down, (0, colour, d0, d1)))
            weight = _times(weight, below, load(down, (1, colour, d0, d1)))
            passed = (weight + 1) * uniform(words, number, odds) < 1
            before = load(states, (image, colour, r + 1, at + 1))
            drawn = select(load(free, (colour, r, at)) == 1, select(passed, zero, one), before)
            store(drawn, states, (image, colour, r + 1, at + 1))


@njit
def _add(line, edges):
    if edges.size == 1:
        for w in range(line.size):
            line[w] += edges[0]
    else:
        for w in range(line.size):
            line[w] += edges[w]


@kernel(fastmath={"contract"})
def odds_of(node, across, down, beta, limit, odds):
    """Fill in the odds of label 1 where all neighbours have label 0; whether all scores of nodes are finite.

    Args:
        node: ``[H, W, 2]``.
        across: what a neighbour of label 0 adds to the score of label 1 at the first ends of horizontal edges and at
            the second, ``[H, W − 1]`` each, or ``[1, 1]`` for all.
        down: likewise, of vertical edges, ``[H − 1, W]``.
        beta: one over the temperature.
        limit: of the logarithms of odds, either way.
        odds: ``[2, H, K / 16, 1, 16]``.
    """
    height, width = node.shape[0], node.shape[1]
    line = np.empty(width, odds.dtype)
    finite = 0
    for r in range(height):
        for w in range(width):
            line[w] = node[r, w, 1] - node[r, w, 0]
            finite += abs(line[w]) < np.inf
        for end in range(2):
            _add(line[end : width - 1 + end], across[end][r % len(across[end])])
            if 0 <= r - end < height - 1:
                _add(line, down[end][(r - end) % len(down[end])])
        for w in range(width):
            line[w] = exp(min(max(line[w] * beta, -limit), limit))
        for colour in range(2):
            s = (r + colour) & 1
            own = odds[colour, r].reshape(-1)
            n = (width + 1 - s) // 2
            for k in range(n):
                own[k] = line[2 * k + s]
            own[n:] = 0
    return finite == height * width
