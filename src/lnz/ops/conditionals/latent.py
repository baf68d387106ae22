"""Conditionals of every node given the *observed* others, where the latent ones can be summed out one by one.

With no two latent nodes in one factor, the latent nodes h are independent given the rest, and

    Σ_z exp s(y, z) = exp(Σ_{α without h} s[α, y[α]]) · Π_h Σ_z exp Σ_{α ∋ h} s[α, (y, z)[α]],

so that label l of node i scores i's factors without latent nodes, plus ln Σ_z exp … of each latent neighbour at
y_i = l. This is the bipartite case: the visible units of a restricted Boltzmann machine, say. Where latent nodes share
a factor the sum couples them, and takes inference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import pad

from lnz.checks import broadcast_shapes
from lnz.graphs import FactorGraph
from lnz.ops.conditionals.reference import entries_at, part_scores
from lnz.ops.conditionals.sites import all_sites
from lnz.scores import Model
from lnz.semirings import Log
from lnz.typing import IGNORE


def latent_label_scores(model: Model, labels: Tensor) -> Tensor:
    """As :func:`~lnz.ops.conditionals.reference.label_scores` of all nodes, with latent nodes summed out.

    O(Σ_g F_g k_g² L²) time and memory per batch entry. Differentiable any number of times.

    Args:
        model: any factor graph. What was observed plays no part.
        labels: ``int64 [*batch, N]``, −100 at the latent nodes, which may differ between batch entries.

    Returns:
        ``[*batch, N, L]``, at least float32; −inf beyond a node's own cardinality.

    Raises:
        ValueError: two latent nodes in one factor.
    """
    graph, latent = model.graph, labels == IGNORE
    shared = shared_factor(graph, latent)
    if shared is not None:
        group, factor = shared
        nodes = graph.scopes[group][factor].tolist()
        raise ValueError(
            f"y: expected no two latent (-100) nodes in one factor, got nodes {nodes} of factor {factor} of group "
            f"{group}: their conditionals take a sum over both; "
            "use nll or contrastive_divergence, which serve any set of latent nodes"
        )
    lead = broadcast_shapes(labels.shape[:-1], model.batch_shape)
    y, latent = labels.clamp(min=0).expand(*lead, -1), latent.expand(*lead, -1)
    dtype = torch.promote_types(model.dtype, torch.float32)
    # Scores are summed in two parts, the finite ones and how many are −inf, so that a neighbour's can be taken out
    # again. The rows of observed nodes leave out the factors that hold a latent node: those come in through it.
    finite = torch.zeros(*lead, graph.num_nodes, graph.max_cardinality, dtype=dtype, device=y.device)
    blocked = torch.zeros_like(finite)
    for part in all_sites(graph, y.device).parts:
        scores = part_scores(model, y, part).to(dtype)
        scores = pad(scores, (0, graph.max_cardinality - scores.shape[-1])).expand(*lead, -1, -1)
        around = latent[..., graph.scopes[part.group].to(y.device)[part.factors]].any(-1)
        left_out = (around & ~latent[..., part.slots]).unsqueeze(-1)
        impossible = torch.isneginf(scores)
        finite = finite.index_add(-2, part.slots, scores.masked_fill(impossible | left_out, 0.0))
        blocked = blocked.index_add(-2, part.slots, (impossible & ~left_out).to(dtype))
    cards = torch.tensor(graph.cardinalities, device=y.device)
    beyond = torch.arange(graph.max_cardinality, device=y.device) >= cards[:, None]
    total = finite.masked_fill((blocked > 0) | beyond, -torch.inf)

    pairs = _pairs(graph).to(y.device)
    active = latent[..., pairs[:, 1]] & ~latent[..., pairs[:, 0]]
    kept = active.flatten(0, -2).any(0) if lead else active  # an observed and a latent node in some batch entry
    i, h = pairs[kept].unbind(-1)
    joint, count = _pair_scores(model, y, kept, finite)
    own = y[..., i, None, None].expand(*lead, -1, 1, graph.max_cardinality)
    without = finite[..., h, :].unsqueeze(-2) - joint.gather(-2, own)
    zeros = blocked[..., h, :].unsqueeze(-2) - count.gather(-2, own)
    table = (without + joint).masked_fill((zeros + count > 0) | beyond[h].unsqueeze(-2), -torch.inf)
    summed = Log().plus(table, -1).masked_fill(~active[..., kept].unsqueeze(-1), 0.0)
    return total.index_add(-2, i, summed)


def _pair_scores(model: Model, y: Tensor, kept: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Per kept pair (i, h), what their common factors score under each pair of labels: ``[*batch, P, L, L]``.

    In two parts, the finite scores and how many are −inf; L and dtype as those of ``like``.
    """
    graph, L = model.graph, like.shape[-1]
    finite = like.new_zeros(*y.shape[:-1], int(kept.sum()), L, L)
    count = torch.zeros_like(finite)
    place = kept.cumsum(0) - 1
    for part in _pair_parts(graph):
        chosen = kept[part.pair.to(y.device)].nonzero().flatten()
        sizes = graph.labels[part.group]
        strides = [math.prod(sizes[position + 1 :]) for position in range(len(sizes))]
        scope = graph.scopes[part.group].to(y.device)[chosen]
        index = torch.zeros_like(chosen)
        for position, stride in enumerate(strides):
            if position not in (part.a, part.b):
                index = index + stride * y[..., scope[:, position]]
        rows = strides[part.a] * torch.arange(sizes[part.a], device=y.device)
        columns = strides[part.b] * torch.arange(sizes[part.b], device=y.device)
        index = index[..., None] + (rows[:, None] + columns).flatten()
        scores = entries_at(model.entries[part.group], len(sizes), chosen, index).to(like.dtype)
        scores = scores.unflatten(-1, (sizes[part.a], sizes[part.b]))
        scores = pad(scores, (0, L - scores.shape[-1], 0, L - scores.shape[-2])).expand(*y.shape[:-1], -1, -1, -1)
        impossible = torch.isneginf(scores)
        at = place[part.pair.to(y.device)[chosen]]
        finite = finite.index_add(-3, at, scores.masked_fill(impossible, 0.0))
        count = count.index_add(-3, at, impossible.to(like.dtype))
    return finite, count


@dataclass(frozen=True)
class _PairPart:
    """For each factor of a group, which pair its nodes at positions ``a`` and ``b`` are: ``int64 [F]``."""

    group: int
    a: int
    b: int
    pair: Tensor


_incidences: WeakKeyDictionary[FactorGraph, tuple[Tensor, tuple[_PairPart, ...]]] = WeakKeyDictionary()


def _pairs(graph: FactorGraph) -> Tensor:
    """The ordered pairs of distinct nodes that share a factor, ``int64 [P, 2]``."""
    return _incidence(graph)[0]


def _pair_parts(graph: FactorGraph) -> tuple[_PairPart, ...]:
    """Where the pairs are found in the factors."""
    return _incidence(graph)[1]


def _incidence(graph: FactorGraph) -> tuple[Tensor, tuple[_PairPart, ...]]:
    if graph not in _incidences:
        N = max(1, graph.num_nodes)
        places = [
            (group, a, b)
            for group, scope in enumerate(graph.scopes)
            for a in range(scope.shape[1])
            for b in range(scope.shape[1])
            if a != b
        ]
        codes = [graph.scopes[group][:, a] * N + graph.scopes[group][:, b] for group, a, b in places]
        every = torch.cat([torch.zeros(0, dtype=torch.int64), *codes])
        unique, inverse = every.unique(return_inverse=True)
        parts = zip(places, inverse.split([len(code) for code in codes]), strict=True) if codes else ()
        pairs = torch.stack((unique // N, unique % N), -1)
        _incidences[graph] = pairs, tuple(_PairPart(*place, pair) for place, pair in parts)
    return _incidences[graph]


def shared_factor(graph: FactorGraph, latent: Tensor) -> tuple[int, int] | None:
    """A group and a factor of it that holds two latent nodes of one entry of ``latent`` ``[*batch, N]``, if any."""
    anywhere = latent.reshape(-1, graph.num_nodes).any(0)  # O(F) where this rules it out, O(batch · F) elsewhere
    for group, nodes in enumerate(graph.scopes):
        scope = nodes.to(latent.device)
        candidates = (anywhere[scope].sum(-1) > 1).nonzero().flatten()
        if len(candidates):
            together = latent[..., scope[candidates]].sum(-1) > 1
            if together.any():
                return group, int(candidates[together.nonzero()[0, -1]])
    return None
