"""Best segmentations and samples of semi-Markov chains: one forward recursion, one walk back along it.

The walk chooses the last label, then in turn the width of the segment and the label before it: the r-th best way to get
there, or one drawn in proportion to its weight. Segmentations are ``int64 [B, T]``: the label of a segment at its first
step, −1 at its other steps, −100 over padding. Shapes as in :mod:`lnz.ops.semi_markov.reference`;
O(B T (W L + L²)) time, times k (log k) for the k best. The best one and samples are the kernels', which walk forward
along a pass back over the steps; the k best are the reference's.

``lnz::semi_markov_topk`` and ``lnz::semi_markov_sample`` have no gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.choices import Choose, picked, ranked
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.ops.semi_markov.op import KERNELS
from lnz.ops.semi_markov.records import CONTINUED, SHARED, Segments
from lnz.ops.semi_markov.reference import forward
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE


class _TopK(NamedTuple):
    segment: Tensor
    edge: Tensor
    lengths: Tensor
    k: int


class _Best(NamedTuple):
    labels: Tensor
    scores: Tensor


def topk(given: Segments, k: int) -> tuple[Tensor, Tensor]:
    """The k best ``int64 [k, B, T]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf."""
    return TOPK(_TopK(*given, k))


def _topk(given: _TopK) -> _Best:
    chains, lengths, k = Segments(*given[:3]), given.lengths, given.k
    viterbi = KERNELS.find("viterbi", *chains[:2]) if k == 1 and chains.segment.numel() else None
    if viterbi is not None:
        labels, best = viterbi(chains)
        return _Best(labels.unsqueeze(0), best.unsqueeze(0).to(given.segment.dtype))
    segment, edge, _ = chains.wide()
    start = segment.new_full((k, len(segment), segment.shape[-1]), -torch.inf)
    start[0] = 0.0
    rank = torch.arange(k, device=segment.device)[:, None].expand(k, len(segment))
    tables = forward(KMax(k), segment, edge, start)
    labels, best = _walk(*tables, segment, edge, lengths, rank, ranked)
    best = torch.where(lengths == 0, torch.where(rank == 0, 0.0, -torch.inf), best)
    return _Best(labels.masked_fill(torch.isneginf(best)[..., None], IGNORE), best.to(given.segment.dtype))


def _topk_fake(given: _TopK) -> _Best:
    B, T = given.segment.shape[:2]
    return _Best(given.lengths.new_empty(given.k, B, T), given.segment.new_empty(given.k, B))


TOPK = Operator(
    "semi_markov_topk", _topk, _topk_fake, _TopK, _Best, axes=SHARED | {"labels": Axis(1), "scores": Axis(1)}
)


class _Uniform(NamedTuple):
    segment: Tensor
    edge: Tensor
    lengths: Tensor
    uniform: Tensor


class _Drawn(NamedTuple):
    labels: Tensor


def sample(given: Segments, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent segmentations, n of them, ``int64 [n, B, T]``."""
    dtype, device = precision.accumulator(given.segment), given.segment.device
    uniform = torch.rand(n, *given.segment.shape[:2], 2, dtype=dtype, device=device, generator=generator)
    return SAMPLE(_Uniform(*given, uniform)).labels


def _sample(given: _Uniform) -> _Drawn:
    """By random numbers ``[n, B, T, 2]`` in [0, 1)."""
    run = KERNELS.find("sample", *given[:2]) if given.segment.numel() else None
    if run is None:
        return _Drawn(*_sample_in_logs(given))

    def kernel(some: _Uniform) -> tuple[tuple[Tensor, ...], Tensor]:
        labels, in_range = run(Segments(*some[:3]), some.uniform.contiguous())
        return (labels,), in_range

    axes = {"inputs_at": (0, 0, 0, 1), "results_at": (1,)}
    return _Drawn(*precision.climb(given, kernel, None, _sample_in_logs, **axes).results)


def _sample_in_logs(given: _Uniform) -> tuple[Tensor]:
    segment, edge, lengths = Segments(*given[:3]).wide()
    rounds = iter(given.uniform.flatten(2).unbind(2))

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        return candidates[..., 0], picked(candidates.softmax(-1), next(rounds))

    enter, leave = forward(Log(), segment, edge, segment.new_zeros(len(segment), segment.shape[-1]))
    tables = [x[None] for x in enter], [x[None] for x in leave]
    rank = torch.zeros(given.uniform.shape[:2], dtype=torch.int64, device=segment.device)
    return (_walk(*tables, segment, edge, lengths, rank, drawn)[0],)


def _sample_fake(given: _Uniform) -> _Drawn:
    return _Drawn(given.lengths.new_empty(given.uniform.shape[:-1]))


SAMPLE = Operator(
    "semi_markov_sample",
    _sample,
    _sample_fake,
    _Uniform,
    _Drawn,
    axes=SHARED | {"uniform": Axis(1), "labels": Axis(1)},
)


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
