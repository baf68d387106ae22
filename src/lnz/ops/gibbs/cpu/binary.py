"""A row of one checkerboard colour of a binary grid redrawn: one weight per node, the odds of label 1."""

from __future__ import annotations

from numba import njit

from lnz.ops.gibbs.cpu.random import ready_words, sharing, uniform
from lnz.ops.registers.cpu.lanes import BLOCK
from lnz.ops.registers.cpu.vectors import load, select, spread, store


@njit(inline="always")
def _times(odds, neighbour, gain):
    return select(neighbour == 1, odds * gain, odds)


@njit(fastmath={"contract"})
def row_of_odds(states, free, odds, across, down, key, words, ready, image, step, r):
    """Redraw row r; which words are ready then.

    Args:
        states: as in :func:`lnz.ops.gibbs.cpu.grid.sweep`, whose arrays these are.
        free: see there.
        odds: ``[2, H, K / 16, 1, 16]`` or ``[1, 1, 1, 1, 16]``, of label 1 where all neighbours have label 0.
        across: what a horizontal neighbour of label 1 multiplies them by, ``[2, 2, H or 1, K or 16]``.
        down: likewise.
        key: of the random numbers.
        words: ``uint32 [4, 16]``, random.
        ready: which of them these are, −1 if none.
        image: the number of the image.
        step: of the half-sweep.
        r: the row.
    """
    blocks, colour = free.shape[2] // BLOCK, step & 1
    s = (r + colour) & 1
    shared, across_all, down_all = odds.shape[1] == 1, across.shape[2] == 1, down.shape[2] == 1
    n0, n1 = (0, 0) if shared else (colour, r)
    a0, d0 = 0 if across_all else r, 0 if down_all else r
    one, zero = spread(states.dtype.type(1)), spread(states.dtype.type(0))
    for block in range(blocks):
        number, at = r * blocks + block, BLOCK * block
        if number >> sharing(odds) != ready:
            ready = number >> sharing(odds)
            ready_words(words, ready, image, step, key)
        a1, d1, n2 = 0 if across_all else at, 0 if down_all else at, 0 if shared else block
        weight = load(odds, (n0, n1, n2, 0, 0))
        weight = _times(weight, load(states, (image, 1 - colour, r + 1, at + s)), load(across, (0, colour, a0, a1)))
        weight = _times(weight, load(states, (image, 1 - colour, r + 1, at + s + 1)), load(across, (1, colour, a0, a1)))
        weight = _times(weight, load(states, (image, 1 - colour, r, at + 1)), load(down, (0, colour, d0, d1)))
        weight = _times(weight, load(states, (image, 1 - colour, r + 2, at + 1)), load(down, (1, colour, d0, d1)))
        passed = (weight + 1) * uniform(words, number, odds) < 1
        before = load(states, (image, colour, r + 1, at + 1))
        drawn = select(load(free, (colour, r, at)) == 1, select(passed, zero, one), before)
        store(drawn, states, (image, colour, r + 1, at + 1))
    return ready
