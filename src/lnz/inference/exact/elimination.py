"""Elimination orders, the plans of exact inference. Wiring only, no scores.

Summing out a node joins its neighbours; the table this takes spans the node and the neighbours it then has, its
*clique*. The largest clique decides what exact inference costs, and the order decides the largest clique.
Finding the best order is NP-hard (Arnborg, Corneil, Proskurowski 1987); the greedy rules here are the usual remedy
(Koller and Friedman 2009, section 9.4.3). A plan is a function of the graph alone: the same graph, the same plan.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

Neighbours = list[set[int]]


@dataclass
class Work:
    """How many pairs of nodes the cliques of an order may still have: what it costs to find it."""

    left: float


@dataclass(frozen=True)
class Order:
    """An elimination order, and the clique that each elimination makes.

    Attributes:
        heuristic: the rule that found it.
        nodes: the order.
        later: per node in that order, its neighbours at the time: the other nodes of its clique.
        largest: entries of the largest table.
        total: entries of all tables together, a measure of the time that inference takes.
    """

    heuristic: str
    nodes: tuple[int, ...]
    later: tuple[tuple[int, ...], ...]
    largest: int
    total: int

    @property
    def width(self) -> int:
        """Nodes in the clique with most nodes, less one: an upper bound on the treewidth."""
        return max(map(len, self.later), default=0)


def interaction_graph(num_nodes: int, scopes: Iterable[Sequence[int]], cut: frozenset[int] = frozenset()) -> Neighbours:
    """Which nodes share a factor, once the nodes of ``cut`` are taken out."""
    neighbours: Neighbours = [set() for _ in range(num_nodes)]
    for scope in scopes:
        free = [node for node in scope if node not in cut] if cut else scope
        if len(free) > 1:
            for node in free:
                neighbours[node].update(free)
    for node, adjacent in enumerate(neighbours):
        adjacent.discard(node)
    return neighbours


def greedy(
    rule: str,
    neighbours: Neighbours,
    cardinalities: Sequence[int],
    nodes: Sequence[int],
    max_table: float = math.inf,
    max_total: float = math.inf,
    shuffled: random.Random | None = None,
    work: Work | None = None,
) -> Order | None:
    """Eliminate the node of least cost, again and again; O(N w²) set operations for cliques of w nodes.

    Args:
        rule: the cost of a node: ``"min-weight"`` the size of its clique, ``"min-fill"`` the edges that its elimination
            adds, ``"weighted min-fill"`` those edges weighted by the cardinalities of their ends.
        neighbours: the interaction graph; left as it is.
        cardinalities: labels per node.
        nodes: the nodes to eliminate.
        max_table: stop, returning ``None``, at the first clique with more joint labels than this.
        max_total: stop, returning ``None``, when the total size reaches this.
        shuffled: breaks ties at random instead of by node number.
        work: stop, returning ``None``, when it is used up.
    """
    work = work or Work(math.inf)
    work.left -= len(nodes)
    taken = _Elimination(neighbours, cardinalities, nodes, max_table, max_total, work)
    adjacent, uniform = taken.adjacent, len(set(cardinalities)) == 1
    cost = _degree if uniform and rule == "min-weight" else _COSTS[rule]
    ranked = list(nodes)  # ties go to the node that comes first here
    if shuffled:
        shuffled.shuffle(ranked)
    rank = {node: place for place, node in enumerate(ranked)}
    bits = len(ranked).bit_length()
    key = {node: (cost(node, adjacent, cardinalities) << bits) + rank[node] for node in ranked}
    heap = list(key.values())
    heapify(heap)
    while heap:
        least = heappop(heap)
        node = ranked[least & ((1 << bits) - 1)]
        if key.get(node) != least:
            continue  # eliminated since, or costed anew
        del key[node]
        changed = taken.take(node, wide=rule != "min-weight")
        if changed is None:
            return None
        for other in changed:
            new = (cost(other, adjacent, cardinalities) << bits) + rank[other]
            if new != key[other]:
                key[other] = new
                heappush(heap, new)
    return taken.order(rule)


class _Elimination:
    """Nodes eliminated one after the other, as long as cliques are within limits; :func:`greedy` explains them."""

    def __init__(
        self,
        neighbours: Neighbours,
        cardinalities: Sequence[int],
        nodes: Sequence[int],
        max_table: float,
        max_total: float,
        work: Work,
    ) -> None:
        self.adjacent = {node: set(neighbours[node]) for node in nodes}
        self.cardinalities, self.max_table, self.max_total, self.work = cardinalities, max_table, max_total, work
        self.nodes: list[int] = []
        self.later: list[tuple[int, ...]] = []
        self.largest = self.total = 0

    def take(self, node: int, *, wide: bool) -> set[int] | None:
        """Eliminate a node: the nodes whose cost may have changed, as of :func:`_join`; ``None`` beyond a limit."""
        clique = self.adjacent.pop(node)
        size = self.cardinalities[node] * math.prod([self.cardinalities[other] for other in clique])
        self.total += size
        self.work.left -= (len(clique) + 1) ** 2
        if size > self.max_table or self.total >= self.max_total or self.work.left < 0:
            return None
        self.largest = max(self.largest, size)
        self.nodes.append(node)
        self.later.append(tuple(clique))
        return _join(self.adjacent, node, clique, wide=wide)

    def order(self, name: str) -> Order:
        return Order(name, tuple(self.nodes), tuple(self.later), self.largest, self.total)


def _join(adjacent: dict[int, set[int]], node: int, clique: set[int], *, wide: bool) -> set[int]:
    """Take ``node`` out and join its neighbours; returns the nodes whose cost may have changed.

    Min-fill's costs also change at the nodes that see both ends of a new edge (``wide``).
    """
    affected = set(clique)
    for other in clique:
        mine = adjacent[other]
        mine.discard(node)
        if wide and len(clique - mine) > 1:  # itself apart, some are new to it
            affected |= mine
        mine |= clique
        mine.discard(other)
    return affected


def _degree(node: int, adjacent: dict[int, set[int]], _: Sequence[int]) -> int:
    return len(adjacent[node])


def _weight(node: int, adjacent: dict[int, set[int]], cardinalities: Sequence[int]) -> int:
    return cardinalities[node] * math.prod([cardinalities[other] for other in adjacent[node]])


def _fill(node: int, adjacent: dict[int, set[int]], _: Sequence[int]) -> int:
    clique = adjacent[node]
    return len(clique) * (len(clique) - 1) - sum([len(clique & adjacent[other]) for other in clique])


def _weighted_fill(node: int, adjacent: dict[int, set[int]], cardinalities: Sequence[int]) -> int:
    clique = adjacent[node]
    weights = [cardinalities[other] * sum([cardinalities[new] for new in clique - adjacent[other]]) for other in clique]
    return sum(weights) - sum([cardinalities[other] ** 2 for other in clique])  # a node is not its own neighbour


_COSTS: dict[str, Callable[[int, dict[int, set[int]], Sequence[int]], int]] = {
    "min-weight": _weight,
    "min-fill": _fill,
    "weighted min-fill": _weighted_fill,
}


def given_order(
    name: str,
    neighbours: Neighbours,
    cardinalities: Sequence[int],
    nodes: Sequence[int],
    max_table: float = math.inf,
    max_total: float = math.inf,
    work: Work | None = None,
) -> Order | None:
    """The cliques of a given order, or ``None`` as in :func:`greedy`."""
    taken = _Elimination(neighbours, cardinalities, nodes, max_table, max_total, work or Work(math.inf))
    for node in nodes:
        if taken.take(node, wide=False) is None:
            return None
    return taken.order(name)


def breadth_first(neighbours: Neighbours, nodes: Sequence[int]) -> list[int]:
    """The nodes by distance from a node at the far end of each component, nodes of few neighbours first."""
    order: list[int] = []
    seen: set[int] = set()
    for start in nodes:
        if start not in seen:
            far = _search(neighbours, start)[-1]
            component = _search(neighbours, far)
            seen.update(component)
            order += component
    return order


def _search(neighbours: Neighbours, start: int) -> list[int]:
    order, seen = [start], {start}
    for node in order:
        new = neighbours[node] - seen
        seen |= new
        order += sorted(new, key=lambda other: (len(neighbours[other]), other))
    return order


def least_width(neighbours: Neighbours, nodes: Sequence[int], enough: float = math.inf) -> int:
    """A lower bound on the treewidth: the largest least degree on the way as nodes of least degree are contracted.

    No minor has a larger treewidth, and none a node of least degree above its treewidth (contraction degeneracy,
    Bodlaender and Koster 2011). A node is contracted with its neighbour of least degree. Ends early at ``enough``.
    """
    adjacent = {node: set(neighbours[node]) for node in nodes}
    heap = [(len(adjacent[node]), node) for node in nodes]
    heapify(heap)
    width = 0
    while heap and width < enough:
        degree, node = heappop(heap)
        if node not in adjacent or len(adjacent[node]) != degree:
            continue  # contracted since, or of another degree
        width = max(width, degree)
        clique = adjacent.pop(node)
        for other in clique:
            adjacent[other].discard(node)
        if clique:
            kept = min(clique, key=lambda other: len(adjacent[other]))
            adjacent[kept] |= clique
            adjacent[kept].discard(kept)
            for other in clique - {kept}:
                adjacent[other].add(kept)
        for other in clique:
            heappush(heap, (len(adjacent[other]), other))
    return width


def frontier(
    neighbours: Neighbours, cardinalities: Sequence[int], nodes: Sequence[int], limit: float = math.inf
) -> tuple[int, int]:
    """Upper bounds on the largest table and the width of an order, in O(E): eliminated nodes' neighbours still to come.

    A clique holds no other node than the eliminated one and the frontier between what has been and what has not.
    Bounds above ``limit`` entries are of no interest: the first to be met is returned.
    """
    position = {node: place for place, node in enumerate(nodes)}
    ahead: set[int] = set()
    log_size = largest = 0.0
    width = 0
    logs = [math.log(card) for card in cardinalities]
    enough = math.log(limit) + 1.0  # beyond what rounding may add
    for place, node in enumerate(nodes):
        if node in ahead:
            ahead.discard(node)
            log_size -= logs[node]
        new = [other for other in neighbours[node] if position[other] > place and other not in ahead]
        ahead.update(new)
        log_size += math.fsum([logs[other] for other in new])
        width = max(width, len(ahead))
        largest = max(largest, log_size + logs[node])
        if largest > enough:
            break
    return round(math.exp(largest)) if largest < 700 else 2 ** math.floor(largest / math.log(2)), width
