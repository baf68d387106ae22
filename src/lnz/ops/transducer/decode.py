"""Best alignments and samples: one forward recursion, one walk back along it.

The walk starts where alignments end and chooses each arc given the node it leads to: the r-th best way to come
(Viterbi 1967, and its k-best form), or one drawn in proportion to its weight (forward filtering, backward sampling).
O(B T U) time, times k (log k) for the k best. An alignment is given as the frame of each label.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.choices import Choose, ranked
from lnz.ops.transducer import kernel
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.reference import by_step, forward, ways
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE


def topk(blank: Tensor, label: Tensor, of: Lattice, k: int) -> tuple[Tensor, Tensor]:
    """The k best alignments ``int64 [k, B, U]`` and their scores ``[k, B]``, double; −100 and −inf beyond the last."""
    if k == 1 and use_kernels(blank, label) and blank.numel():
        best, score = kernel.viterbi(blank, label, of)
        return best.unsqueeze(0), score.unsqueeze(0)
    rank = torch.arange(k, device=blank.device)[:, None].expand(k, len(blank))
    b, l = by_step(blank.to(accumulator(blank)), label.to(accumulator(blank)), of)
    frames, best = _walk(forward(KMax(k), b, l), b, l, of, rank, ranked)
    return frames.masked_fill(torch.isneginf(best)[..., None], IGNORE), best


def sample(blank: Tensor, label: Tensor, of: Lattice, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent alignments, n of them, ``int64 [n, B, U]``."""

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.empty_like(candidates).exponential_(generator=generator)
        return (candidates - noise.log()).max(-1)  # the Gumbel-max trick

    b, l = by_step(blank.to(accumulator(blank)), label.to(accumulator(blank)), of)
    alphas = [alpha.unsqueeze(0) for alpha in forward(Log(), b, l)]
    rank = torch.zeros(n, len(blank), dtype=torch.int64, device=blank.device)
    return _walk(alphas, b, l, of, rank, drawn)[0]


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
