"""The score of every label of one node per chain, a different one in each."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.sites import wiring_of
from lnz.scores import Entry, Model, Weighted


def label_scores_of_one(model: Model, labels: Tensor, nodes: Tensor) -> Tensor:
    """As :func:`~lnz.ops.conditionals.reference.label_scores`, of node ``nodes[c]`` in each chain c alone.

    Args:
        model: whose batch shape is the last dimensions of ``nodes``, or broadcasts to them.
        labels: ``int64 [*lead, N]`` of labels in range.
        nodes: ``int64 [*lead]``.

    Returns:
        ``[*lead, L]``, at least float32; −inf beyond a node's own cardinality. O(degree · L) per chain.
    """
    graph, device, L = model.graph, labels.device, model.graph.max_cardinality
    lead = nodes.shape
    y = labels.reshape(-1, labels.shape[-1])
    cards = torch.tensor(graph.cardinalities, device=device)[nodes.flatten(), None]
    dtype = torch.promote_types(model.dtype, torch.float32)
    total = torch.zeros(len(y), L, dtype=dtype, device=device)
    total = total.masked_fill(torch.arange(L, device=device) >= cards, -torch.inf)
    for part in wiring_of(graph).sites(nodes.flatten().cpu(), device).parts:
        chain, sizes = part.slots, graph.labels[part.group]
        batch = [axis[chain, None] for axis in _positions(lead, len(model.batch_shape), device)]
        scope = graph.scopes[part.group].to(device)[part.factors]
        joint = [y[chain, scope[:, i]][:, None] for i in range(len(sizes))]
        joint[part.position] = torch.arange(sizes[part.position], device=device)[None]
        scores = _entries(model, model.entries[part.group], batch, part.factors[:, None], joint).to(dtype)
        total[:, : scores.shape[-1]].index_add_(0, chain, scores)
    return total.reshape(*lead, L)


def _positions(lead: torch.Size, batch_dims: int, device: torch.device) -> list[Tensor]:
    """For each chain, counted flat, where it is along each of the batch dimensions, the last ones of ``lead``."""
    flat = torch.arange(lead.numel(), device=device)
    return list(torch.unravel_index(flat, lead)[len(lead) - batch_dims :]) if batch_dims else []


def _entries(model: Model, entry: Entry, batch: list[Tensor], factor: Tensor, joint: list[Tensor]) -> Tensor:
    if isinstance(entry, Weighted):
        weight = entry.weight.expand(*model.batch_shape, -1)
        weight = weight[(*batch, factor if weight.shape[-1] > 1 else torch.zeros_like(factor))]
        table = entry.table[tuple(joint)]
        impossible = torch.isneginf(table)
        return (weight * table.masked_fill(impossible, 0.0)).masked_fill(impossible, -torch.inf)
    if entry.dim() == len(joint):
        return entry[tuple(joint)].expand(len(factor), -1)
    scores = entry.expand(*model.batch_shape, *entry.shape[entry.dim() - len(joint) - 1 :])
    return scores[(*batch, factor if entry.shape[-len(joint) - 1] > 1 else torch.zeros_like(factor), *joint)]
