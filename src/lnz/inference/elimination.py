"""Planning exact inference: elimination orders and the junction tree that follows from one. Wiring only, no scores.

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

_MIN_FILL_EDGES = 20_000  # min-fill's bookkeeping pays on graphs up to this size
_CHEAP = 2**14  # a plan of so few table entries in all is not worth searching further
_RESTART_WORK = 600_000  # pairs of nodes in the cliques of all restarts together: about a second
_ENTRIES_PER_PAIR = 128  # restarts may take about as long as inference with the best order so far
_RESTARTS_WITHOUT = 16  # at most, where no order has been found yet
_REFUSAL_WORK = 2_000_000  # pairs of nodes in the cliques of one order that is sought to say what a refusal lacks
_BLOCK = 256  # the most joint labels of the nodes that one clique eliminates together


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


@dataclass(frozen=True)
class Clique:
    """One table of the junction tree.

    Attributes:
        nodes: the separator first, then the eliminated nodes, both in descending order of elimination, so that a
            message keeps its layout in the table that receives it and the summed axes are the last ones.
        eliminated: how many of the last nodes are summed out here.
        parent: position of the clique that receives the message, −1 for a root.
    """

    nodes: tuple[int, ...]
    eliminated: int
    parent: int


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


def find_order(
    neighbours: Neighbours,
    cardinalities: Sequence[int],
    nodes: Sequence[int],
    max_table: int,
    bound: int = 1,
    max_messages: float = math.inf,
) -> Order | None:
    """The order of least total size that was found within both limits, or ``None``.

    The limits are on the entries of one table, and of the messages that are held at once. The search ends early at an
    order whose largest table is ``bound``, a size that no order can beat.

    Candidates are min-weight, the nodes as given (row by row on a grid), breadth first, min-fill and weighted
    min-fill, and restarts of the latter with ties broken at random (fixed seeds; the more of them, the more entries
    there are to save).
    """
    best: Order | None = None

    def consider(order: Order | None) -> None:
        nonlocal best
        if order is None or (best is not None and order.total >= best.total):
            return
        if (
            order.total <= max_messages
            or live_messages(junction_tree(order, cardinalities), cardinalities) <= max_messages
        ):
            best = order

    def budget() -> int | None:
        return None if best is None else best.total

    consider(greedy("min-weight", neighbours, cardinalities, nodes, max_table))
    if best is not None and (best.total <= _CHEAP or best.largest <= bound):
        return best
    for name, fixed in (("nodes as given", nodes), ("breadth first", breadth_first(neighbours, nodes))):
        if frontier(neighbours, cardinalities, fixed, max_table)[0] <= max_table:
            consider(_eliminate(name, neighbours, cardinalities, fixed, max_table, budget()))
    if sum(map(len, neighbours)) <= 2 * _MIN_FILL_EDGES:
        for rule in ("min-fill", "weighted min-fill"):
            consider(greedy(rule, neighbours, cardinalities, nodes, max_table, budget()))
        restarts = _RESTARTS_WITHOUT if best is None else _restarts(best)
        for seed in range(restarts):
            if best is not None and seed >= _restarts(best):
                break
            rule = ("min-fill", "weighted min-fill")[seed % 2]
            consider(greedy(rule, neighbours, cardinalities, nodes, max_table, budget(), random.Random(seed)))
    return best


def _restarts(best: Order) -> int:
    pairs = sum([(len(later) + 1) ** 2 for later in best.later])
    return min(best.total // _ENTRIES_PER_PAIR, _RESTART_WORK) // pairs


def least_table(neighbours: Neighbours, cardinalities: Sequence[int], nodes: Sequence[int]) -> Order | None:
    """The order whose largest table is least, of any size, that the greedy rules find; ``None`` if that is much work.

    What a refusal says that exact inference would take.
    """
    rules = ("min-fill", "weighted min-fill", "min-weight")
    small = sum(map(len, neighbours)) <= 2 * _MIN_FILL_EDGES
    found = [
        greedy(rule, neighbours, cardinalities, nodes, math.inf, work=_REFUSAL_WORK)
        for rule in rules[0 if small else 2 :]
    ]
    return min([order for order in found if order is not None], key=lambda order: order.largest, default=None)


def greedy(
    rule: str,
    neighbours: Neighbours,
    cardinalities: Sequence[int],
    nodes: Sequence[int],
    max_table: float,
    budget: int | None = None,
    shuffled: random.Random | None = None,
    work: float = math.inf,
) -> Order | None:
    """Eliminate the node of least cost, again and again; O(N w²) set operations for cliques of w nodes.

    Args:
        rule: the cost of a node: ``"min-weight"`` the size of its clique, ``"min-fill"`` the edges that its elimination
            adds, ``"weighted min-fill"`` those edges weighted by the cardinalities of their ends.
        neighbours: the interaction graph; left as it is.
        cardinalities: labels per node.
        nodes: the nodes to eliminate.
        max_table: stop, returning ``None``, at the first clique with more joint labels than this.
        budget: stop, returning ``None``, when the total size reaches this.
        shuffled: breaks ties at random instead of by node number.
        work: stop, returning ``None``, when there have been this many pairs of nodes in the cliques.
    """
    adjacent = {node: set(neighbours[node]) for node in nodes}
    uniform = len(set(cardinalities)) == 1
    cost = _degree if uniform and rule == "min-weight" else _COSTS[rule]
    ranked = list(nodes)  # ties go to the node that comes first here
    if shuffled:
        shuffled.shuffle(ranked)
    rank = {node: place for place, node in enumerate(ranked)}
    bits = len(ranked).bit_length()
    key = {node: (cost(node, adjacent, cardinalities) << bits) + rank[node] for node in ranked}
    heap = list(key.values())
    heapify(heap)
    order: list[int] = []
    later: list[tuple[int, ...]] = []
    largest = total = 0
    while heap:
        least = heappop(heap)
        node = ranked[least & ((1 << bits) - 1)]
        if key.get(node) != least:
            continue  # eliminated since, or costed anew
        del key[node]
        clique = adjacent.pop(node)
        size = cardinalities[node] * math.prod([cardinalities[other] for other in clique])
        total += size
        work -= (len(clique) + 1) ** 2
        if size > max_table or work < 0 or (budget is not None and total >= budget):
            return None
        largest = max(largest, size)
        order.append(node)
        later.append(tuple(clique))
        for other in _join(adjacent, node, clique, wide=rule != "min-weight"):
            new = (cost(other, adjacent, cardinalities) << bits) + rank[other]
            if new != key[other]:
                key[other] = new
                heappush(heap, new)
    return Order(rule, tuple(order), tuple(later), largest, total)


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


def _eliminate(
    name: str,
    neighbours: Neighbours,
    cardinalities: Sequence[int],
    nodes: Sequence[int],
    max_table: int,
    budget: int | None,
) -> Order | None:
    """The cliques of a given order, or ``None`` as in :func:`greedy`."""
    adjacent = {node: set(neighbours[node]) for node in nodes}
    later: list[tuple[int, ...]] = []
    largest = total = 0
    for node in nodes:
        clique = adjacent.pop(node)
        size = cardinalities[node] * math.prod([cardinalities[other] for other in clique])
        total += size
        if size > max_table or (budget is not None and total >= budget):
            return None
        largest = max(largest, size)
        later.append(tuple(clique))
        _join(adjacent, node, clique, wide=False)
    return Order(name, tuple(nodes), tuple(later), largest, total)


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


def live_messages(tree: Sequence[Clique], cardinalities: Sequence[int]) -> int:
    """The entries of the messages held at once, at most, in a pass up the tree that lets go of what has been read."""
    sizes = [math.prod([cardinalities[n] for n in c.nodes[: len(c.nodes) - c.eliminated]]) for c in tree]
    read = [0] * len(tree)  # entries that each clique's children have sent
    live = most = 0
    for place, clique in enumerate(tree):
        live += sizes[place]
        most = max(most, live)
        live -= read[place]
        if clique.parent >= 0:
            read[clique.parent] += sizes[place]
    return most


def all_messages(tree: Sequence[Clique], cardinalities: Sequence[int]) -> int:
    """The entries of all messages together, which the pass down the tree reads again."""
    return sum([math.prod([cardinalities[n] for n in c.nodes[: len(c.nodes) - c.eliminated]]) for c in tree])


def junction_tree(order: Order, cardinalities: Sequence[int]) -> tuple[Clique, ...]:
    """The cliques of an order, children before parents, each node eliminated in exactly one.

    A clique that is all of a child's separator is merged into that child: one table, one message fewer.
    """
    position = {node: place for place, node in enumerate(order.nodes)}
    eliminated = [[node] for node in order.nodes]
    parent = [min((position[other] for other in later), default=-1) for later in order.later]
    merged: dict[int, int] = {}  # a child to the parent that swallowed it
    for child, above in enumerate(parent):
        if above >= 0 and len(order.later[child]) == len(order.later[above]) + 1:
            together = eliminated[above] + eliminated[child]
            if len(eliminated[above]) == 1 and math.prod([cardinalities[node] for node in together]) <= _BLOCK:
                eliminated[above] = together
                merged[child] = above
    kept = [place for place in range(len(order.nodes)) if place not in merged]
    renumbered = {place: number for number, place in enumerate(kept)}
    cliques: list[Clique] = []
    for place in kept:
        separator = sorted(order.later[place], key=position.__getitem__, reverse=True)
        above = parent[place]
        while above in merged:
            above = merged[above]
        cliques.append(Clique((*separator, *eliminated[place]), len(eliminated[place]), renumbered.get(above, -1)))
    return tuple(cliques)
