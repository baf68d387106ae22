"""Best segmentations and samples of semi-Markov chains: one forward recursion, one walk back along it.

The walk chooses the last label, then in turn the width of the segment and the label before it: the r-th best way to get
there, or one drawn in proportion to its weight. Segmentations are ``int64 [B, T]``: the label of a segment at its first
step, −1 at its other steps, −100 over padding. Shapes as in :mod:`lnz.ops.semi_markov.reference`;
O(B T (W L + L²)) time, times k (log k) for the k best. The best one and samples are the kernels', which walk forward
along a pass back over the steps, where :func:`_serves` says so; the k best are the reference's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops import backend, use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.choices import Choose, ranked
from lnz.ops.semi_markov import kernel
from lnz.ops.semi_markov.reference import forward
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE

CONTINUED = -1
"""What a labelling holds where a segment goes on."""


def _serves(segment: Tensor, edge: Tensor, lengths: Tensor) -> bool:
    """Whether the kernels do; what is traced or vectorised is left to the reference."""
    return use_kernels(segment, edge) and segment.numel() > 0 and concrete(segment, edge, lengths)


def topk(segment: Tensor, edge: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best ``int64 [k, B, T]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf."""
    if k == 1 and _serves(segment, edge, lengths):
        labels, scores = kernel.viterbi(segment, edge, lengths)
        return labels.unsqueeze(0), scores.unsqueeze(0).to(segment.dtype)
    wide = segment.to(accumulator(segment))
    start = wide.new_full((k, len(wide), wide.shape[-1]), -torch.inf)
    start[0] = 0.0
    tables = forward(KMax(k), wide, edge.to(wide.dtype), start)
    rank = torch.arange(k, device=segment.device)[:, None].expand(k, len(segment))
    labels, scores = _walk(*tables, wide, edge.to(wide.dtype), lengths, rank, ranked)
    scores = torch.where(lengths == 0, torch.where(rank == 0, 0.0, -torch.inf), scores)
    return labels.masked_fill(torch.isneginf(scores)[..., None], IGNORE), scores.to(segment.dtype)


def sample(segment: Tensor, edge: Tensor, lengths: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent segmentations, n of them, ``int64 [n, B, T]``."""
    if _serves(segment, edge, lengths):
        return _sampled_by_kernel(segment, edge, lengths, n, generator)

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.empty_like(candidates).exponential_(generator=generator)
        return (candidates - noise.log()).max(-1)  # the Gumbel-max trick

    wide = segment.to(accumulator(segment))
    edge = edge.to(wide.dtype)
    enter, leave = forward(Log(), wide, edge, wide.new_zeros(len(wide), wide.shape[-1]))
    tables = [x[None] for x in enter], [x[None] for x in leave]
    rank = torch.zeros(n, len(wide), dtype=torch.int64, device=wide.device)
    return _walk(*tables, wide, edge, lengths, rank, drawn)[0]


def _sampled_by_kernel(
    segment: Tensor, edge: Tensor, lengths: Tensor, n: int, generator: torch.Generator | None
) -> Tensor:
    uniform = torch.rand(n, *segment.shape[:2], 2, dtype=torch.float64, generator=generator)
    labels, exact = kernel.sample(segment, edge, lengths, uniform)
    if not exact.all():
        lost = (~exact).nonzero()[:, 0]
        own = edge if len(edge) == 1 else edge[lost]
        with backend("reference"):
            labels[:, lost] = sample(segment[lost], own, lengths[lost], n, generator)
    return labels


def _walk(
    enter: list[Tensor],
    leave: list[Tensor],
    segment: Tensor,
    edge: Tensor,
    lengths: Tensor,
    rank: Tensor,
    choose: Choose,
) -> tuple[Tensor, Tensor]:
    """M segmentations ``[M, B, T]`` from enter_t, leave_t ``[K, B, L]``, and the scores ``[M, B]`` of the last labels.

    ``rank`` ``[M, B]`` starts as which of the candidates to take for the last label; from there on, it is the place
    among the K ways to get where the walk is, so that different ranks make different segmentations. Each of the M · B
    walks is where it is: a round chooses one segment of each.
    """
    M, B = rank.shape
    T, W, L = segment.shape[1:]
    steps, widths = torch.arange(T, device=edge.device), torch.arange(W, device=edge.device)
    y = torch.where(steps < lengths[:, None], CONTINUED, IGNORE).expand(M, B, T).clone()
    if not T:
        return y, segment.new_zeros(M, B)
    entering, leaving = torch.stack(enter, 2), torch.stack(leave, 2)  # [K, B, T, L]
    entry = torch.arange(B, device=edge.device)
    own = entry if len(edge) > 1 else torch.zeros_like(entry)

    stop = lengths.expand(M, B)  # the walks have come back to here
    last = leaving[:, entry, (lengths - 1).clamp(min=0)].movedim(0, 1).flatten(1)  # [B, K L]
    scores, index = choose(last.expand(M, -1, -1), rank)
    label, rank = index % L, index // L
    while (stop > 0).any():
        starts = stop.unsqueeze(-1) - 1 - widths  # [M, B, W]
        at = starts.clamp(min=0)
        wide = segment[entry[:, None], at, widths, label.unsqueeze(-1)].masked_fill(starts < 0, -torch.inf)
        ways = entering[:, entry[:, None], at, label.unsqueeze(-1)] + wide  # [K, M, B, W]
        _, index = choose(ways.movedim(0, 2).flatten(2), rank)
        start, rank = stop - 1 - index % W, index // W
        here = start.clamp(min=0).unsqueeze(-1)
        y.scatter_(-1, here, torch.where(stop > 0, label, y.gather(-1, here).squeeze(-1)).unsqueeze(-1))
        stop = torch.where(stop > 0, start, stop)
        if (stop > 0).any():
            end = (stop - 1).clamp(min=0)
            into = edge[own, end if edge.shape[1] > 1 else 0, :, label]  # [M, B, L]
            _, index = choose((leaving[:, entry, end] + into).movedim(0, 2).flatten(2), rank)
            label, rank = index % L, index // L
    return y, scores
