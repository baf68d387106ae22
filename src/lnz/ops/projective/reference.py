"""Projective dependency trees: Eisner's chart (Eisner 1996; 2000), whose spans have their head at one end.

Scores are ``[B, N + 1, N + 1]``, [dependent, head], lengths ``[B]``. Over words i … j, left to right, four things grow:

- ``open right``: an arc from i to j, all words between them under one of the two;
- ``open left``: an arc from j to i;
- ``right``: i and its dependents up to j; ``left``: j and its dependents down to i.

An open span is two closed ones that meet; a closed one an open one and a closed one. The root is word 0, at the left
end; where it has one dependent, its open spans have nothing on its own side. O(N³) time, O(N²) memory per step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.semirings import Log, Semiring


def log_partition(scores: Tensor, lengths: Tensor, single_root: bool, semiring: Semiring | None = None) -> Tensor:
    """ln Z ``[B]`` in the dtype of ``scores``; or the sum over trees in another semiring."""
    add = semiring or Log()
    B, M, _ = scores.shape
    right, left = [scores.new_zeros(B, M)], [scores.new_zeros(B, M)]  # by width: closed spans [B, M − width]
    open_right, open_left = [scores.new_empty(B, 0)], [scores.new_empty(B, 0)]
    for width in range(1, M):
        starts = M - width
        meet = torch.stack([right[a][:, :starts] + left[width - 1 - a][:, a + 1 :] for a in range(width)], -1)
        if single_root:
            under_root = torch.arange(starts, device=scores.device)[:, None] == 0
            meet = meet.masked_fill(under_root & (torch.arange(width, device=scores.device) > 0), -torch.inf)
        inner = add.plus(meet, -1)
        open_right.append(inner + scores.diagonal(-width, 1, 2))
        open_left.append(inner + scores.diagonal(width, 1, 2))
        ways = [open_right[a][:, :starts] + right[width - a][:, a:] for a in range(1, width + 1)]
        right.append(add.plus(torch.stack(ways, -1), -1))
        ways = [left[a][:, :starts] + open_left[width - a][:, a:] for a in range(width)]
        left.append(add.plus(torch.stack(ways, -1), -1))
    return torch.stack([each[:, 0] for each in right], 1).gather(1, lengths[:, None]).squeeze(1)


def marginals(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """P(arc) ``[B, N + 1, N + 1]``; 0 where there is no tree."""
    return torch.func.grad(lambda x: log_partition(x, lengths, single_root).sum())(scores)
