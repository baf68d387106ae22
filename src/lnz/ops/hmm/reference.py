"""Filtering in the log domain, for any device and dtype. Shapes as in :mod:`lnz.ops.chain.reference`."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.chain.reference import accumulator, forward
from lnz.semirings import Log


def filtered(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """The normalised forward variables α_t(l) / Σ_k α_t(k), ``[B, T, L]``; 0 over padding, and where Σ_k α_t(k) = 0.

    Where ``node`` and ``edge`` are the log-probabilities of an HMM, these are P(z_t = l | x_0 … x_t). O(B T L²) time.
    """
    wide = accumulator(node)
    alphas = forward(Log(), node.to(wide), edge.to(wide))
    if not alphas:
        return node
    alpha = torch.stack([a.expand(len(node), -1) for a in alphas], 1)
    total = Log().plus(alpha, -1).unsqueeze(-1)
    inside = torch.arange(node.shape[1], device=node.device) < lengths[:, None]
    share = (alpha - total.masked_fill(torch.isneginf(total), 0.0)).exp()
    return share.masked_fill(~inside[..., None], 0.0).to(node.dtype)
