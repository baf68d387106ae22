"""Sums over where a path can have come from: what recursions by conditional probabilities share.

A path through a lattice is drawn from its end: each state, given the next one, in proportion to the paths that come
through it. Scores occur in differences at one place only, so that these probabilities are right at any scale.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shares(x: Tensor) -> Tensor:
    """The softmax over the last axis; 0 where all entries are −inf."""
    nowhere = torch.isneginf(x).all(-1, keepdim=True)
    return x.masked_fill(nowhere, 0.0).softmax(-1).masked_fill(nowhere, 0.0)


def log_shares(x: Tensor) -> Tensor:
    """ln of :func:`shares`."""
    nowhere = torch.isneginf(x).all(-1, keepdim=True)
    return x.masked_fill(nowhere, 0.0).log_softmax(-1).masked_fill(nowhere, -torch.inf)


def surprisal(values: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Σ_k P(k) (values_k − ln Q(k)) over the last axis, P and Q proportional to exp of scores; 0 · ∞ = 0.

    No −ln Q(k) is negative. Summed along paths or up a tree it is the cross-entropy of P and Q, by the chain rule
    (Hernando, Crespi and Cybenko 2005), and the entropy where Q is P. Values are finite where P(k) > 0, or +∞.
    """
    chances = shares(p)
    return (chances * (values - log_shares(q)).masked_fill(chances == 0, 0.0)).sum(-1)
