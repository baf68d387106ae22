"""What a node takes from a factor of two nodes and gives back, a vector of labels at a time.

``belief``, ``choice``, ``tables`` and ``lent`` are pointers into flat arrays; ``card`` is the number of labels.
"""

from __future__ import annotations

import math

from numba import njit

from lnz.ops.jit.cpu.memory import fold_blocks, for_blocks, load, store
from lnz.ops.jit.cpu.vectors import broadcast, max_lanes, maximum, negative, select

_FLAGS = {"nnan", "nsz", "contract"}


@njit(fastmath=_FLAGS)
def receive(belief, choice, shown, row, offered, inner, owed, card, weight):
    """Take what a factor offers, ``found[x] = max_y offered[y] + weight · row[y · card + x]``, y < ``inner``.

    ``belief`` gains it and ``owed`` becomes −found (−inf where found is); ``choice`` gains the weighted row ``shown``.
    """
    for_blocks(_receive, card, belief, choice, shown, row, offered, inner, owed, card, weight)


@njit(fastmath=_FLAGS)
def _receive(at, n, belief, choice, shown, row, offered, inner, owed, card, weight):
    found = broadcast(-math.inf)
    for y in range(inner):
        found = maximum(offered[y] + weight * load(row, y * card + at, n), found)
    store(load(belief, at, n) + found, belief, at, n)
    store(select(found > -math.inf, negative(found), -math.inf), owed, at, n)
    store(load(choice, at, n) + weight * load(shown, at, n), choice, at, n)


@njit(fastmath=_FLAGS)
def give(lent, belief, card, share, top):
    """``lent[x] += share · (belief[x] − top)``."""
    for_blocks(_give, card, lent, belief, share, top)


@njit(fastmath=_FLAGS)
def _give(at, n, lent, belief, share, top):
    store(load(lent, at, n) + share * (load(belief, at, n) - top), lent, at, n)


@njit(fastmath=_FLAGS)
def top_of(values, card):
    """The largest of ``values[:card]``."""
    return max_lanes(fold_blocks(_climb, broadcast(-math.inf), card, values))


@njit(fastmath=_FLAGS)
def _climb(top, at, n, values):
    return maximum(load(values, at, n, -math.inf), top)
