"""Probabilities of tags in operations that a tracer can follow: for ``torch.export`` and ONNX."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.nn.viterbi import scanned


def tag_probabilities(node: Tensor, edge: Tensor, start: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    """P(tag at step) ``[B, T, L]`` of chains whose steps are those of ``mask``; 0 elsewhere.

    Forward–backward in logarithms: ln P_t(k) = before_t(k) + x_t(k) + ahead_t(k) − ln Z, where ahead_t(k) sums over
    what follows tag k and before_t(k) over what comes before it. A step that the mask leaves out passes both on. Both
    are kept about 0. No value is looked at, so that a sequence without a possible tagging is 0 throughout. O(T L²)
    time, O(T L) memory per sequence.

    Args:
        node: x ``[B, T, L]``.
        edge: A ``[L, L]``.
        start: ``[L]``, of the first tag.
        end: ``[L]``, of the last tag.
        mask: bool ``[B, T]``, any of the steps.
    """
    B, _, L = node.shape

    def backward(ahead: Tensor, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        onward = _log_sum(edge + (x + ahead).unsqueeze(-2))
        return torch.where(there, _centred(onward), ahead), ahead.clone()

    def forward(before: Tensor, x: Tensor, there: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        seen = before + x
        onward = _log_sum((seen.unsqueeze(-1) + edge).transpose(-1, -2))
        weights = _centred(seen + ahead).exp() * there
        total = weights.sum(-1, keepdim=True)
        return torch.where(there, _centred(onward), before), weights / torch.where(total > 0, total, 1.0)

    steps = node.transpose(0, 1), mask.transpose(0, 1).unsqueeze(-1)
    aheads = scanned(backward, end.expand(B, L).clone(), *steps, reverse=True)
    return scanned(forward, start.expand(B, L).clone(), *steps, aheads).transpose(0, 1)


def _log_sum(x: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials over the last axis; −inf where all are."""
    top = _finite_top(x)
    return (x - top).exp().sum(-1).log() + top.squeeze(-1)


def _centred(x: Tensor) -> Tensor:
    """Less the largest of the last axis."""
    return x - _finite_top(x)


def _finite_top(x: Tensor) -> Tensor:
    top = x.amax(-1, keepdim=True)
    return top.masked_fill(torch.isneginf(top), 0.0)
