"""Where messages live and in which order they are sent: integer tables of a factor graph, made once and cached.

A *slot* is one pair (factor, position of its scope); it holds one message each way. The slots of group g are laid out
position by position, so that the messages of one position are a slice ``[*batch, F, L_k]`` of ``[*batch, M, L]``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.graphs import FactorGraph


@dataclass(frozen=True)
class Targets:
    """Factors of one group that send, and the positions of their scopes that they send to."""

    group: int
    positions: tuple[int, ...]
    factors: Tensor | None
    """``int64 [F']``, or ``None`` for the whole group."""


@dataclass(frozen=True)
class Step:
    """Messages that are sent at the same time: nodes first, then factors.

    Attributes:
        nodes: the slots of the nodes that must speak first, one table ``int64 [n, d]`` per degree d.
        targets: what the factors then send.
    """

    nodes: tuple[Tensor, ...]
    targets: tuple[Targets, ...]


class Wiring:
    """Slots, and the steps of each schedule, of one graph on one device. M slots in all."""

    def __init__(self, graph: FactorGraph, device: torch.device) -> None:
        self.labels = graph.labels
        self.num_factors = graph.num_factors
        self.num_nodes = graph.num_nodes
        self.max_cardinality = graph.max_cardinality
        self.is_forest = graph.is_forest
        self.device = device
        self.offsets: list[int] = []
        columns = []
        num_slots = 0
        for scope in graph.scopes:
            self.offsets.append(num_slots)
            columns.append(scope.T.reshape(-1))
            num_slots += scope.numel()
        self.num_slots = num_slots
        self._slot_node = torch.cat(columns) if columns else torch.zeros(0, dtype=torch.int64)
        self.slot_node = self._slot_node.to(device)
        cards = torch.tensor(graph.cardinalities, dtype=torch.int64)
        self.valid = (torch.arange(self.max_cardinality) < cards[:, None]).to(device)
        """Which labels each node has, ``bool [N, L]``."""

    def slice(self, group: int, position: int) -> slice:
        """The slots of one position of all factors of a group."""
        start = self.offsets[group] + position * self.num_factors[group]
        return slice(start, start + self.num_factors[group])

    # Steps ------------------------------------------------------------------------------------------------------

    @cached_property
    def unary(self) -> Step:
        """Factors of one node: their messages never change, so they are sent once."""
        whole = (Targets(g, (0,), None) for g, ls in enumerate(self.labels) if len(ls) == 1 and self.num_factors[g])
        return Step((), tuple(whole))

    @cached_property
    def flooding(self) -> Step:
        """Everything at once."""
        targets = tuple(
            Targets(g, tuple(range(len(ls))), None)
            for g, ls in enumerate(self.labels)
            if len(ls) > 1 and self.num_factors[g]
        )
        return Step(self.everyone, targets)

    @cached_property
    def everyone(self) -> tuple[Tensor, ...]:
        """The slots of every node, one table ``int64 [n, d]`` per degree d ≥ 1."""
        return self.tables(torch.arange(self.num_nodes))

    @cached_property
    def _by_node(self) -> tuple[Tensor, Tensor, Tensor]:
        """Slots sorted by node, where each node's begin, and how many it has."""
        degree = torch.bincount(self._slot_node, minlength=self.num_nodes)
        return self._slot_node.argsort(stable=True), degree.cumsum(0) - degree, degree

    def tables(self, nodes: Tensor) -> tuple[Tensor, ...]:
        """As :attr:`everyone`, of some nodes."""
        slots, start, degree = self._by_node
        degrees = degree[nodes]
        return tuple(
            slots[start[nodes[degrees == d], None] + torch.arange(d)].to(self.device)
            for d in degrees.unique().tolist()
            if d
        )

    @cached_property
    def _node_slots(self) -> list[list[int]]:
        slots, _, degree = self._by_node
        return [part.tolist() for part in slots.split(degree.tolist())]

    @cached_property
    def _slot_factor(self) -> list[tuple[int, int, int]]:
        """(group, position, factor) of each slot."""
        return [
            (g, k, f) for g, ls in enumerate(self.labels) for k in range(len(ls)) for f in range(self.num_factors[g])
        ]

    def _siblings(self, slot: int) -> list[int]:
        """The slots of the same factor but this one."""
        g, k, f = self._slot_factor[slot]
        count = self.num_factors[g]
        return [self.offsets[g] + other * count + f for other in range(len(self.labels[g])) if other != k]

    def step(self, slots: Iterable[int]) -> Step:
        """The step that sends the messages of exactly these slots."""
        sought: dict[tuple[int, int], list[int]] = {}
        speakers: set[int] = set()
        for slot in slots:
            g, k, f = self._slot_factor[slot]
            sought.setdefault((g, f), []).append(k)
            speakers.update(self._siblings(slot))
        members: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for (g, f), positions in sought.items():
            members.setdefault((g, tuple(sorted(positions))), []).append(f)
        targets = tuple(Targets(g, ks, torch.tensor(fs, device=self.device)) for (g, ks), fs in members.items())
        nodes = self._slot_node[torch.tensor(sorted(speakers), dtype=torch.int64)].unique()
        return Step(self.tables(nodes), targets)

    def incident(self, nodes: Tensor) -> Step:
        """The step that sends the messages to ``nodes`` of all their factors of several nodes."""
        slots = (slot for node in nodes.tolist() for slot in self._node_slots[node])
        return self.step(slot for slot in slots if len(self.labels[self._slot_factor[slot][0]]) > 1)

    @cached_property
    def sequential(self) -> tuple[Step, ...]:
        """Factors in order, forward and then backward, each sending to all its nodes.

        Factors of one level share no node, and a factor's level is above those of all earlier factors it shares a node
        with, so that sending level by level is the same as sending one by one.
        """
        reached = [0] * self.num_nodes
        levels: list[list[int]] = []
        for g, labels in enumerate(self.labels):
            for f in range(self.num_factors[g] if len(labels) > 1 else 0):
                slots = [self.offsets[g] + k * self.num_factors[g] + f for k in range(len(labels))]
                nodes = [self._nodes[slot] for slot in slots]
                level = max(reached[node] for node in nodes)
                for node in nodes:
                    reached[node] = level + 1
                if level == len(levels):
                    levels.append([])
                levels[level] += slots
        forward = [self.step(slots) for slots in levels]
        return (*forward, *reversed(forward[:-1]))

    @cached_property
    def _nodes(self) -> list[int]:
        return self._slot_node.tolist()

    def dependents(self, slot: int) -> Step:
        """The messages that depend on that of ``slot`` at one remove."""
        if slot not in self._dependents:
            others = (other for other in self._node_slots[self._nodes[slot]] if other != slot)
            self._dependents[slot] = self.step(later for other in others for later in self._siblings(other))
        return self._dependents[slot]

    @cached_property
    def _dependents(self) -> dict[int, Step]:
        return {}

    @cached_property
    def _neighbours(self) -> list[list[int]]:
        return [[self._nodes[other] for slot in slots for other in self._siblings(slot)] for slots in self._node_slots]

    @cached_property
    def _breadth_first(self) -> tuple[list[int], list[int]]:
        """The nodes in breadth-first order from the first node of each component, and the depth of each node."""
        order: list[int] = []
        depth = [-1] * self.num_nodes
        for root in range(self.num_nodes):
            if depth[root] < 0:
                depth[root] = 0
                queue = deque([root])
                while queue:
                    order.append(node := queue.popleft())
                    for other in self._neighbours[node]:
                        if depth[other] < 0:
                            depth[other] = depth[node] + 1
                            queue.append(other)
        return order, depth

    @cached_property
    def decoding(self) -> tuple[tuple[tuple[Tensor, ...], Step], ...]:
        """Nodes in breadth-first order, by levels that share no factor: their slots, and the step that informs them."""
        level = [-1] * self.num_nodes
        levels: list[list[int]] = []
        for node in self._breadth_first[0]:
            level[node] = 1 + max((level[other] for other in self._neighbours[node]), default=-1)
            if level[node] == len(levels):
                levels.append([])
            levels[level[node]].append(node)
        return tuple(
            (self.tables(torch.tensor(nodes)), self.step(slot for n in nodes for slot in self._node_slots[n]))
            for nodes in levels
        )

    @cached_property
    def two_pass(self) -> tuple[Step, ...]:
        """On a forest: to the roots, the deepest first, and back; every message once, after all those it depends on."""
        _, depth = self._breadth_first
        up: list[list[int]] = [[] for _ in range(max(depth, default=0) + 1)]
        down: list[list[int]] = [[] for _ in up]
        for slot, node in enumerate(self._nodes):
            others = [depth[self._nodes[other]] for other in self._siblings(slot)]
            if others and max(others) > depth[node]:  # the one node of its factor nearest to the root
                up[depth[node]].append(slot)
            elif others:
                down[depth[node]].append(slot)
        return tuple(self.step(slots) for slots in (*reversed(up), *down) if slots)


_wirings: WeakKeyDictionary[FactorGraph, dict[torch.device, Wiring]] = WeakKeyDictionary()


def wiring(graph: FactorGraph, device: torch.device) -> Wiring:
    """The tables of ``graph`` on ``device``, made on first use."""
    known = _wirings.setdefault(graph, {})
    if device not in known:
        known[device] = Wiring(graph, device)
    return known[device]
