"""The search for an elimination order within limits: greedy rules, orders at hand, and restarts by chance.

What it may cost is counted as work, not as time, so that the same graph has the same plan on every machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from lnz.inference.exact.elimination import (
    Neighbours,
    Order,
    Work,
    breadth_first,
    frontier,
    given_order,
    greedy,
    least_width,
)
from lnz.inference.exact.junction_tree import junction_tree, live_messages

_PAIRS_PER_SECOND = 600_000  # pairs of nodes in the cliques of orders, some of which an idle core finds in a second
_ORDER_PAIRS = 2_000_000  # at most, in the cliques of one order
_ENTRIES_PER_PAIR = 256  # restarts may take about as long as inference with the best order so far
_MIN_FILL_EDGES = 20_000  # min-fill's bookkeeping pays on graphs up to this size
_CHEAP = 2**14  # a plan of so few table entries in all is not worth searching further


class Limits(NamedTuple):
    """What an order may need, in entries, and the search for it.

    Attributes:
        table: the most entries of one table.
        messages: the most entries of the messages that are held at once.
        seconds: about the seconds that the search may take on one idle core.
    """

    table: float = math.inf
    messages: float = math.inf
    seconds: float = 10.0


class Found(NamedTuple):
    """The best order found, how far its needs exceed the limits (1 or less: they are kept), and the entries at once."""

    order: Order
    excess: float
    live: int


def find_order(
    neighbours: Neighbours, cardinalities: Sequence[int], nodes: Sequence[int], limits: Limits, bound: int = 1
) -> Found | None:
    """The order of least total size within the limits; where none was found, the one that exceeds them least.

    The search ends early at an order whose largest table is ``bound``, a size that no order can beat.
    ``None`` where no order could be looked at within the work that one may take.

    Candidates are min-weight, the nodes as given (row by row on a grid), breadth first, min-fill and weighted
    min-fill, and restarts of the latter with ties broken by chance (fixed seeds). Restarts go on for the seconds of
    the limits, or for about as long as inference with the best order takes if that keeps the limits and is less.
    """
    search = _Search(neighbours, cardinalities, nodes, limits)
    search.greedy("min-weight")
    if search.fits and (search.total <= _CHEAP or search.largest <= bound):
        return search.best
    for name, fixed in (("nodes as given", nodes), ("breadth first", breadth_first(neighbours, nodes))):
        ceiling = limits.table if search.best is None else search.ceilings[0]
        if frontier(neighbours, cardinalities, fixed, ceiling)[0] <= ceiling:
            search.consider(given_order(name, neighbours, cardinalities, fixed, *search.ceilings, Work(_ORDER_PAIRS)))
    if sum(map(len, neighbours)) <= 2 * _MIN_FILL_EDGES:
        search.greedy("min-fill")
        search.greedy("weighted min-fill")
        if search.fits or not search.hopeless():
            search.restart()
    return search.best


class _Search:
    """The best order so far, and the work that has gone into it."""

    def __init__(
        self, neighbours: Neighbours, cardinalities: Sequence[int], nodes: Sequence[int], limits: Limits
    ) -> None:
        self._graph = neighbours, cardinalities, nodes
        self._limits = limits
        self._pairs = 0
        self.best: Found | None = None

    @property
    def fits(self) -> bool:
        return self.best is not None and self.best.excess <= 1

    @property
    def total(self) -> float:
        return math.inf if self.best is None else self.best.order.total

    @property
    def largest(self) -> float:
        return math.inf if self.best is None else self.best.order.largest

    @property
    def ceilings(self) -> tuple[float, float]:
        """The most entries of one table, and of all, of an order that may be better than the best so far."""
        if self.best is None:
            return math.inf, math.inf
        return max(1.0, self.best.excess) * self._limits.table, self.total if self.fits else math.inf

    def consider(self, order: Order | None) -> None:
        if order is None:
            return
        live = live_messages(junction_tree(order, self._graph[1]), self._graph[1])
        excess = max(_ratio(order.largest, self._limits.table), _ratio(live, self._limits.messages))
        if self.best is None or (max(1.0, excess), order.total) < (max(1.0, self.best.excess), self.total):
            self.best = Found(order, excess, live)

    def greedy(self, rule: str, shuffled: random.Random | None = None) -> None:
        work = Work(_ORDER_PAIRS)
        self.consider(greedy(rule, *self._graph, *self.ceilings, shuffled, work))
        self._pairs += _ORDER_PAIRS - work.left

    def hopeless(self) -> bool:
        """Whether no order at all can keep the limit on tables."""
        neighbours, cardinalities, nodes = self._graph
        least = min([cardinalities[node] for node in nodes], default=1)
        enough = math.log(self._limits.table) / math.log(least) if least > 1 else math.inf  # nodes of a clique
        return least_width(neighbours, nodes, enough) + 1 > enough

    def restart(self) -> None:
        seed = 0
        while self._pairs < min(self._limits.seconds * _PAIRS_PER_SECOND, self._worthwhile):
            self.greedy(("min-fill", "weighted min-fill")[seed % 2], random.Random(seed))
            seed += 1

    @property
    def _worthwhile(self) -> float:
        return self.total / _ENTRIES_PER_PAIR if self.fits else math.inf


def _ratio(needed: int, limit: float) -> float:
    return needed / limit if needed.bit_length() < 1000 else math.inf  # beyond that, no float
