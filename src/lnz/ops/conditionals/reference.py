"""The score of every label of some nodes while all other nodes keep theirs: s(y with y_n = l), up to a constant.

By the factors around each node, so O(degree · L) per node; compact score entries are read where they lie.
Differentiable in the scores. Since s is linear in the one-hot form of each single node, this is also its gradient
there, and differences between labels are exact differences of s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes
from lnz.ops.conditionals.sites import Part, Sites, all_sites
from lnz.scores import Entry, Model, Weighted


def label_scores(model: Model, labels: Tensor, sites: Sites | None = None) -> Tensor:
    """Per node of ``sites`` (all N of them if ``None``) and label, the sum of the factors around the node.

    Args:
        model: whose batch shape broadcasts with that of ``labels``. What was observed is ignored.
        labels: ``int64 [*lead, N]`` of labels in range.
        sites: M nodes.

    Returns:
        ``[*lead, M, L]``, at least float32; −inf beyond a node's own cardinality.
    """
    graph, device = model.graph, labels.device
    sites = all_sites(graph, device) if sites is None else sites
    lead = broadcast_shapes(labels.shape[:-1], model.batch_shape)
    dtype = torch.promote_types(model.dtype, torch.float32)
    total = torch.zeros(*lead, len(sites.nodes), graph.max_cardinality, dtype=dtype, device=device)
    if graph.uniform_cardinality is None:
        cards = torch.tensor(graph.cardinalities, device=device)[sites.nodes, None]
        total = total.masked_fill(torch.arange(graph.max_cardinality, device=device) >= cards, -torch.inf)
    for part in sites.parts:
        scores = part_scores(model, labels, part).to(dtype)
        short = graph.max_cardinality - scores.shape[-1]
        scores = torch.nn.functional.pad(scores, (0, short)) if short else scores
        total = total.index_add(-2, part.slots, scores.expand(*lead, *scores.shape[-2:]))
    return total


def part_scores(model: Model, labels: Tensor, part: Part) -> Tensor:
    """Per factor, its score by the label of its node at one position, the others of its scope as in ``labels``.

    Returns:
        ``[*lead, P, L_k]``, or a shape that broadcasts to it.
    """
    entry, sizes = model.entries[part.group], model.graph.labels[part.group]
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    scope = model.graph.scopes[part.group].to(labels.device)[part.factors]
    others = [i for i in range(len(sizes)) if i != part.position]
    start = sum((labels[..., scope[:, i]] * strides[i] for i in others), torch.zeros_like(part.factors))
    own = torch.arange(sizes[part.position], device=labels.device) * strides[part.position]
    return entries_at(entry, len(sizes), part.factors, start[..., None] + own)


def entries_at(entry: Entry, arity: int, factors: Tensor, index: Tensor) -> Tensor:
    """Scores of ``factors [P]`` at positions ``index [*lead, P, m]`` of their flattened tables; like ``index``."""
    if isinstance(entry, Weighted):
        weight = entry.weight if entry.weight.shape[-1] == 1 else entry.weight[..., factors]
        table = entry.table.reshape(-1).index_select(0, index.flatten()).reshape(index.shape)
        impossible = torch.isneginf(table)
        product = weight[..., None] * table.masked_fill(impossible, 0.0)
        return product.masked_fill(impossible, -torch.inf)
    if entry.dim() == arity:
        return entry.reshape(-1).index_select(0, index.flatten()).reshape(index.shape)  # faster than [index], and back
    size = math.prod(entry.shape[entry.dim() - arity :])
    if entry.shape[-arity - 1] > 1:
        index = index + factors[:, None] * size
    flat = entry.flatten(-arity - 1)
    lead = broadcast_shapes(flat.shape[:-1], index.shape[:-2])
    return flat.expand(*lead, -1).gather(-1, index.expand(*lead, -1, -1).flatten(-2)).unflatten(-1, index.shape[-2:])
