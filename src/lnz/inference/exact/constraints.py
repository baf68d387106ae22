"""A part of a model that holds its hard constraints and can be sampled from exactly: where chains may start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.errors import IntractableError
from lnz.graphs import FactorGraph
from lnz.inference.base import Solution
from lnz.inference.exact.exact import Exact
from lnz.ops.conditionals.alone import node_scores
from lnz.ops.conditionals.random import categorical
from lnz.scores import Entry, Model, Weighted
from lnz.typing import IGNORE

MAX_TABLE = 2**20
"""The largest table of elimination, in entries."""


@dataclass(frozen=True, eq=False)
class Start:
    """A part of a model and the rest of its factors.

    Attributes:
        model: all of it.
        part: per group, which factors are in the part, ``bool [F]``.
        rest: the other factors; nothing is observed there.
        solution: the part, solved exactly; ``None`` where it is factors of one node.
    """

    model: Model
    part: tuple[Tensor, ...]
    rest: Model
    solution: Solution | None

    @property
    def log_partition(self) -> Tensor:
        """ln Z of the part, ``[*batch]``, at least float32; −inf proves that no labelling of the model is possible."""
        if self.solution is None:
            return node_scores(self.model).logsumexp(-1).sum(-1)
        value = self.solution.log_partition
        return value.to(torch.promote_types(value.dtype, torch.float32))

    @property
    def complete(self) -> bool:
        """Whether the part is the whole model."""
        return not any(self.rest.graph.num_factors)

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n labellings from the part, ``int64 [n, *batch, N]``; any where none is possible."""
        if self.solution is None:
            alone = node_scores(self.model)
            return categorical(alone.expand(n, *alone.shape), generator)
        return self.solution.sample(n, generator)

    def annealed(self, beta: float) -> Model:
        """The model with the scores of the rest multiplied by β > 0."""
        if beta == 1:
            return self.model
        groups = zip(self.model.entries, self.part, self.model.graph.labels, strict=True)
        return self.model.with_entries(tuple(_scaled(entry, part, len(ls), beta) for entry, part, ls in groups))


def starting_part(model: Model) -> Start:
    """The factors of one node; where others hold −inf, also these, or a forest of them where all are too many, and of
    the rest as many as close no cycle.
    """
    alone = tuple(torch.full((f,), len(ls) == 1) for f, ls in _groups(model))
    if not model.constrained:
        return Start(model, alone, _restricted(model, tuple(~kept for kept in alone)), None)
    hard = tuple(_holds_impossible(entry, *group) for entry, group in zip(model.entries, _groups(model), strict=True))
    for kept in (_either(alone, hard), alone):
        part = _with_forest(model, _with_forest(model, kept, hard), tuple(torch.ones_like(some) for some in kept))
        try:
            solution = Exact(max_table=MAX_TABLE).solve(_restricted(model, part, observed=True))
        except IntractableError:
            continue
        return Start(model, part, _restricted(model, tuple(~kept for kept in part)), solution)
    raise AssertionError("elimination on a forest needs no table larger than a factor's")


def contradicted(model: Model) -> Tensor:
    """Where a node or factor alone shows that no labelling is possible, ``bool [*batch]``; O(Σ_f Π L) memory."""
    hopeless = torch.isneginf(node_scores(model)).all(-1).any(-1)
    for group, (scope, labels) in enumerate(zip(model.graph.scopes, model.graph.labels, strict=True)):
        possible = ~torch.isneginf(model.expanded(group))
        for axis, (nodes, size) in enumerate(zip(scope.unbind(-1), labels, strict=True)):
            if model.observed is not None:
                seen = model.observed[..., nodes.to(model.observed.device)]
                agrees = (seen == IGNORE)[..., None] | (seen[..., None] == torch.arange(size, device=seen.device))
                possible &= agrees.reshape(*seen.shape, *(size if axis == k else 1 for k in range(len(labels))))
        hopeless = hopeless | ~possible.unsqueeze(-1).flatten(len(model.batch_shape) + 1).any(-1).all(-1)
    return hopeless


def _groups(model: Model) -> list[tuple[int, tuple[int, ...]]]:
    """How many factors each group has, and the shape of their tables."""
    return list(zip(model.graph.num_factors, model.graph.labels, strict=True))


def _holds_impossible(entry: Entry, factors: int, labels: tuple[int, ...]) -> Tensor:
    """Which factors of a group have −inf in their table, in any batch entry, ``bool [F]``."""
    table = entry.table if isinstance(entry, Weighted) else entry
    impossible = torch.isneginf(table.detach()).cpu()
    if impossible.dim() <= len(labels):
        return torch.full((factors,), bool(impossible.any()))
    own = impossible.flatten(impossible.dim() - len(labels)).any(-1) if labels else impossible
    return own.reshape(-1, own.shape[-1]).any(0).expand(factors)


def _either(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(a | b for a, b in zip(one, other, strict=True))


def _with_forest(model: Model, part: tuple[Tensor, ...], among: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The ``part`` with as many factors ``among`` others as close no cycle with it, taken in their order."""
    root = list(range(model.graph.num_nodes))

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = node = root[root[node]]
        return node

    def join(trees: list[int]) -> None:
        for tree in trees[1:]:
            root[find(tree)] = find(trees[0])

    for scope, there in zip(model.graph.scopes, part, strict=True):
        for nodes in scope[there].tolist():
            join(nodes)
    grown = []
    for scope, kept, allowed in zip(model.graph.scopes, part, among, strict=True):
        there = kept.clone()
        for factor in (allowed & ~kept).nonzero().flatten().tolist():
            trees = [find(node) for node in scope[factor].tolist()]
            if len(set(trees)) == len(trees):
                there[factor] = True
                join(trees)
        grown.append(there)
    return tuple(grown)


def _restricted(model: Model, kept: tuple[Tensor, ...], *, observed: bool = False) -> Model:
    """The model with some of its factors, ``bool [F]`` per group, and with what it has observed or without."""
    scopes = [scope[keep] for scope, keep in zip(model.graph.scopes, kept, strict=True)]
    entries = tuple(
        _rows(entry, keep, len(labels))
        for entry, keep, labels in zip(model.entries, kept, model.graph.labels, strict=True)
    )
    graph = FactorGraph(model.graph.cardinalities, scopes)
    return Model(graph, entries, model.observed if observed else None).expand(model.batch_shape)


def _rows(entry: Entry, keep: Tensor, arity: int) -> Entry:
    """The scores of some factors, in the form in which they are given."""
    if isinstance(entry, Weighted):
        weight = entry.weight
        return Weighted(weight if weight.shape[-1] == 1 else weight[..., keep.to(weight.device)], entry.table)
    axis = entry.dim() - arity - 1
    if axis < 0 or entry.shape[axis] == 1:
        return entry
    return entry.index_select(axis, keep.nonzero().flatten().to(entry.device))


def _scaled(entry: Entry, part: Tensor, arity: int, beta: float) -> Entry:
    """The scores of a group, multiplied by β where factors are not in the ``part``, ``bool [F]``."""
    if part.all():
        return entry
    if not part.any():
        return Weighted(entry.weight, beta * entry.table) if isinstance(entry, Weighted) else beta * entry
    table = entry.table if isinstance(entry, Weighted) else entry
    scale = torch.where(part, 1.0, beta).to(table)
    if isinstance(entry, Weighted):
        return Weighted(entry.weight * scale, table)
    return Weighted(scale, table) if table.dim() == arity else table * scale.reshape(-1, *(1,) * arity)
