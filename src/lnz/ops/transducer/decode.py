"""Best alignments and samples: one forward recursion, one walk back along it.

The walk starts where alignments end and chooses each arc given the node it leads to: the r-th best way to come
(Viterbi 1967, and its k-best form), or one drawn in proportion to its weight (forward filtering, backward sampling).
O(B T U) time, times k (log k) for the k best. An alignment is given as the frame of each label.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.choices import Choose, picked, ranked
from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.records import KERNELS, Arcs
from lnz.ops.transducer.reference import by_step, forward, ways
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE


class _TopK(NamedTuple):
    arcs: Arcs
    k: int


class _Best(NamedTuple):
    frames: Tensor
    scores: Tensor


def topk(blank: Tensor, label: Tensor, of: Lattice, k: int) -> tuple[Tensor, Tensor]:
    """The k best alignments ``int64 [k, B, U]`` and their scores ``[k, B]``, double; −100 and −inf beyond the last."""
    return TOPK(_TopK(Arcs(blank, label, *of), k))


def _topk(given: _TopK) -> _Best:
    arcs, k = given
    viterbi = KERNELS.find("viterbi", *arcs[:2]) if k == 1 and arcs.blank.numel() else None
    if viterbi is not None:
        frames, scores = viterbi(arcs)
        return _Best(frames.unsqueeze(0), scores.unsqueeze(0))
    wide = accumulator(arcs.blank)
    rank = torch.arange(k, device=arcs.blank.device)[:, None].expand(k, len(arcs.blank))
    b, l = by_step(arcs.blank.to(wide), arcs.label.to(wide), arcs.of)
    frames, scores = _walk(forward(KMax(k), b, l), b, l, arcs.of, rank, ranked)
    return _Best(frames.masked_fill(torch.isneginf(scores)[..., None], IGNORE), scores)


def _topk_fake(given: _TopK) -> _Best:
    (B, _, U), blank, k = given.arcs.label.shape, given.arcs.blank, given.k
    return _Best(given.arcs.lengths.new_empty(k, B, U), blank.new_empty(k, B, dtype=accumulator(blank)))


TOPK = Operator("transducer_topk", _topk, _topk_fake, _TopK, _Best, axes={"frames": Axis(1), "scores": Axis(1)})


class _Uniform(NamedTuple):
    arcs: Arcs
    uniform: Tensor


class _Drawn(NamedTuple):
    frames: Tensor


def sample(blank: Tensor, label: Tensor, of: Lattice, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent alignments, n of them, ``int64 [n, B, U]``."""
    B, T, W = blank.shape
    shape, dtype = (n, B, T + of.slant() * (W - 1) + 1, 2), accumulator(blank)
    uniform = torch.rand(shape, dtype=dtype, device=blank.device, generator=generator)
    return SAMPLE(_Uniform(Arcs(blank, label, *of), uniform)).frames


def _sample(given: _Uniform) -> _Drawn:
    """By random numbers ``[n, B, steps + 1, 2]`` in [0, 1): where a path ends, and how it came there."""
    arcs, wide = given.arcs, given.uniform.dtype
    rounds = iter(given.uniform.flatten(2).unbind(2))

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        chances = candidates.masked_fill(torch.isneginf(candidates).all(-1, keepdim=True), 0.0).softmax(-1)
        return candidates[..., 0], picked(chances, next(rounds))

    b, l = by_step(arcs.blank.to(wide), arcs.label.to(wide), arcs.of)
    alphas = [alpha.unsqueeze(0) for alpha in forward(Log(), b, l)]
    rank = torch.zeros(given.uniform.shape[:2], dtype=torch.int64, device=b.device)
    return _Drawn(_walk(alphas, b, l, arcs.of, rank, drawn)[0])


def _sample_fake(given: _Uniform) -> _Drawn:
    return _Drawn(given.arcs.lengths.new_empty(len(given.uniform), len(given.arcs.blank), given.arcs.label.shape[2]))


SAMPLE = Operator(
    "transducer_sample", _sample, _sample_fake, _Uniform, _Drawn, axes={"uniform": Axis(1), "frames": Axis(1)}
)


def _walk(
    alphas: list[Tensor], b: Tensor, l: Tensor, of: Lattice, rank: Tensor, choose: Choose
) -> tuple[Tensor, Tensor]:
    """M alignments ``[M, B, U]``, −100 over padding, from α_n ``[K, B, U + 1]``; their scores ``[M, B]``.

    ``rank`` ``[M, B]`` is the place of a path among the K ways to reach its node, so that different ranks make
    different paths.
    """
    (M, B), U = rank.shape, b.shape[2] - 1
    frames = torch.full((M, B, U), IGNORE, device=b.device)
    columns = torch.arange(U, device=b.device)
    column = of.target_lengths.expand(M, B)
    scores = b.new_full((M, B), -torch.inf)
    for n in range(len(alphas) - 1, -1, -1):
        ends = _at(alphas[n], column)  # [M, B, K]
        score, index = choose(ends, rank)
        at_end = of.steps() == n
        scores, rank = torch.where(at_end, score, scores), torch.where(at_end, index, rank)
        if n == 0:
            break
        come = ways(alphas[n - 1], b[:, n - 1], l[:, n - 1])
        _, index = choose(_at(come, column).flatten(2), rank)  # K ways along each of two arcs
        going = of.steps() >= n
        moves = going & (index % 2 == 1) & (column > 0)  # to column 0 only where nothing is possible
        rank = torch.where(going, index // 2, rank)
        column = column - moves.long()
        frame = n - 1 - of.slant() * column
        frames = torch.where(moves[..., None] & (columns == column[..., None]), frame[..., None], frames)
    return frames, scores


def _at(x: Tensor, column: Tensor) -> Tensor:
    """Entries of x ``[K, B, U + 1, *]`` at columns ``[M, B]``, as ``[M, B, K, *]``."""
    rest = x.shape[3:]
    index = column.reshape(*column.shape, *[1] * (1 + len(rest)), 1)
    chosen = x.movedim(0, 1).movedim(2, -1).expand(len(column), *x.shape[1:2], len(x), *rest, x.shape[2])
    return chosen.gather(-1, index.expand(*chosen.shape[:-1], 1)).squeeze(-1)
