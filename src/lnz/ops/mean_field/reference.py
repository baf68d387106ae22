"""Naive mean field: the best product distribution q(y) = Π_i q_i(y_i) and its lower bound on ln Z.

For every q (Jensen; Wainwright & Jordan 2008, §5)::

    ln Z ≥ F(q) = Σ_f E_q[s_f] + Σ_i H(q_i)
    argmax of F over q_i alone:  q_i(x) ∝ exp field_i(x),   field_i(x) = Σ_(f∋i) E_q[s_f | x_i = x]

Where factors of several nodes hold −inf, an update is the limit of that for scores −M, M → ∞: among the labels of least
expected number of violated factors, the softmax of the fields without them. From a q without violations it is the plain
update, and keeps q so: expectations never multiply 0 by −inf. All is plain torch and differentiable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from lnz.graphs import FactorGraph
from lnz.ops.belief.exponential import through
from lnz.ops.belief.reference import Passing, all_but_one, along, length, shifted
from lnz.ops.belief.wiring import Step
from lnz.ops.conditionals.sites import wiring_of
from lnz.scores import Model


def _sum(x: Tensor, dims: list[int]) -> Tensor:
    return x.sum(dims, keepdim=True)


class Expectation(Passing):
    """Expected scores of factors given the label of one node, the others distributed as q ``[*batch, N, L]``.

    Args:
        model: the scores.
        violations: expect the number of −inf scores instead of the score, with −inf for 0.
    """

    def __init__(self, model: Model, *, violations: bool = False) -> None:
        super().__init__(model, _sum)
        self.violations = violations
        self.constrained = model.constrained
        """Whether factors of several nodes hold −inf."""

    def tables(self, group: int, factors: Tensor | None = None) -> Iterator[tuple[slice | Tensor, Tensor]]:
        for piece, table in super().tables(group, factors):
            yield piece, self._read(table)

    def _read(self, table: Tensor) -> Tensor:
        if not self.constrained:
            return table
        impossible = torch.isneginf(table)
        return impossible.to(self.dtype) if self.violations else table.masked_fill(impossible, 0.0)

    def incoming(self, group: int, piece: slice | Tensor, sent: Tensor) -> list[Tensor]:
        return [
            sent[..., self.wiring.slot_node[shifted(piece, self.wiring.slice(group, position).start)], :card]
            for position, card in enumerate(self.wiring.labels[group])
        ]

    def outgoing(self, table: Tensor, incoming: list[Tensor], positions: tuple[int, ...]) -> dict[int, Tensor]:
        if len(incoming) == 2:
            return {position: through(table, incoming[1 - position], position) for position in positions}
        return all_but_one(table, incoming, positions, torch.mul, _sum)

    def expected(self, q: Tensor, step: Step) -> Tensor:
        """Sums over the factors of a step, ``[*batch, N, L]``."""
        L = self.wiring.max_cardinality
        total = torch.zeros(*self.batch, self.wiring.num_nodes, L, dtype=self.dtype, device=q.device)
        for targets in step.targets:
            for slots, new in self.factors(targets, q):
                padded = pad(new, (0, L - new.shape[-1])).expand(*self.batch, -1, L)
                total = total.index_add(-2, self.wiring.slot_node[slots], padded)
        return total


@dataclass(frozen=True)
class Block:
    """Nodes that are updated together, ``int64 [n]``, and the factors that tell them their fields."""

    nodes: Tensor
    step: Step


class MeanField:
    """The updates and the bound for one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.finite = Expectation(model)
        self.wiring = self.finite.wiring
        self.violations = Expectation(model, violations=True) if self.finite.constrained else None
        self.unary = self._unary()

    def _unary(self) -> Tensor:
        """The scores of single nodes, ``[*batch, N, L]``; −inf at labels that a node does not have or may not take."""
        prior, L = self.finite.prior, self.wiring.max_cardinality
        total = prior.expand(*self.finite.batch, *prior.shape[-2:])
        for group, labels in enumerate(self.wiring.labels):
            if len(labels) == 1:
                nodes = self.wiring.slot_node[self.wiring.slice(group, 0)]
                scores = self.model.expanded(group).to(self.finite.dtype)
                total = total.index_add(-2, nodes, pad(scores, (0, L - labels[0])))
        return total

    def start(self, noise: Tensor | None = None) -> Tensor:
        """Each node by its own scores, plus ``noise`` ``[*batch, N, L]``."""
        return self.chosen(self.unary if noise is None else self.unary + noise, None)

    def chosen(self, field: Tensor, violated: Tensor | None) -> Tensor:
        """q of some nodes from their fields and expected violations, both ``[*batch, n, L]``; uniform if all −inf."""
        if violated is not None:
            open_ = ~torch.isneginf(field)
            least = violated.masked_fill(~open_, torch.inf).amin(-1, keepdim=True)
            field = field.masked_fill(violated > least * (1 + 1e-9), -torch.inf)
        field = field.masked_fill(torch.isneginf(field).all(-1, keepdim=True), 0.0)
        q = field.softmax(-1)
        if violated is not None:  # probabilities too small to matter would still be violations
            q = q.masked_fill(q < torch.finfo(q.dtype).eps ** 2, 0.0)
        return q

    def updated(self, q: Tensor, block: Block, damping: float = 0.0, *, harden: bool = False) -> Tensor:
        """q with a block of nodes updated, all given the others; ``harden``: to the best label each."""
        field = (self.unary + self.finite.expected(q, block.step))[..., block.nodes, :]
        violated = None
        if self.violations is not None:
            violated = self.violations.expected(q, block.step)[..., block.nodes, :]
        new = self.chosen(field, violated)
        if harden:
            new = torch.nn.functional.one_hot(new.argmax(-1), new.shape[-1]).to(new.dtype)
        if damping:
            mixed = (1 - damping) * new.log() + damping * q[..., block.nodes, :].log()
            none = torch.isneginf(mixed).all(-1, keepdim=True)  # what was is ruled out now
            new = torch.where(none, new, mixed.masked_fill(none, 0.0).softmax(-1))
        return q.index_copy(-2, block.nodes, new)

    def swept(self, q: Tensor, parallel: bool, damping: float) -> Tensor:
        """q after one iteration: every node once, all at once or (not ``parallel``) each given the others."""
        for block in blocks(self, parallel):
            q = self.updated(q, block, damping)
        return q

    def iterated(self, q: Tensor, limit: int, tolerance: float, damping: float, parallel: bool) -> tuple[Tensor, ...]:
        """q, iterations and residual from a start, each until it changes by no more than ``tolerance``."""
        batch = self.finite.batch
        iterations = torch.zeros(batch, dtype=torch.int64, device=q.device)
        residual = torch.full(batch, torch.inf, dtype=q.dtype, device=q.device)
        for _ in range(limit):
            active = residual > tolerance if tolerance else torch.ones_like(residual, dtype=torch.bool)
            if not active.any():
                break
            new = self.swept(q, parallel, damping)
            residual = torch.where(active, (new - q).abs().flatten(-2).amax(-1) if q[..., 0].numel() else 0.0, residual)
            q = torch.where(active[..., None, None], new, q)
            iterations += active
        return q, iterations, residual

    def bound(self, q: Tensor) -> Tensor:
        """F(q) ``[*batch]``, −inf where q gives an impossible labelling positive probability."""
        support = (q > 0).to(q.dtype)
        unary = self.unary.masked_fill(q == 0, 0.0)
        total = (q * unary - torch.xlogy(q, q)).flatten(-2).sum(-1, dtype=torch.float64)
        for group, labels in enumerate(self.wiring.labels):
            if len(labels) == 1:
                continue
            for piece, table, incoming in self.finite.chunks(group, q):
                inner = table
                if labels:
                    inner = (self.finite.outgoing(table, incoming, (0,))[0] * incoming[0]).sum(-1)
                total = total + inner.expand(*self.finite.batch, length(piece)).sum(-1, dtype=torch.float64)
            if self.violations is not None and labels:
                for _, table, incoming in self.violations.chunks(group, support):
                    met = (self.violations.outgoing(table, incoming, (0,))[0] * incoming[0]).flatten(-2).sum(-1)
                    total = total.masked_fill(met > 0, -torch.inf)
        constants = [self.model.expanded(g) for g, labels in enumerate(self.wiring.labels) if not labels]
        for constant in constants:
            total = total.masked_fill(torch.isneginf(constant).any(-1), -torch.inf)
        return total


def product(table: Tensor, incoming: list[Tensor]) -> Tensor:
    """The probabilities of the joint labels of factors under q, ``[*batch, c, L1, …, Lk]``."""
    joint = torch.ones_like(table)
    for position, single in enumerate(incoming):
        joint = joint * along(single, position, len(incoming))
    return joint


_blocks: WeakKeyDictionary[FactorGraph, dict[tuple[bool, torch.device], tuple[Block, ...]]] = WeakKeyDictionary()


def blocks(mean_field: MeanField, parallel: bool) -> tuple[Block, ...]:
    """All nodes at once, or one colour after the other.

    No factor holds two nodes of a colour, so that updating them together is updating them one by one.
    """
    wiring, graph = mean_field.wiring, mean_field.model.graph
    known = _blocks.setdefault(graph, {})
    if (parallel, wiring.device) not in known:
        if parallel:
            found = [Block(torch.arange(graph.num_nodes, device=wiring.device), wiring.flooding)]
        else:
            found = [Block(nodes.to(wiring.device), wiring.incident(nodes)) for nodes in wiring_of(graph).colours()]
        known[parallel, wiring.device] = tuple(found)
    return known[parallel, wiring.device]
