"""CKY in the log domain: the recursion as it is on paper, for any device and dtype.

Scores s ``[B, N, N, L]`` of the span of words i … j (inclusive, i ≤ j) with label l; lengths n ``[B]`` in 0 … N, words
from n on being padding. A tree has 2n − 1 spans with a label each, so labels are summed out first:

    β(i, j) = ln Σ_l exp s(i, j, l) + ln Σ_{i ≤ k < j} exp(β(i, k) + β(k + 1, j)),   ln Z = β(0, n − 1)

Charts are as in :mod:`lnz.ops.charts`. O(B N³) time. Without words there is one tree, the empty one: ln Z = 0.

Source: Baker 1979 (inside–outside); Lari & Young 1990.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.charts import by_width, of_sentences, parts, within
from lnz.semirings import Log, Semiring


def log_partition(scores: Tensor, lengths: Tensor) -> Tensor:
    """ln Z ``[B]``."""
    scores, top = centred(scores, lengths)
    chart = inside(Log(), labels_summed(scores))
    return of_sentences(chart, lengths) + (2 * lengths - 1).clamp(min=0) * top


def marginals(scores: Tensor, lengths: Tensor) -> Tensor:
    """P(the tree has this span with this label) ``[B, N, N, L]``; 0 below the diagonal and over padding."""
    return torch.func.grad(lambda scores: log_partition(scores, lengths).sum())(scores)


def centred(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Scores less the largest of their sentence, −inf over padding; and that, a constant ``[B]``.

    Beside scores of 1e38 the logarithm of the number of trees would be lost.
    """
    if not scores.numel():
        return scores, scores.new_zeros(len(scores))
    scores = scores.where(within(scores.shape[1], lengths).unsqueeze(-1), -torch.inf)
    top = scores.detach().flatten(1).amax(1)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    return scores - top[:, None, None, None], top


def labels_summed(scores: Tensor) -> list[Tensor]:
    """ln Σ_l exp s by width, ``[B, N − w]``."""
    return [Log().plus(each, -1) for each in by_width(scores)]


def inside(semiring: Semiring, own: Sequence[Tensor]) -> list[Tensor]:
    """β by width, from elements of spans by width."""
    chart: list[Tensor] = []
    for each, (left, right) in zip(own, parts(chart), strict=False):
        ways = semiring.plus(semiring.times(left, right), -1) if chart else None
        chart.append(each if ways is None else semiring.times(each, ways))
    return chart
