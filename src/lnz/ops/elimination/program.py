"""A junction tree as flat index arithmetic: what the recursions over it read.

All tables of a model lie in one row of scores: the factors, group by group, each in the order of its scope, then one
table per node (0, or −inf at labels an observation rules out), whose marginals are the node marginals. Every clique
adds up its *inputs*, tables and messages of children; where an input's entry lies is a sum of one term per node,
``base + Σ stride · label``, so that no table is ever permuted or copied, and a node observed in every row only moves
the ``base``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

_programs: WeakValueDictionary[str, Program] = WeakValueDictionary()
_handles = count()


@dataclass(frozen=True)
class Input:
    """One table that a clique adds in.

    Attributes:
        table: which table, or −1 for a message.
        child: the clique that sends it, or −1 for a table.
        strides: per node of the clique, the step in the table; 0 where the table does not have the node.
    """

    table: int
    child: int
    strides: tuple[int, ...]


class Program:
    """The inputs of every clique, and where their entries lie.

    Args:
        cardinalities: labels per node.
        scopes: the nodes of every factor, group by group.
        cliques: per clique its nodes (the eliminated ones last), how many it eliminates, and its parent or −1;
            children come before parents.
        cut: nodes observed in every row; they are in no clique.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        scopes: Sequence[Sequence[int]],
        cliques: Sequence[tuple[tuple[int, ...], int, int]],
        cut: frozenset[int] = frozenset(),
    ) -> None:
        self.cardinalities = tuple(cardinalities)
        self.cut = tuple(sorted(cut))
        self.num_factors = len(scopes)
        self.cliques = list(cliques)
        self.shapes = [tuple([cardinalities[node] for node in nodes]) for nodes, _, _ in self.cliques]
        owner = {n: c for c, (nodes, eliminated, _) in enumerate(cliques) for n in nodes[len(nodes) - eliminated :]}

        self.inputs: list[list[Input]] = [[] for _ in self.cliques]
        self.constants: list[int] = []
        """Tables without a free node."""
        observed: list[tuple[int, int, int]] = []  # table, observed node, stride
        offsets: list[int] = []
        size = 0
        for table, scope in enumerate([*scopes, *[(node,) for node in range(len(cardinalities))]]):
            if table == len(scopes):
                self.node_start = size
            offsets.append(size)
            strides, step = {}, 1
            for node in reversed(scope):
                strides[node] = step
                step *= cardinalities[node]
            size += step
            free = [node for node in scope if node not in cut] if cut else scope
            if len(free) < len(scope):
                observed += [(table, node, stride) for node, stride in strides.items() if node in cut]
            if not free:
                self.constants.append(table)
                continue
            home = min([owner[node] for node in free])
            nodes = self.cliques[home][0]
            self.inputs[home].append(Input(table, -1, tuple([strides.get(n, 0) if n not in cut else 0 for n in nodes])))
        if not cardinalities:
            self.node_start = size
        self.size = size
        # arrays, as in `gathered`: a tensor made under torch.func belongs to that transform, and programs outlive it
        self._base = np.array(offsets, np.int64)[None]
        self._observed = np.array(observed, np.int64).reshape(-1, 3).T.copy()

        for child, (nodes, eliminated, parent) in enumerate(self.cliques):
            if parent < 0:
                continue
            strides, step = {}, 1
            for node in reversed(nodes[: len(nodes) - eliminated]):
                strides[node] = step
                step *= cardinalities[node]
            above = self.cliques[parent][0]
            self.inputs[parent].insert(0, Input(-1, child, tuple([strides.get(node, 0) for node in above])))
        self._derived: dict[str, Any] = {}
        self.handle = f"program {next(_handles)}"  # as that of a graph
        _programs[self.handle] = self

    def cached(self, key: str, make: Callable[[Program], Any]) -> Any:
        """What a backend derives from the program, made once."""
        if key not in self._derived:
            self._derived[key] = make(self)
        return self._derived[key]

    def __getstate__(self) -> dict[str, Any]:  # what is derived may hold addresses, which a copy does not have
        return {**self.__dict__, "_derived": {}}

    @property
    def base(self) -> Tensor:
        """``int64 [1, tables]``: where each table starts."""
        return torch.from_numpy(self._base)

    def starts(self, base: Tensor) -> Tensor:
        """``base`` as operators get it: without columns it stands for :attr:`base`."""
        return base if base.shape[1] else self.base.to(base.device)

    def bases(self, observed: Tensor | None) -> Tensor:
        """Where each table starts given the labels ``[B, N]`` of the nodes cut out: ``int64 [B or 1, tables]``."""
        if observed is None or not self.cut:
            return self.base
        table, node, stride = torch.from_numpy(self._observed).to(observed.device)
        base = self.base.to(observed.device).expand(observed.shape[0], -1)
        return base.index_add(1, table, observed[:, node] * stride)

    @cached_property
    def children(self) -> list[list[int]]:
        """Per clique, the cliques that send it a message."""
        return [[entry.child for entry in inputs if entry.child >= 0] for inputs in self.inputs]

    @cached_property
    def broadcast_shapes(self) -> list[list[tuple[int, ...]]]:
        """Per clique and input, messages first: the labels of each node of the clique, 1 where the input lacks it."""
        return [
            [tuple([card if s else 1 for card, s in zip(shape, entry.strides, strict=True)]) for entry in inputs]
            for shape, inputs in zip(self.shapes, self.inputs, strict=True)
        ]

    @cached_property
    def gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """For every entry that the cliques read from tables, in order: its table, and its place in that table."""
        inputs = [(e, shape) for shape, es in zip(self.shapes, self.inputs, strict=True) for e in es if e.child < 0]
        patterns: dict[tuple[tuple[int, ...], tuple[int, ...]], np.ndarray] = {}
        local = []
        for entry, shape in inputs:
            cards, strides = zip(*[(card, s) for card, s in zip(shape, entry.strides, strict=True) if s], strict=True)
            if (cards, strides) not in patterns:
                patterns[cards, strides] = offsets_of(cards, strides)
            local.append(patterns[cards, strides])
        tables = np.repeat(np.array([e.table for e, _ in inputs], np.int64), [len(part) for part in local])
        return tables, np.concatenate([np.zeros(0, np.int64), *local])


def program_of(handle: str) -> Program:
    """The program with this handle, as long as someone holds it."""
    return _programs[handle]


def offsets_of(cards: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """``Σ stride · label`` for every joint label, the last node's label running fastest."""
    out = np.zeros(1, np.int64)
    for card, stride in zip(cards, strides, strict=True):
        out = (out[:, None] + np.arange(card, dtype=np.int64) * stride).reshape(-1)
    return out
