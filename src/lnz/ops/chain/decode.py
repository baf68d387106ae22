"""Best labellings, samples and max-marginals of linear chains.

One forward recursion and one walk back along it, which chooses the last label, then each label given the next one: the
r-th best way to reach it (Viterbi 1967, and its k-best form), or one drawn in proportion to its weight (forward
filtering, backward sampling). Shapes as in :mod:`lnz.ops.chain.reference`. O(B T L²) time; for the k best O(B T k L)
more where the kernels do, times k (log k) elsewhere.

``lnz::chain_topk`` and ``lnz::chain_sample`` are what is traced and vectorised; they have no gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops import unobserved, use_kernels
from lnz.ops.chain import best, kernel, reference
from lnz.ops.chain.op import _entries
from lnz.ops.chain.reference import accumulator, forward, table
from lnz.ops.choices import ranked
from lnz.ops.vmapped import folded
from lnz.semirings import KMax
from lnz.typing import IGNORE


def topk(node: Tensor, edge: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best labellings ``int64 [k, B, T]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf."""
    return (_topk_now if unobserved(node, edge, lengths) else _topk)(node.detach(), edge.detach(), lengths, k)


def _topk_now(node: Tensor, edge: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if use_kernels(node, edge) and node.numel():
        if k == 1:
            labels, scores = (x.unsqueeze(0) for x in kernel.viterbi(node, edge, lengths))
        else:
            labels, scores = best.topk(node, edge, lengths, k)
        return labels, scores.to(node.dtype)
    rank = torch.arange(k, device=node.device)[:, None].repeat(1, len(node))
    wide = accumulator(node)
    labels, scores = _walk(forward(KMax(k), node.to(wide), edge.to(wide)), edge, lengths, rank)
    scores = torch.where(lengths == 0, torch.where(rank == 0, 0.0, -torch.inf), scores)
    return labels.masked_fill(torch.isneginf(scores)[..., None], IGNORE), scores.to(node.dtype)


_topk = torch.library.custom_op("lnz::chain_topk", _topk_now, mutates_args=())


@_topk.register_fake
def _(node: Tensor, edge: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    B, T, _ = node.shape
    return lengths.new_empty(k, B, T), node.new_empty(k, B)


@_topk.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
    *chains, k = inputs
    both = _topk(*folded(info.batch_size, in_dims[:3], tuple(chains)), k)
    return tuple(x.unflatten(1, (info.batch_size, -1)) for x in both), (1, 1)


def sample(node: Tensor, edge: Tensor, lengths: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent labellings, n of them, ``int64 [n, B, T]``."""
    shape, wide = (n, *node.shape[:2]), accumulator(node)
    uniform = torch.rand(shape, dtype=wide, device=node.device, generator=generator)
    draw = _sample_now if unobserved(node, edge, lengths, uniform) else _sample
    return draw(node.detach(), edge.detach(), lengths, uniform)


def _sample_now(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> Tensor:
    """By random numbers ``[n, B, T]`` in [0, 1): in the dtype of the scores, in float64, then in logarithms."""
    if not (use_kernels(node, edge) and node.numel()):
        return _drawn(node, edge, lengths, uniform)
    labels, exact = kernel.sample(node, edge, lengths, uniform)
    if not exact.all():
        lost = (~exact).nonzero()[:, 0]
        rest = node[lost].double(), _entries(edge, lost).double(), lengths[lost]
        labels[:, lost], exact[lost] = kernel.sample(*rest, uniform[:, lost].contiguous())
    if not exact.all():
        lost = (~exact).nonzero()[:, 0]
        labels[:, lost] = _drawn(node[lost], _entries(edge, lost), lengths[lost], uniform[:, lost])
    return labels


_sample = torch.library.custom_op("lnz::chain_sample", _sample_now, mutates_args=())


@_sample.register_fake
def _(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> Tensor:
    return lengths.new_empty(uniform.shape)


@_sample.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
    size, at, uniform = info.batch_size, in_dims[3], inputs[3]
    chains = folded(size, in_dims[:3], inputs[:3])
    uniform = uniform.unsqueeze(1).expand(-1, size, -1, -1) if at is None else uniform.movedim(at, 1)
    return _sample(*chains, uniform.flatten(1, 2)).unflatten(1, (size, -1)), 1


def _drawn(node: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> Tensor:
    """Labellings ``int64 [n, B, T]`` by random numbers ``[n, B, T]``: the last by α, then each given the next."""
    wide = accumulator(node)
    alphas, _ = reference.filtered(node.to(wide), edge.to(wide), lengths)
    labels = torch.full(uniform.shape, IGNORE, device=node.device)
    for t in reversed(range(len(alphas))):
        weights = alphas[t]
        if t + 1 < len(alphas):
            weights = weights + _into(edge, t, lengths, labels[..., t + 1])
        chosen = _picked(weights.softmax(-1), uniform[..., t])
        labels[..., t] = torch.where(lengths > t, chosen, IGNORE)
    return labels


def _picked(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first label at which the cumulative sum passes ``uniform`` times the whole; never one of weight 0."""
    sums = weights.cumsum(-1)
    whole = sums[..., -1:]
    return ((sums > uniform.unsqueeze(-1) * whole) | (sums >= whole)).int().argmax(-1)


def max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """As :func:`lnz.ops.chain.reference.max_marginals`, in the dtype of the scores."""
    return _max_marginals(node, edge, lengths, False)


def edge_max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """As :func:`lnz.ops.chain.reference.edge_max_marginals`, in the dtype of the scores."""
    return _max_marginals(node, edge, lengths, True)


def _max_marginals(node: Tensor, edge: Tensor, lengths: Tensor, of_edges: bool) -> Tensor:
    if concrete(node, edge, lengths) and use_kernels(node, edge) and node.numel():
        return best.max_marginals(node, edge, lengths, of_edges)
    wide, of = accumulator(node), reference.edge_max_marginals if of_edges else reference.max_marginals
    return of(node.to(wide), edge.to(wide), lengths).to(node.dtype)


def _walk(alphas: list[Tensor], edge: Tensor, lengths: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """M labellings ``[M, B, T]`` from α_t ``[K, B, L]``, and the scores ``[M, B]`` of the last choices.

    ``rank`` ``[M, B]`` starts as which of the candidates to take for the last label; from there on, it is the place
    among the K ways to reach the chosen label, so that different ranks make different labellings.
    """
    labels = torch.full((*rank.shape, len(alphas)), IGNORE, device=edge.device)
    scores = torch.zeros(rank.shape, dtype=accumulator(edge), device=edge.device)
    for t in reversed(range(len(alphas))):
        candidates = alphas[t].movedim(0, 1).unsqueeze(0).expand(len(rank), -1, -1, -1)  # [M, B, K, L]
        if t + 1 < len(alphas):
            candidates = candidates + _into(edge, t, lengths, labels[..., t + 1]).unsqueeze(-2)
        score, index = ranked(candidates.flatten(-2), rank)
        inside = lengths > t
        size = candidates.shape[-1]
        labels[..., t] = torch.where(inside, index % size, IGNORE)
        rank = torch.where(inside, index // size, rank)
        scores = torch.where(lengths == t + 1, score, scores)
    return labels, scores


def _into(edge: Tensor, t: int, lengths: Tensor, labels: Tensor) -> Tensor:
    """The edge scores from each label at t to ``labels [M, B]`` after it, ``[M, B, L]``; 0 from the last label on."""
    entry = torch.arange(labels.shape[1], device=edge.device)
    into = table(edge, t).expand(len(entry), -1, -1)[entry, :, labels.clamp(min=0)]
    return into.masked_fill((lengths <= t + 1)[:, None], 0.0)
