"""Sums over the pairs of neighbouring labels, for edge scores ``[B or 1, T − 1 or 1, L, L]``, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def factored(edge: Tensor, before: Tensor, after: Tensor, weight: Tensor) -> Tensor:
    """Σ weight_b · before_t(k) · after_{t+1}(l) · exp(A_t(k, l) − max A_t), summed as the edge scores are shared.

    ``before`` and ``after`` ``[B, T, L]``, where ``before`` is 0 at the last label; ``weight`` ``[B]``. For one table
    shared by all it is one product of matrices, and nothing larger than them is made.
    """
    B, T, L = before.shape
    if B == 0 or T < 2 or not edge.numel():
        return torch.zeros_like(edge, memory_format=torch.contiguous_format)
    shared, alike = len(edge) == 1, B == 1 or bool((weight == weight[0]).all())
    if not alike:
        before = before * weight[:, None, None]
    if shared and edge.shape[1] == 1:  # padding takes care of the pairs across chains
        sums = (before.view(-1, L)[:-1].mT @ after.view(-1, L)[1:])[None, None]
    else:
        left, right = before[:, :-1], after[:, 1:]
        if edge.shape[1] == 1:
            sums = (left.mT @ right).unsqueeze(1)
        elif shared:
            sums = (left.permute(1, 2, 0) @ right.transpose(0, 1)).unsqueeze(0)
        else:
            sums = left.unsqueeze(-1) * right.unsqueeze(-2)
    highest = edge.amax((-2, -1), keepdim=True)
    factor = (edge - highest.masked_fill(torch.isneginf(highest), 0.0)).exp_()
    return factor.mul_(sums).mul_(weight[0]) if alike else factor.mul_(sums)


def scored(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> Tensor:
    """s(y) ``[B]`` of full labellings y ``[B, T]``, whatever they hold from ``lengths`` on."""
    inside = torch.arange(y.shape[1], device=y.device) < lengths[:, None]
    y = torch.where(inside, y, 0)
    total = node.gather(2, y.unsqueeze(2)).squeeze(2).masked_fill(~inside, 0.0).sum(1)
    if y.shape[1] > 1 and edge.numel():
        pair = (y[:, :-1] * len(edge[0, 0]) + y[:, 1:]).unsqueeze(2)
        scores = edge.flatten(-2).expand(len(y), y.shape[1] - 1, -1).gather(2, pair).squeeze(2)
        total = total + scores.masked_fill(~inside[:, 1:], 0.0).sum(1)
    return total


def scattered(shape: torch.Size, y: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Σ weight_b over the pairs of neighbouring labels in y ``[B, T]``."""
    entries, steps, L, _ = shape
    B, T = y.shape
    total = weight.new_zeros(entries * steps * L * L)
    if T < 2:
        return total.view(shape)
    device = y.device
    joined = torch.arange(1, T, device=device) < lengths[:, None]
    y = torch.where(torch.arange(T, device=device) < lengths[:, None], y, 0)
    pair = y[:, :-1] * L + y[:, 1:]
    if steps > 1:
        pair = pair + L * L * torch.arange(steps, device=device)
    if entries > 1:
        pair = pair + steps * L * L * torch.arange(B, device=device)[:, None]
    return total.index_add(0, pair.flatten(), (weight[:, None] * joined).flatten()).view(shape)
