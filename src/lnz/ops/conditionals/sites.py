"""Which nodes are updated together, and which factors they touch: integer tables of a graph, made once and cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.graphs import FactorGraph

Order = Literal["chromatic", "systematic", "random"]
"""The order in which the nodes of a sweep are updated; see :func:`~lnz.ops.conditionals.sweep.sweep`."""


@dataclass(frozen=True)
class Part:
    """The factors of one group that hold one of some nodes at one position of their scope.

    Attributes:
        group: of the factors.
        position: of the scope.
        factors: ``int64 [P]``.
        slots: ``int64 [P]``, which of the nodes each factor holds there.
    """

    group: int
    position: int
    factors: Tensor
    slots: Tensor


@dataclass(frozen=True)
class Sites:
    """Some nodes ``int64 [M]``, and every factor that scores one of them."""

    nodes: Tensor
    parts: tuple[Part, ...]


class Wiring:
    """Who neighbours whom in one graph, and the schedules that follow from it."""

    def __init__(self, graph: FactorGraph) -> None:
        self.num_nodes = graph.num_nodes
        self._by_node: list[tuple[int, int, Tensor, Tensor]] = []
        for group, scope in enumerate(graph.scopes):
            for position, column in enumerate(scope.T):
                ends = torch.bincount(column, minlength=graph.num_nodes).cumsum(0)
                starts = torch.cat((ends.new_zeros(1), ends))
                self._by_node.append((group, position, column.argsort(stable=True), starts))
        self.neighbours = _neighbours(graph)
        self._kept: dict[tuple[str, torch.device], tuple[Sites, ...]] = {}

    def sites(self, nodes: Tensor, device: torch.device) -> Sites:
        """The factors around ``nodes``: O(their degrees)."""
        parts = []
        for group, position, order, starts in self._by_node:
            degrees = starts[nodes + 1] - starts[nodes]
            if total := int(degrees.sum()):
                slots = torch.arange(len(nodes)).repeat_interleave(degrees)
                within = torch.arange(total) - (degrees.cumsum(0) - degrees)[slots]
                factors = order[starts[nodes][slots] + within]
                parts.append(Part(group, position, factors.to(device), slots.to(device)))
        return Sites(nodes.to(device), tuple(parts))

    def kept(self, name: str, sets: Callable[[], list[Tensor]], device: torch.device) -> tuple[Sites, ...]:
        """The sites of some sets of nodes, made on the first call with this name."""
        if (name, device) not in self._kept:
            self._kept[name, device] = tuple(self.sites(nodes, device) for nodes in sets())
        return self._kept[name, device]

    def colours(self) -> list[Tensor]:
        """Sets of nodes no two of which share a factor: the greedy colouring in the order of the nodes."""
        colour = [-1] * self.num_nodes
        for node, around in enumerate(self.neighbours):
            taken = {colour[other] for other in around}
            colour[node] = next(c for c in range(len(around) + 1) if c not in taken)
        return _grouped(range(self.num_nodes), colour)

    def levels(self) -> list[Tensor]:
        """Sets of nodes that, updated one set after the other, do what node 0, 1, …, N−1 in turn would do.

        A node is put right after the last set with a neighbour that comes before it, so that it sees exactly the
        updates that it should.
        """
        level: list[int] = []
        for node, around in enumerate(self.neighbours):
            level.append(1 + max((level[other] for other in around if other < node), default=-1))
        return _grouped(range(self.num_nodes), level)


_wirings: WeakKeyDictionary[FactorGraph, Wiring] = WeakKeyDictionary()


def wiring_of(graph: FactorGraph) -> Wiring:
    """The tables of a graph, made on the first call."""
    if graph not in _wirings:
        _wirings[graph] = Wiring(graph)
    return _wirings[graph]


def schedule(graph: FactorGraph, order: Order, device: torch.device) -> tuple[Sites, ...]:
    """The sets of nodes of one sweep, to be updated one set after the other; no two of a set share a factor."""
    wiring = wiring_of(graph)
    if order == "chromatic":
        return wiring.kept("chromatic", wiring.colours, device)
    if order == "systematic":
        return wiring.kept("systematic", wiring.levels, device)
    raise ValueError(f"order: expected 'chromatic' or 'systematic', got {order!r}")


def all_sites(graph: FactorGraph, device: torch.device) -> Sites:
    """Every node, in order."""
    return wiring_of(graph).kept("all", lambda: [torch.arange(graph.num_nodes)], device)[0]


def _neighbours(graph: FactorGraph) -> list[list[int]]:
    """Per node, the nodes that it shares a factor with."""
    around: list[set[int]] = [set() for _ in range(graph.num_nodes)]
    for scope in graph.scopes:
        if scope.shape[1] > 1:
            for nodes in scope.tolist():
                for node in nodes:
                    around[node].update(nodes)
    for node, others in enumerate(around):
        others.discard(node)
    return [sorted(others) for others in around]


def _grouped(nodes: Iterable[int], keys: Sequence[int]) -> list[Tensor]:
    sets: list[list[int]] = [[] for _ in range(max(keys, default=-1) + 1)]
    for node, key in zip(nodes, keys, strict=True):
        sets[key].append(node)
    return [torch.tensor(members) for members in sets]
