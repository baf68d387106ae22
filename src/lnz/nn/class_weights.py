"""The log-likelihood of a chain with a weight per class."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.distributions import LinearChain


def class_weighted_log_prob(chain: LinearChain, y: Tensor, weights: Tensor) -> Tensor:
    """Σ_t w[y_t] ln P(y_t | y_{t−1}, x), ``[*batch]``: the chain rule, each factor weighted by the class of its label.

    Where all weights are 1 it is ln P(y), where all edge scores are 0 the weighted cross-entropy of each step. No term
    is positive, and the P that maximises its mean has P(y_t | y_{t−1}) in proportion to w[y_t] times the data's.

    Weights of the terms of a likelihood by the class of the gold label are those of de Lannoy, François, Delbeke &
    Verleysen 2012, who normalise step t by what has come so far, Z_t / Z_{t−1} of the forward recursion. Such terms are
    no probabilities, and with unequal weights their sum has no upper bound; here each is normalised over the whole
    sequence, see :meth:`lnz.LinearChain.step_log_probs`, whose time and memory it takes.

    Args:
        chain: of any batch shape.
        y: full labellings ``int64 [*batch, T]``; whatever they are over padding is ignored.
        weights: w ``[L]``, not negative. What has weight 0 is left out, even where it is impossible.
    """
    terms = chain.step_log_probs(y)
    weight = weights.to(terms.dtype)[chain.labelling(y).clamp(min=0)]
    return torch.where(chain.inside & (weight > 0), weight * terms, 0.0).sum(-1).to(chain.node_scores.dtype)
