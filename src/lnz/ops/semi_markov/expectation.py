"""Expectations of sums over segments and edges, and the entropy: right at any range of scores.

Shapes as in :mod:`lnz.ops.semi_markov.reference`. O(B T (W L + L²)) time; the kernels take O(B T L) memory beside the
gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from lnz.checks import broadcast_shapes
from lnz.ops.chain.reference import normalised
from lnz.ops.expectation import Family, Function, expected, serves
from lnz.ops.precision import accumulator
from lnz.ops.semi_markov.op import KERNELS, SEMI_MARKOV
from lnz.ops.semi_markov.records import Segments
from lnz.ops.semi_markov.reference import by_end, forward, table
from lnz.semirings import Log


def expectation(segment: Tensor, edge: Tensor, lengths: Tensor, function: Function = None) -> Tensor:
    """E[Σ of the function's values of the parts of y] ``[B]``; by default E[−ln P(y)], the entropy. Differentiable.

    In the dtype of :func:`accumulator`.

    Args:
        segment: s ``[B, T, W, L]``.
        edge: A ``[B or 1, S, L, L]``.
        lengths: ``[B]``.
        function: finite values of segments ``[B, T, W, L]`` and of edges ``[B or 1, T − 1 or 1, L, L]``.
    """
    if serves(_SEMI_MARKOV, segment, edge, *(function or ())):
        return expected(_SEMI_MARKOV, segment, edge, lengths, function)
    wide = accumulator(segment)
    values = None if function is None else (function[0].to(wide), function[1].to(wide))
    return reference_expectation(segment.to(wide), edge.to(wide), lengths, values)


def log_conditionals(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of segments ``[B, T, W, L]`` and edges ``[B, T − 1, L, L]`` that add up to ln P(y); 0 over padding.

    ln P(w | k ends at t), ln P(k ends at t | l starts at t + 1), and ln P(k) for the last segment. None is positive, so
    that no digits cancel. In the dtype of :func:`accumulator`.
    """
    wide = accumulator(segment)
    segment, edge = segment.to(wide), edge.to(wide)
    B, T, W, L = segment.shape
    if not T:
        return segment, segment.new_zeros(B, 0, L, L)
    enter, leave = forward(Log(), segment, edge, segment.new_zeros(B, L))
    scores, widths, labels = by_end(segment), [], []
    for t in range(T):
        latest_first = torch.stack(enter[max(0, t + 1 - scores.shape[2]) : t + 1][::-1], 1)
        log_width = normalised((latest_first + scores[:, t, : latest_first.shape[1]]).mT).mT
        log_last = torch.where((lengths == t + 1)[:, None], normalised(leave[t]), 0.0)
        widths.append(pad(log_width + log_last.unsqueeze(1), (0, 0, 0, W - latest_first.shape[1])))
        if t + 1 < T:
            labels.append(normalised((leave[t].unsqueeze(-1) + table(edge, t)).mT).mT)
    ending = pad(torch.stack(widths, 1), (0, 0, 0, 0, 0, W - 1))  # by where segments end: the start t − w
    starting = torch.stack([ending[:, w : w + T, w] for w in range(W)], 2)
    within = torch.arange(T, device=lengths.device)[:, None] + torch.arange(W, device=lengths.device)
    within = (within < lengths[:, None, None])[..., None]
    joined = (torch.arange(1, T, device=lengths.device) < lengths[:, None])[..., None, None]
    tables = torch.stack(labels, 1) if labels else segment.new_zeros(B, 0, L, L)
    return torch.where(within, starting, 0.0), torch.where(joined, tables, 0.0)


def reference_expectation(segment: Tensor, edge: Tensor, lengths: Tensor, function: Function = None) -> Tensor:
    """:func:`expectation` by a recursion.

    before_t(l) = E[what comes before | a segment of label l starts at t], until_t(k) = E[all up to it | one of label k
    ends at t]: until_t(k) = Σ_w P(w | k ends at t) (before_{t−w}(k) + value of the segment), and
    before_{t+1}(l) = Σ_k P(k ends at t | l starts at t + 1) (until_t(k) + value of the edge). For the entropy, values
    are −ln of these probabilities, and −ln P(the last label) comes at the end.
    """
    enter, leave = forward(Log(), segment, edge, segment.new_zeros(len(segment), segment.shape[-1]))
    total, scores = segment.new_zeros(len(segment)), by_end(segment) if segment.shape[1] else segment
    values = None if function is None else by_end(function[0].masked_fill(torch.isneginf(function[0]), 0.0))
    before = [torch.zeros_like(segment[:, :, 0].sum(1))]
    for t in range(segment.shape[1]):
        first = max(0, t + 1 - scores.shape[2])  # where the widest segment that ends here starts
        widths = t + 1 - first
        log_width = normalised((torch.stack(enter[first : t + 1][::-1], 1) + scores[:, t, :widths]).mT).mT
        value = (
            _surprisal(log_width) if values is None else values[:, t, :widths].masked_fill(log_width == -torch.inf, 0)
        )
        until = (log_width.exp() * (torch.stack(before[first : t + 1][::-1], 1) + value)).sum(1)
        log_last = normalised(leave[t])
        at_end = until + _surprisal(log_last) if function is None else until
        total = torch.where(lengths == t + 1, (log_last.exp() * at_end).sum(-1), total)
        if t + 1 < segment.shape[1]:
            log_label = normalised((leave[t].unsqueeze(-1) + table(edge, t)).mT).mT
            value = _surprisal(log_label) if function is None else table(function[1], t)
            before.append((log_label.exp() * (until.unsqueeze(-1) + value)).sum(-2))
    return total


def _surprisal(log_prob: Tensor) -> Tensor:
    return -log_prob.masked_fill(torch.isneginf(log_prob), 0.0)


def _marginals(
    segment: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor], grad: Tensor
) -> tuple[Tensor, Tensor]:
    joint = edge.expand(broadcast_shapes(edge.shape, function[1].shape))
    given = Segments(segment, joint, lengths)
    segments, edges = SEMI_MARKOV.gradient(grad, given, SEMI_MARKOV.solve(given), (True, True))
    return segments, edges.sum_to_size(function[1].shape)


_SEMI_MARKOV = Family(KERNELS, reference_expectation, _marginals)
