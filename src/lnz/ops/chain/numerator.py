"""Sums over pairs of neighbouring labels, and the score of a labelling, in plain torch.

Edge scores are ``[B or 1, T − 1 or 1, L, L]``; other shapes as in :mod:`lnz.ops.chain.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pair_sums(edge: Tensor, forward_factor: Tensor, backward_factor: Tensor, weight: Tensor | None) -> Tensor:
    """Σ weight_b · forward_factor_t(k) · backward_factor_{t+1}(l) · exp(A_t(k, l) − max A_t), in the shape of ``edge``.

    The factors ``[B, T, L]`` are those of :class:`lnz.ops.chain.records.Pass`; ``weight`` ``[B]``, ``None`` for ones.
    For one table shared by all it is one product of matrices, and nothing larger than them is made.
    """
    B, T, L = forward_factor.shape
    if B == 0 or T < 2 or not edge.numel():
        return torch.zeros_like(edge, memory_format=torch.contiguous_format)
    shared, common = len(edge) == 1, None
    if weight is not None and bool((weight == weight[0]).all()):
        common = weight[0]
    elif weight is not None:
        forward_factor = forward_factor * weight[:, None, None]
    if shared and edge.shape[1] == 1:  # the factors at the last labels, which are 0, separate the chains
        sums = (forward_factor.view(-1, L)[:-1].mT @ backward_factor.view(-1, L)[1:])[None, None]
    else:
        left, right = forward_factor[:, :-1], backward_factor[:, 1:]
        if edge.shape[1] == 1:
            sums = (left.mT @ right).unsqueeze(1)
        elif shared:
            sums = (left.permute(1, 2, 0) @ right.transpose(0, 1)).unsqueeze(0)
        else:
            sums = left.unsqueeze(-1) * right.unsqueeze(-2)
    highest = edge.amax((-2, -1), keepdim=True)
    factor = (edge - highest.masked_fill(torch.isneginf(highest), 0.0)).exp_().mul_(sums)
    return factor if common is None else factor.mul_(common)


def edge_indicators(shape: torch.Size, y: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Σ weight_b over the pairs of neighbouring labels in y ``[B, T]``, in the ``shape`` of edge scores."""
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
