"""What a node takes from a factor of two nodes and gives back, a vector of labels at a time.

``belief``, ``choice``, ``owed`` and ``lent`` are pointers into flat arrays; ``card`` is the number of labels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.memory import fold_blocks, for_blocks, load, store
from lnz.ops.jit.cpu.vectors import broadcast, max_lanes, maximum, negative, select

_FLAGS = {"nnan", "nsz", "contract"}


class Factor(NamedTuple):
    """A factor of two nodes, as one of them sees it.

    Attributes:
        table: pointer to its scores, of which those of each label of the other node are a row.
        row: which row is that of the other node's present label.
        weight: of the table.
        lent: pointer to what the other node has lent, one number per label.
        labels: how many labels the other node has.
    """

    table: Any
    row: int
    weight: float
    lent: Any
    labels: int


@helper(fastmath=_FLAGS)
def receive(belief, choice, owed, card, factor):
    """Take what a factor offers, ``found[x] = max_y lent[y] + weight · table[y, x]``.

    ``belief`` gains it and ``owed`` becomes −found (−inf where found is); ``choice`` gains the weighted present row.
    """
    for_blocks(_receive, card, belief, choice, owed, card, factor)


@helper(fastmath=_FLAGS)
def _receive(at, n, belief, choice, owed, card, factor):
    table, weight, lent, found = factor.table, factor.weight, factor.lent, broadcast(-math.inf)
    for y in range(factor.labels):
        found = maximum(lent[y] + weight * load(table, y * card + at, n), found)
    store(load(belief, at, n) + found, belief, at, n)
    store(select(found > -math.inf, negative(found), -math.inf), owed, at, n)
    store(load(choice, at, n) + weight * load(table, factor.row * card + at, n), choice, at, n)


@helper(fastmath=_FLAGS)
def give(lent, belief, card, share, top):
    """``lent[x] += share · (belief[x] − top)``."""
    for_blocks(_give, card, lent, belief, share, top)


@helper(fastmath=_FLAGS)
def _give(at, n, lent, belief, share, top):
    store(load(lent, at, n) + share * (load(belief, at, n) - top), lent, at, n)


@helper(fastmath=_FLAGS)
def top_of(values, card):
    """The largest of ``values[:card]``."""
    return max_lanes(fold_blocks(_climb, broadcast(-math.inf), card, values))


@helper(fastmath=_FLAGS)
def _climb(top, at, n, values):
    return maximum(load(values, at, n, -math.inf), top)
