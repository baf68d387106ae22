"""Factor graphs: the wiring of a model, without its scores.

Nodes 0 … N−1 take labels 0 … L_n − 1; a factor scores the joint label of the few nodes in its *scope*. Factors come in
*groups* whose scopes have the same cardinalities, so that a group's scores are one tensor ``[*batch, F, L1, …, Lk]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Where the nodes of a grid graph lie: node ``r * width + c`` is row ``r``, column ``c``."""

    height: int
    width: int
    neighbours: int


class FactorGraph:
    """The wiring of a factor graph; immutable, on the CPU, compared by identity (plans are cached on it).

    Args:
        cardinalities: the number of labels of each node, N positive integers.
        scopes: one ``int64 [F_g, k_g]`` tensor of nodes per group. All factors of a group have the same arity *and*
            the same cardinalities; :meth:`grouped` sorts mixed factors into such groups. Arity 0 is a constant.

    Raises:
        TypeError: a scope is not an int64 tensor.
        ValueError: a cardinality below 1, a node out of range, a node twice in one scope, or a group whose factors
            differ in cardinalities.
    """

    def __init__(
        self, cardinalities: Sequence[int] | Tensor, scopes: Sequence[Tensor], *, grid: Grid | None = None
    ) -> None:
        cards = cardinalities.tolist() if isinstance(cardinalities, Tensor) else [int(c) for c in cardinalities]
        for node, card in enumerate(cards):
            if card < 1:
                raise ValueError(f"cardinalities: expected positive integers, got {card} for node {node}")
        self.cardinalities: tuple[int, ...] = tuple(cards)
        self.scopes: tuple[Tensor, ...] = tuple(_checked_scope(g, s, len(cards)) for g, s in enumerate(scopes))
        self.grid_layout = grid
        # plain attributes: torch.compile cannot trace the lock of a cached_property (Python 3.11)
        self.num_factors: tuple[int, ...] = tuple(scope.shape[0] for scope in self.scopes)
        """The number of factors F_g of each group."""
        self.max_cardinality: int = max(self.cardinalities, default=1)
        self.uniform_cardinality: int | None = cards[0] if len(set(cards)) == 1 else None
        """The number of labels where all nodes have the same, else ``None``."""
        self.labels: tuple[tuple[int, ...], ...] = tuple(self._group_labels(g) for g in range(len(self.scopes)))
        """Per group, the cardinalities (L1, …, Lk) that its factors share."""
        self.handle = f"graph {next(_handles)}"  # no number, for which torch.compile may put a symbol
        """What stands for the graph in the signature of a ``torch.library`` op; see :func:`graph_of`."""
        _graphs[self.handle] = self

    def __reduce__(self) -> tuple[Callable[..., FactorGraph], tuple[object, ...]]:
        return partial(FactorGraph, grid=self.grid_layout), (self.cardinalities, self.scopes)

    def _group_labels(self, group: int) -> tuple[int, ...]:
        scope = self.scopes[group]
        if scope.shape[0] == 0:  # nothing to read the cardinalities from: only a uniform graph says what they are
            return (self.uniform_cardinality or 0,) * scope.shape[1]
        labels = np.array(self.cardinalities)[scope.numpy()]  # quicker than torch where graphs are small
        differs = (labels != labels[0]).any(-1)
        if differs.any():
            other = int(differs.argmax())
            raise ValueError(
                f"scopes[{group}]: expected factors of one group to share their cardinalities, but factor 0 has "
                f"{labels[0].tolist()} and factor {other} has {labels[other].tolist()}; "
                "FactorGraph.grouped sorts mixed factors into groups"
            )
        return tuple(labels[0].tolist())

    @classmethod
    def pairwise(cls, num_nodes: int, num_labels: int, edges: Tensor) -> FactorGraph:
        """Two groups: every node, then every edge. ``edges`` is ``int64 [E, 2]``."""
        if not isinstance(edges, Tensor) or edges.dim() != 2 or edges.shape[-1] != 2:
            raise ValueError(f"edges: expected an int64 tensor of shape [E, 2], got {_describe(edges)}")
        return cls((num_labels,) * num_nodes, (torch.arange(num_nodes, device="cpu")[:, None], edges))

    @classmethod
    def grid(
        cls, height: int, width: int, num_labels: int, neighbours: int = 4, *, by_direction: bool = False
    ) -> FactorGraph:
        """A grid with row-major nodes, joined to their 4 or 8 nearest neighbours.

        Two groups, nodes and edges; the edges come horizontal first, row by row, then vertical, and with 8 neighbours
        then the falling (↘) and the rising (↙) diagonals, each from the upper node. ``by_direction=True`` makes one
        group per direction instead, so that each direction can have a score table of its own.
        """
        for name, size in (("height", height), ("width", width), ("num_labels", num_labels)):
            if size < 1:
                raise ValueError(f"{name}: expected a positive integer, got {size}")
        if neighbours not in (4, 8):
            raise ValueError(f"neighbours: expected 4 or 8, got {neighbours}")
        at = torch.arange(height * width, device="cpu").reshape(height, width)
        pairs = [(at[:, :-1], at[:, 1:]), (at[:-1], at[1:])]
        if neighbours == 8:
            pairs += [(at[:-1, :-1], at[1:, 1:]), (at[:-1, 1:], at[1:, :-1])]
        directions = [torch.stack((a.flatten(), b.flatten()), -1) for a, b in pairs]
        edges = directions if by_direction else [torch.cat(directions)]
        layout = Grid(height, width, neighbours)
        return cls((num_labels,) * (height * width), (at.reshape(-1, 1), *edges), grid=layout)

    @classmethod
    def grouped(
        cls, cardinalities: Sequence[int], scopes: Sequence[Sequence[int]]
    ) -> tuple[FactorGraph, list[list[int]]]:
        """Sort factors of mixed arity and cardinality into groups.

        Returns:
            The graph, and for each of its groups the positions in ``scopes`` of its factors.
        """
        order: dict[tuple[int, ...], list[int]] = {}
        for f, scope in enumerate(scopes):
            for node in scope:
                if not 0 <= node < len(cardinalities):
                    raise ValueError(f"scopes[{f}]: expected nodes in [0, {len(cardinalities)}), got {node}")
            order.setdefault(tuple(cardinalities[node] for node in scope), []).append(f)
        groups = [
            torch.tensor([list(scopes[f]) for f in members], dtype=torch.int64, device="cpu").reshape(
                len(members), len(labels)
            )
            for labels, members in order.items()
        ]
        return cls(cardinalities, groups), list(order.values())

    @property
    def num_nodes(self) -> int:
        """The number of nodes N."""
        return len(self.cardinalities)

    @property
    def num_groups(self) -> int:
        """The number of groups of factors."""
        return len(self.scopes)

    @cached_property
    def log_num_labellings(self) -> float:
        """ln of the number of labellings, possible or not."""
        return math.fsum(math.log(card) for card in self.cardinalities)

    @cached_property
    def is_forest(self) -> bool:
        """Whether the bipartite graph of nodes and factors has no cycle, so that message passing is exact."""
        root = list(range(self.num_nodes + sum(self.num_factors)))

        def find(x: int) -> int:
            while root[x] != x:
                root[x] = root[root[x]]
                x = root[x]
            return x

        factor = self.num_nodes
        for scope in self.scopes:
            for nodes in scope.tolist():
                for node in nodes:
                    a, b = find(node), find(factor)
                    if a == b:
                        return False
                    root[a] = b
                factor += 1
        return True

    def __repr__(self) -> str:
        cards = sorted(set(self.cardinalities))
        labels = str(cards[0]) if len(cards) == 1 else f"{cards[0]}…{cards[-1]}" if cards else "no"
        groups = ", ".join(f"{f} × {list(ls)}" for f, ls in zip(self.num_factors, self.labels, strict=True))
        return f"FactorGraph({self.num_nodes} nodes of {labels} labels; factors {groups or 'none'})"


_handles = itertools.count()
_graphs: WeakValueDictionary[str, FactorGraph] = WeakValueDictionary()


def graph_of(handle: str) -> FactorGraph:
    """The graph with this handle, as long as someone holds it."""
    return _graphs[handle]


def _describe(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _checked_scope(group: int, scope: Tensor, num_nodes: int) -> Tensor:
    name = f"scopes[{group}]"
    if not isinstance(scope, Tensor) or scope.dtype != torch.int64:
        raise TypeError(f"{name}: expected an int64 tensor [F, k], got {_describe(scope)}")
    if scope.dim() != 2:
        raise ValueError(f"{name}: expected shape [F, k], got {list(scope.shape)}")
    scope = scope.detach().cpu().clone()
    nodes = scope.numpy()
    out = (nodes < 0) | (nodes >= num_nodes)
    if out.any():
        factor, position = np.argwhere(out)[0].tolist()
        node = int(nodes[factor, position])
        raise ValueError(f"{name}: expected nodes in [0, {num_nodes}), got {node} in factor {factor}")
    ordered = np.sort(nodes, -1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(-1)
    if twice.any():
        factor = int(twice.argmax())
        raise ValueError(f"{name}: expected distinct nodes in a scope, got {nodes[factor].tolist()} in factor {factor}")
    return scope
