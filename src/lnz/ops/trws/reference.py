"""Sequential tree-reweighted message passing, as the papers write it; plain torch, any device and dtype.

Kolmogorov, "Convergent tree-reweighted message passing for energy minimization" (2006), in the form that takes factors
of any size (Kolmogorov, "A new look at reweighted message passing", 2015), for maximisation. A node n *lends* part of
its scores to the tables of its factors: ``lent[α, n]`` moves from n to α, which changes no labelling's score, so that

    max_y s(y) ≤ Σ_n max_x (s_n − Σ_α lent[α, n])(x) + Σ_α max (s_α + Σ_n lent[α, n])

whatever was lent. Visits to the nodes in order, and in reverse, never make that bound worse: a visit takes back from
each factor the most that it offers per label, and lends equal shares of the sum to the factors of nodes yet to come.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.scores import Model
from lnz.typing import IGNORE


@dataclass(frozen=True, eq=False)
class Factor:
    """A factor of two nodes or more: its nodes in the order of visits, and its table ``[*batch, L1, …, Lk]``."""

    nodes: tuple[int, ...]
    table: Tensor


class Messages:
    """Scores in float64 at least, the factors at each node, and what has been lent so far (nothing)."""

    def __init__(self, model: Model, rank: Tensor) -> None:
        self.model = model
        dtype = torch.promote_types(model.dtype, torch.float64)
        self.constant = torch.zeros(model.batch_shape, dtype=dtype, device=model.device)
        self.nodes = [
            torch.zeros(*model.batch_shape, card, dtype=dtype, device=model.device)
            for card in model.graph.cardinalities
        ]
        self.factors: list[Factor] = []
        for group, scope in enumerate(model.graph.scopes):
            for f, nodes in enumerate(scope.tolist()):
                self._add(nodes, model.expanded(group)[(..., f, *(slice(None),) * len(nodes))].to(dtype), rank)
        if model.observed is not None:
            for node, scores in enumerate(self.nodes):
                seen = model.observed[..., node, None]
                ruled_out = (seen != IGNORE) & (seen != torch.arange(scores.shape[-1], device=seen.device))
                self.nodes[node] = scores.masked_fill(ruled_out, -torch.inf)
        self.at = [[a for a, factor in enumerate(self.factors) if n in factor.nodes] for n in range(len(self.nodes))]
        self.lent = {(a, n): torch.zeros_like(self.nodes[n]) for a, fac in enumerate(self.factors) for n in fac.nodes}

    def _add(self, nodes: list[int], table: Tensor, rank: Tensor) -> None:
        if not nodes:
            self.constant = self.constant + table
        elif len(nodes) == 1:
            self.nodes[nodes[0]] = self.nodes[nodes[0]] + table
        else:
            lead = table.dim() - len(nodes)
            axes = sorted(range(len(nodes)), key=lambda position: int(rank[nodes[position]]))
            table = table.permute(*range(lead), *(lead + axis for axis in axes))
            self.factors.append(Factor(tuple(nodes[axis] for axis in axes), table))

    def offered(self, a: int, node: int, fixed: dict[int, Tensor] | None = None) -> Tensor:
        """Per label of ``node``, the most of factor ``a`` with what its other nodes lent; some held at a label."""
        nodes, table = self.factors[a].nodes, self.factors[a].table
        lead = table.dim() - len(nodes)
        others = []
        for axis, other in enumerate(nodes, start=lead):
            if other == node:
                continue
            others.append(axis)
            labels = torch.arange(table.shape[axis], device=table.device)
            if fixed is not None and other in fixed:
                extra = torch.where(labels == fixed[other][..., None], 0.0, -torch.inf)
            else:
                extra = self.lent[a, other]
            shape = [-1 if x == axis else 1 for x in range(lead, table.dim())]
            table = table + extra.reshape(*extra.shape[:lead], *shape)
        return table.amax(others)

    def sweep(self, order: list[int], *, forward: bool) -> tuple[Tensor, Tensor]:
        """One visit to every node in ``order``: the bound ``[*batch]`` and a labelling ``int64 [*batch, N]``."""
        bound = self.constant
        chosen: dict[int, Tensor] = {}
        for node in order:
            belief = choice = self.nodes[node]
            arriving, leaving = 0, []
            for a in self.at[node]:
                nodes = self.factors[a].nodes if forward else self.factors[a].nodes[::-1]
                if nodes[-1] != node:
                    leaving.append(a)
                if nodes[0] != node:
                    arriving += 1
                    self.lent[a, node] = _minus(self.offered(a, node))
                    choice = choice + self.offered(a, node, chosen)
                else:
                    choice = choice + _minus(self.lent[a, node])
                belief = belief + _minus(self.lent[a, node])
            top = belief.amax(-1, keepdim=True)
            bound = bound + top.squeeze(-1)
            dead_end = torch.isneginf(choice).all(-1, keepdim=True)
            chosen[node] = torch.where(dead_end, belief, choice).argmax(-1)
            for a in leaving:
                surplus = belief - top.masked_fill(torch.isneginf(top), 0.0)
                self.lent[a, node] = self.lent[a, node] + surplus / max(arriving, len(leaving))
        empty = torch.zeros(*self.model.batch_shape, 0, dtype=torch.int64, device=self.model.device)
        columns = [chosen[node][..., None] for node in range(len(self.nodes))]
        return bound, torch.cat([empty, *columns], -1)


def _minus(x: Tensor) -> Tensor:
    """−x, and −inf where x is −inf."""
    return (-x).masked_fill(torch.isneginf(x), -torch.inf)
