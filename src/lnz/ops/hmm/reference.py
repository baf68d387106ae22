"""Filtering in the log domain, for any device and dtype. Shapes as in :mod:`lnz.ops.chain.reference`."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.chain import reference as chain
from lnz.ops.precision import accumulator


def filtered(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """The normalised forward variables α_t(l) / Σ_k α_t(k), ``[B, T, L]``; 0 over padding, and where Σ_k α_t(k) = 0.

    Where ``node`` and ``edge`` are the log-probabilities of an HMM, these are P(z_t = l | x_0 … x_t). O(B T L²) time.
    """
    wide = accumulator(node)
    alphas, _ = chain.filtered(node.to(wide), edge.to(wide), lengths)
    if not alphas:
        return node
    inside = torch.arange(node.shape[1], device=node.device) < lengths[:, None]
    return torch.stack(alphas, 1).exp().masked_fill(~inside[..., None], 0.0).to(node.dtype)
