"""Cross-entropy and entropy of distributions over derivations: right at any range of scores.

Shapes as in :mod:`lnz.ops.grammar.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.chain.reference import normalised
from lnz.ops.charts import of_sentences, parts
from lnz.ops.expectation import surprisal
from lnz.ops.grammar.records import Grammar
from lnz.ops.grammar.reference import centred, inside, leaves
from lnz.semirings import Log


def cross_entropy(p: Grammar, q: Grammar) -> Tensor:
    """E_P[−ln Q(y)] ``[B]`` over derivations of the same lengths; +inf where Q(y) = 0 < P(y). Twice differentiable.

    In the dtype of the accumulator. From the bottom up, what the derivation below a span is expected to add:

        h(i, j, a) = Σ_{b,c} P(b, c | i, j, a) (−ln Q(b, c | i, j, a) + Σ_k P(k | i, j, b, c) (−ln Q(k | i, j, b, c)
                     + h(i, k, b) + h(k + 1, j, c)))

    No term is negative, so that no digits cancel. O(B (N³ S² + N² NT S²)) time and memory.
    """
    conditionals = [_conditionals(each.wide()) for each in ((p,) if p is q else (p, q))]
    first, second = conditionals[0], conditionals[-1]
    N, S, PT = p.preterminals.shape[1], p.rules.shape[-1], p.preterminals.shape[-1]
    nothing = first[0].new_zeros(S, *p.preterminals.shape[:2])
    expected, lost = [nothing] * (N > 0), [nothing] * (N > 0)
    ways = zip(range(N), parts(expected), parts(lost), strict=False)
    for w, (left, right), (lost_left, lost_right) in ways:
        if not w:
            continue
        (log_kinds, log_splits), (other_kinds, other_splits) = first[1][w - 1], second[1][w - 1]
        value, missing = surprisal(log_splits, other_splits)
        value = value + _expected(log_splits, left, right)
        missing = missing + _expected(log_splits.detach(), lost_left, lost_right)
        weight = log_kinds.exp()  # [NT, B, P, S S]
        more, unlikely = surprisal(log_kinds, other_kinds)
        rows = [x.flatten(0, 1).movedim(0, -1) for x in (value, missing)]
        found = more + (weight * rows[0]).sum(-1), unlikely + (weight.detach() * rows[1]).sum(-1)
        for chart, spans in zip((expected, lost), found, strict=True):
            chart.append(torch.cat((spans, spans.new_zeros(PT, *spans.shape[1:]))))
    value, missing = surprisal(first[0], second[0])
    if N:
        weight = first[0].exp()
        symbols = [of_sentences(chart, p.lengths)[: S - PT].mT for chart in (expected, lost)]
        value = value + (weight * symbols[0]).sum(-1)
        missing = missing + (weight.detach() * symbols[1]).sum(-1)
    there = p.lengths > 0
    value = torch.where(there, value, 0.0).to(precision.accumulator(p.preterminals))
    return value.masked_fill(there & (missing > 0), torch.inf)


def _conditionals(given: Grammar) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """ln P(a) of the whole ``[B, NT]``; by width from 1, ln P(b, c | …) and ln P(k | …).

    These are ``[NT, B, N − w, S S]`` and ``[S, S, B, N − w, w]``.
    """
    grammar, _ = centred(given)
    chart = inside(Log(), leaves(grammar), grammar)
    rules, found = grammar.rules.flatten(-2).movedim(1, 0).unsqueeze(-2), []  # [NT, B or 1, 1, S S]
    for w, (left, right) in zip(range(len(chart)), parts(chart), strict=False):
        if w:
            joint = left.unsqueeze(-4) + right.unsqueeze(-5)
            pairs = Log().plus(joint, -1).flatten(0, 1).movedim(0, -1)
            found.append((normalised(rules + pairs), normalised(joint)))
    if not chart:
        return grammar.root.expand(len(given.preterminals), -1), found
    symbols = of_sentences(chart, given.lengths)[: grammar.root.shape[1]].mT
    return normalised(grammar.root + symbols), found


def _expected(log_splits: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Σ_k P(k | b, c) (h_left(k, b) + h_right(k, c)) ``[S, S, B, P]``."""
    weight = log_splits.exp()
    return (weight * (left.unsqueeze(-4) + right.unsqueeze(-5))).sum(-1)
