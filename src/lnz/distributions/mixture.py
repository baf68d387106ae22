"""Mixtures: a component that nobody observed, and how likely each component makes what was observed."""

from __future__ import annotations

from torch import Tensor

from lnz.checks import check_same_kind, check_scores
from lnz.distributions.bayes_net import BayesNet
from lnz.distributions.log_probabilities import check_rows


def mixture(log_weights: Tensor, log_likelihoods: Tensor) -> BayesNet:
    """P(component | x) of mixtures ``Σ_k w_k p_k(x)``, whatever the densities are: a network of one variable.

    ``log_partition [*batch]`` is ln p(x), to be trained by its gradient, and ``marginals[0] [*batch, K]`` are the
    responsibilities; ``sample``, ``argmax``, ``entropy`` are those of the component. Both arguments may come from
    networks: weights that depend on an input make a mixture of experts (Jacobs et al. 1991). A mixture of products of
    categoricals with its EM is :func:`lnz.latent_class`; of Gaussians, :class:`lnz.nn.MixtureModel`.

    Args:
        log_weights: ln w ``[*batch, K]`` or ``[K]``, of which each row sums to 1; −inf for 0.
        log_likelihoods: ln p_k(x) ``[*batch, K]``; −inf where a component rules x out. A row of 0 is an x that is
            missing.

    Raises:
        TypeError, ValueError: arguments of the wrong type, shape or value; weights that do not sum to 1.
    """
    for name, scores in (("log_weights", log_weights), ("log_likelihoods", log_likelihoods)):
        check_scores(name, scores)
    if not log_weights.dim() or not log_weights.shape[-1]:
        raise ValueError(f"log_weights: expected shape [*batch, K], got {list(log_weights.shape)}")
    K = log_weights.shape[-1]
    if log_likelihoods.shape[-1:] != (K,):
        raise ValueError(f"log_likelihoods: expected shape [*batch, {K}], got {list(log_likelihoods.shape)}")
    check_same_kind("log_weights", log_weights, "log_likelihoods", log_likelihoods)
    check_rows("log_weights", log_weights)
    return BayesNet([K], [[]], [log_weights + log_likelihoods], names=["component"], normalised=False)
