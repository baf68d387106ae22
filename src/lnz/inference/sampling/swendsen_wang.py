"""Swendsen–Wang: whole clusters of equal labels take a new one together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.ops.conditionals.alone import node_scores
from lnz.ops.conditionals.random import categorical, uniform
from lnz.scores import Entry, Model, Weighted


@dataclass(frozen=True)
class SwendsenWang(Sampler):
    """Swendsen–Wang cluster sampling (1987) of ferromagnetic Potts models with any scores of single nodes.

    Serves models whose factors of two nodes score ``w + c`` where the labels are equal and ``c`` where they are not,
    with w ≥ 0 of each factor's own (+∞ where unequal labels are impossible). A sweep opens each edge between equal
    labels with probability 1 − e^−w, and gives each cluster of nodes joined by open edges a label from the softmax of
    the summed scores of its nodes. O(E + N · L) per chain; fast at and below the critical temperature, where moving
    single nodes is not.

    Raises:
        ValueError: on ``solve`` and ``step``, where the model is not of that kind.
    """

    def transition(self, model: Model) -> Transition:
        edges, weight = potts_weights(model)
        fields = node_scores(model)
        closed = torch.exp(-weight)

        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            labels = chains.labels
            for _ in range(sweeps):
                equal = labels[..., edges[:, 0]] == labels[..., edges[:, 1]]
                opened = equal & (uniform(equal.shape, fields, generator) >= closed)
                cluster = clusters(opened, edges, labels.shape[-1])
                summed = torch.zeros(labels.numel(), fields.shape[-1], dtype=fields.dtype, device=fields.device)
                summed.index_add_(0, cluster.flatten(), fields.expand(*labels.shape, -1).flatten(0, -2))
                labels = categorical(summed, generator)[cluster]
            return Chains(labels, {}, chains.sweeps + sweeps)

        return advance


def clusters(opened: Tensor, edges: Tensor, num_nodes: int) -> Tensor:
    """Which cluster each node of each chain is in, ``int64 [*lead, N]``; numbers below their count over all chains.

    Args:
        opened: ``bool [*lead, E]``.
        edges: ``int64 [E, 2]``.
        num_nodes: N.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    lead = opened.shape[:-1]
    chain, edge = opened.flatten(0, -2).nonzero().cpu().unbind(-1)
    a, b = (edges.cpu()[edge] + (chain * num_nodes)[:, None]).to(torch.int32).unbind(-1)
    total = lead.numel() * num_nodes
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a.numpy(), b.numpy())), shape=(total, total))
    found = connected_components(graph, directed=False)[1]
    return torch.from_numpy(found).long().reshape(*lead, num_nodes).to(opened.device)


def potts_weights(model: Model) -> tuple[Tensor, Tensor]:
    """All edges ``int64 [E, 2]`` and their weights w ``[*batch, E]``, group by group.

    Raises:
        ValueError: a factor of three or more nodes, or one of two that is no ferromagnetic Potts interaction.
    """
    scopes, weights = [torch.zeros(0, 2, dtype=torch.int64)], [torch.zeros(*model.batch_shape, 0, dtype=model.dtype)]
    for group, (entry, labels) in enumerate(zip(model.entries, model.graph.labels, strict=True)):
        if len(labels) > 2:
            raise ValueError(f"SwendsenWang: expected factors of at most two nodes, got {len(labels)} in group {group}")
        if len(labels) == 2 and model.graph.num_factors[group]:
            weight = _potts_weight(entry, labels, group)
            scopes.append(model.graph.scopes[group])
            weights.append(weight.expand(*model.batch_shape, model.graph.num_factors[group]))
    device = model.device
    return torch.cat(scopes).to(device), torch.cat([weight.to(device) for weight in weights], -1)


def _potts_weight(entry: Entry, labels: tuple[int, ...], group: int) -> Tensor:
    """w of each factor, of shape ``[*batch, F]`` or one that broadcasts to it."""
    table = entry.table if isinstance(entry, Weighted) else entry
    if labels[0] != labels[1]:
        raise ValueError(f"SwendsenWang: expected a Potts model, but group {group} joins nodes of {labels} labels")
    if labels[0] == 1:
        return torch.zeros((1,), dtype=table.dtype, device=table.device)
    equal = table.diagonal(dim1=-2, dim2=-1)
    off = ~torch.eye(labels[0], dtype=torch.bool, device=table.device)
    unequal = table[..., off]
    if not (_constant(equal) and _constant(unequal) and torch.isfinite(equal).all()):
        raise ValueError(
            "SwendsenWang: expected a Potts model, whose pairs score one value where labels are equal and another "
            f"where not, but the tables of group {group} differ; use Gibbs()"
        )
    weight = equal[..., 0] - unequal[..., 0]
    if isinstance(entry, Weighted):
        weight = entry.weight * weight
    elif table.dim() == 2:
        weight = weight[None]
    if (weight < 0).any():
        raise ValueError(
            f"SwendsenWang: expected ferromagnetic pairs, which score at least as high where labels are equal, "
            f"but group {group} has a weight of {weight.min().item():.4g}; use Gibbs()"
        )
    return weight


def _constant(values: Tensor) -> bool:
    low, high = values.amin(-1), values.amax(-1)
    close = torch.isfinite(low) & ((high - low) <= 1e-6 * (low.abs() + high.abs()))
    return bool(((low == high) | close).all())
