"""Best labellings, samples and max-marginals of linear chains.

One forward recursion and one walk back along it, which chooses the last label, then each label given the next one: the
r-th best way to reach it (Viterbi 1967, and its k-best form), or one drawn in proportion to its weight (forward
filtering, backward sampling). Shapes as in :mod:`lnz.ops.chain.reference`. O(B T L²) time; for the k best O(B T k L)
more where the kernels do, times k (log k) elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops import backend, use_kernels
from lnz.ops.chain import best, kernel, reference
from lnz.ops.chain.reference import accumulator, forward, table
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Candidates ``[M, B, C]`` and a rank ``[M, B]`` to the score and the index of the chosen candidate, ``[M, B]``."""


def _serves(node: Tensor, edge: Tensor, lengths: Tensor) -> bool:
    """Whether the kernels do; what is traced or vectorised is left to the reference."""
    return use_kernels(node, edge) and node.numel() > 0 and concrete(node, edge, lengths)


def topk(node: Tensor, edge: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best labellings ``int64 [k, B, T]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf."""
    if _serves(node, edge, lengths):
        if k == 1:
            labels, scores = (x.unsqueeze(0) for x in kernel.viterbi(node, edge, lengths))
        else:
            labels, scores = best.topk(node, edge, lengths, k)
        return labels, scores.to(node.dtype)
    rank = torch.arange(k, device=node.device)[:, None].expand(k, len(node))
    wide = accumulator(node)
    labels, scores = _walk(forward(KMax(k), node.to(wide), edge.to(wide)), edge, lengths, rank, _ranked)
    scores = torch.where(lengths == 0, torch.where(rank == 0, 0.0, -torch.inf), scores)
    return labels.masked_fill(torch.isneginf(scores)[..., None], IGNORE), scores.to(node.dtype)


def sample(node: Tensor, edge: Tensor, lengths: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent labellings, n of them, ``int64 [n, B, T]``."""
    if _serves(node, edge, lengths):
        return _sampled_by_kernel(node, edge, lengths, n, generator)

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.empty_like(candidates).exponential_(generator=generator)
        return (candidates - noise.log()).max(-1)  # the Gumbel-max trick

    wide = accumulator(node)
    alphas = [alpha.unsqueeze(0) for alpha in forward(Log(), node.to(wide), edge.to(wide))]
    return _walk(alphas, edge, lengths, torch.zeros(n, len(node), dtype=torch.int64, device=node.device), drawn)[0]


def max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """As :func:`lnz.ops.chain.reference.max_marginals`, in the dtype of the scores."""
    return _max_marginals(node, edge, lengths, False)


def edge_max_marginals(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """As :func:`lnz.ops.chain.reference.edge_max_marginals`, in the dtype of the scores."""
    return _max_marginals(node, edge, lengths, True)


def _max_marginals(node: Tensor, edge: Tensor, lengths: Tensor, of_edges: bool) -> Tensor:
    if _serves(node, edge, lengths):
        return best.max_marginals(node, edge, lengths, of_edges)
    wide, of = accumulator(node), reference.edge_max_marginals if of_edges else reference.max_marginals
    return of(node.to(wide), edge.to(wide), lengths).to(node.dtype)


def _sampled_by_kernel(
    node: Tensor, edge: Tensor, lengths: Tensor, n: int, generator: torch.Generator | None
) -> Tensor:
    """In the dtype of the scores; in float64, then by the reference, where its range is too small."""
    B, T, _ = node.shape
    uniform = torch.rand(n, B, T, dtype=torch.float64, generator=generator)
    labels, exact = kernel.sample(node, edge, lengths, uniform)
    for last in (False, True):
        lost = (~exact).nonzero()[:, 0]
        if not len(lost):
            break
        tables = edge if len(edge) == 1 else edge[lost]
        rest = node[lost].double(), tables.double(), lengths[lost]
        if last:
            with backend("reference"):
                labels[:, lost] = sample(*rest, n, generator)
        else:
            labels[:, lost], exact[lost] = kernel.sample(*rest, uniform[:, lost])
    return labels


def _ranked(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    if len(rank) == 1:
        return candidates.max(-1)
    size = min(len(rank), candidates.shape[-1])
    scores, index = candidates.topk(size, -1)
    at = rank.clamp(max=size - 1).unsqueeze(-1)
    score = scores.gather(-1, at).squeeze(-1).masked_fill(rank >= size, -torch.inf)
    return score, index.gather(-1, at).squeeze(-1)


def _walk(alphas: list[Tensor], edge: Tensor, lengths: Tensor, rank: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    """M labellings ``[M, B, T]`` from α_t ``[K, B, L]``, and the scores ``[M, B]`` of the last choices.

    ``rank`` ``[M, B]`` starts as which of the candidates to take for the last label; from there on, it is the place
    among the K ways to reach the chosen label, so that different ranks make different labellings.
    """
    labels = torch.full((*rank.shape, len(alphas)), IGNORE, device=edge.device)
    scores = torch.zeros(rank.shape, dtype=accumulator(edge), device=edge.device)
    entry = torch.arange(rank.shape[1], device=edge.device)
    for t in reversed(range(len(alphas))):
        candidates = alphas[t].movedim(0, 1).unsqueeze(0).expand(len(rank), -1, -1, -1)  # [M, B, K, L]
        last = lengths == t + 1
        if t + 1 < len(alphas):
            into = table(edge, t).expand(len(entry), -1, -1)[entry, :, labels[..., t + 1].clamp(min=0)]  # [M, B, L]
            candidates = candidates + into.masked_fill(last[:, None], 0.0).unsqueeze(-2)
        score, index = choose(candidates.flatten(-2), rank)
        inside = lengths > t
        size = candidates.shape[-1]
        labels[..., t] = torch.where(inside, index % size, IGNORE)
        rank = torch.where(inside, index // size, rank)
        scores = torch.where(last, score, scores)
    return labels, scores
