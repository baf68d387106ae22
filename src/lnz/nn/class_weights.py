"""The log-likelihood of a chain with a weight per class."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.distributions import LinearChain
from lnz.ops.chain import reference
from lnz.semirings import Log


def class_weighted_log_prob(chain: LinearChain, y: Tensor, weights: Tensor) -> Tensor:
    """Σ_t w[y_t] ln P(y_t | y_{t−1}, x), ``[B]``: the chain rule, each factor weighted by the class of its label.

    Where all weights are 1 it is ln P(y), where all edge scores are 0 the weighted cross-entropy of each step. No term
    is positive, and the P that maximises its mean has P(y_t | y_{t−1}) in proportion to w[y_t] times the data's.

    Weights of the terms of a likelihood by the class of the gold label are those of de Lannoy, François, Delbeke &
    Verleysen 2012, who normalise step t by what has come so far, Z_t / Z_{t−1} of the forward recursion. Such terms are
    no probabilities, and with unequal weights their sum has no upper bound; here each is normalised over the whole
    sequence, by the backward recursion (with ln Z in place of β before the first step):

        ln P(y_t | y_{t−1}, x) = A(y_{t−1}, y_t) + x_t(y_t) + β_t(y_t) − β_{t−1}(y_{t−1})

    In the log domain by plain PyTorch: O(T L²) time and, for the gradient, memory per sequence.

    Args:
        chain: with one batch axis.
        y: full labellings ``int64 [B, T]``; whatever they are over padding is ignored.
        weights: w ``[L]``, not negative. What has weight 0 is left out, even where it is impossible.
    """
    node, edge, lengths = chain._flat
    dtype, wide = node.dtype, reference.accumulator(node)
    node, edge = node.to(wide), edge.to(wide)
    if not node.shape[1]:
        return node.sum((1, 2)).to(dtype)
    y = chain._checked(y).clamp(min=0)
    beta = torch.stack(reference.backward(Log(), node, edge, lengths), 1)
    onward = (node + beta).gather(2, y.unsqueeze(2)).squeeze(2)
    given = torch.cat((Log().plus(node[:, :1] + beta[:, :1], -1), beta.gather(2, y.unsqueeze(2)).squeeze(2)[:, :-1]), 1)
    terms = onward + _pairs(edge, y) - given.masked_fill(torch.isneginf(given), 0.0)
    weight = weights.to(wide)[y]
    return torch.where(chain._inside & (weight > 0), weight * terms, 0.0).sum(1).to(dtype)


def _pairs(edge: Tensor, y: Tensor) -> Tensor:
    """The edge scores ``[B or 1, S, L, L]`` into each step, ``[B, T]``; 0 into the first."""
    B, T = y.shape
    tables = edge.expand(B, max(0, T - 1), -1, -1).flatten(2)
    pair = (y[:, :-1] * edge.shape[-1] + y[:, 1:]).unsqueeze(2)
    return torch.nn.functional.pad(tables.gather(2, pair).squeeze(2), (1, 0))
