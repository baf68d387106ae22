"""The entropy of a chain from its marginals, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def entropy(nodes: Tensor, edges: Tensor) -> Tensor:
    """H(y) = H(y_1) + Σ_t H(y_{t+1} | y_t), ``[*batch]``, of marginals ``[*batch, T, L]`` and ``[*batch, T-1, L, L]``.

    By the chain rule of entropy, in which scores do not occur: as exact as the marginals at any scale of these, where
    ln Z − E[s(y)] is a difference of two large numbers. No term is negative. O(T L²) time and memory.
    """
    return _conditional(nodes[..., :1, :]).sum(-1) + _conditional(edges).flatten(-2).sum(-1)


def _conditional(joint: Tensor) -> Tensor:
    """−Σ_l p(k, l) ln (p(k, l) / Σ_l p(k, l)) over the last axis, with 0 ln 0 = 0; its gradient is −ln of the ratio."""
    whole, least = joint.sum(-1, keepdim=True), torch.finfo(joint.dtype).tiny  # less has no inverse
    whole = whole.masked_fill(whole < least, 1.0)
    ratio = torch.where(joint < least, whole, joint) / whole
    return -(joint * ratio.log()).sum(-1)
