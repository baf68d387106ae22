"""Cross-entropy and entropy of distributions over binary trees: right at any range of scores.

Shapes as in :mod:`lnz.ops.spans.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.chain.reference import normalised
from lnz.ops.charts import by_width, of_sentences, parts
from lnz.ops.expectation import surprisal
from lnz.ops.spans.records import Spans
from lnz.ops.spans.reference import centred, inside, labels_summed
from lnz.semirings import Log


def cross_entropy(p: Spans, q: Spans) -> Tensor:
    """E_P[−ln Q(y)] ``[B]`` over trees of the same lengths; +inf where Q(y) = 0 < P(y). Twice differentiable.

    In the dtype of the accumulator. From the bottom up, h(i, j) is what the tree below a span is expected to add:

        h(i, j) = Σ_l P(l | i, j) (−ln Q(l | i, j)) + Σ_k P(k | i, j) (−ln Q(k | i, j) + h(i, k) + h(k + 1, j))

    No term is negative, so that no digits cancel. O(B N³) time and memory.
    """
    charts = [_charts(each.wide()) for each in ((p,) if p is q else (p, q))]
    expected: list[Tensor] = []
    lost: list[Tensor] = []
    sums = zip(parts(expected), parts(lost), strict=True)
    for w in range(p.scores.shape[1]):
        labels = [labels[w] for labels, _ in charts]
        value, missing = surprisal(labels[0], labels[-1])
        (left, right), (lost_left, lost_right) = next(sums)
        if w:
            ways = [splits[w] for _, splits in charts]
            log_p, weight = ways[0], ways[0].exp()
            more, unlikely = surprisal(log_p, ways[-1])
            value = value + more + (weight * (left + right)).sum(-1)
            missing = missing + unlikely + (weight.detach() * (lost_left + lost_right)).sum(-1)
        expected.append(value)
        lost.append(missing)
    total = of_sentences(expected, p.lengths).to(precision.accumulator(p.scores))
    return total.masked_fill(of_sentences(lost, p.lengths) > 0, torch.inf)


def _charts(given: Spans) -> tuple[list[Tensor], list[Tensor]]:
    """ln P(l | i, j) ``[B, N − w, L]`` and ln P(k | i, j) ``[B, N − w, w]`` by width."""
    scores, _ = centred(*given)
    chart = inside(Log(), labels_summed(scores))
    ways = zip(range(len(chart)), parts(chart), strict=False)
    splits = [normalised(left + right) if w else left for w, (left, right) in ways]
    return [normalised(each) for each in by_width(scores)], splits
