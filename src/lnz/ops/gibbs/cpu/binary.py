"""Rows of one checkerboard colour of a binary grid redrawn: one weight per node, the odds of label 1."""

from __future__ import annotations

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, load, store
from lnz.ops.jit.cpu.random import ready_words, sharing, uniform
from lnz.ops.jit.cpu.vectors import LANES, broadcast, select


@helper(inline="always")
def _times(odds, neighbour, gain):
    return select(neighbour == 1, odds * gain, odds)


@helper(fastmath={"contract"})
def rows_of_odds(grid, states, key, rows, work):
    """Redraw one colour of rows.

    ``grid.node`` are the odds of label 1 where all neighbours have label 0, and the weights of edges what a neighbour
    of label 1 multiplies them by.
    """
    free, odds, across, down = grid.free, grid.node, grid.across.weight, grid.down.weight
    blocks, colour, image, words = free.shape[2] // LANES, rows.step & 1, rows.image, address(work.words, 0)
    shared, across_all, down_all = odds.shape[1] == 1, across.shape[2] == 1, down.shape[2] == 1
    one, zero = broadcast(states.dtype.type(1)), broadcast(states.dtype.type(0))
    k0, k1, ready = key[0], key[1], -1
    for r in range(rows.low, rows.high):
        s, a0, d0 = (r + colour) & 1, 0 if across_all else r, 0 if down_all else r
        beside = address(states, (image, 1 - colour, r + 1, s))
        above, below = address(states, (image, 1 - colour, r, 1)), address(states, (image, 1 - colour, r + 2, 1))
        own, may = address(states, (image, colour, r + 1, 1)), address(free, (colour, r))
        weights = address(odds, (0, 0) if shared else (colour, r))
        gain_left, gain_right = address(across, (0, colour, a0)), address(across, (1, colour, a0))
        gain_above, gain_below = address(down, (0, colour, d0)), address(down, (1, colour, d0))
        for block in range(blocks):
            number, at = r * blocks + block, LANES * block
            if number >> sharing(odds) != ready:
                ready = number >> sharing(odds)
                ready_words(words, ready, image, rows.step, k0, k1)
            a1, d1 = 0 if across_all else at, 0 if down_all else at
            weight = load(weights, 0 if shared else at)
            weight = _times(weight, load(beside, at), load(gain_left, a1))
            weight = _times(weight, load(beside, at + 1), load(gain_right, a1))
            weight = _times(weight, load(above, at), load(gain_above, d1))
            weight = _times(weight, load(below, at), load(gain_below, d1))
            passed = (weight + 1) * uniform(words, number, odds) < 1
            drawn = select(load(may, at) == 1, select(passed, zero, one), load(own, at))
            store(drawn, own, at)


@helper()
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
