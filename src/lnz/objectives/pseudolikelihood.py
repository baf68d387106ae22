"""Pseudolikelihood: every label given all the others, so that no Z over labellings is needed."""

from __future__ import annotations

from torch import Tensor

from lnz.distributions.base import StructuredDistribution
from lnz.objectives.labels import check_single_labels
from lnz.objectives.reduction import Reduction, check_possible, check_reduction, reduced


def pseudolikelihood(p: StructuredDistribution, y: Tensor, reduction: Reduction = "mean") -> Tensor:
    """−Σ_n ln P(y_n | the other labels), exact in O(labels × factors) on every graph (Besag 1975).

    Where the data come from a P of the family, its minimiser is that P (with finite scores). One pass over the factors,
    differentiable any number of times; the inference method of ``p`` is not used. The only label of a
    :class:`~lnz.Softmax` has no others, and this is :func:`nll`.

    With latent labels (−100) the sum runs over the observed ones, each given the other *observed* ones, which is still
    the conditional of a proper distribution. The latent nodes are summed out one by one, which is right as long as no
    two of them share a factor (the hidden units of a restricted Boltzmann machine). It is an error elsewhere.

    Args:
        p: :class:`~lnz.MRF`, :class:`~lnz.LinearChain` or :class:`~lnz.Softmax`.
        y: ``int64 [*batch, *event]`` gold labels; −100 where latent.
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch.

    Raises:
        InfeasibleError: a gold label is impossible given the others, naming the batch entries.
        TypeError: a family without conditionals of single labels.
        ValueError: an unknown reduction; latent labels that share a factor; wrong labels.
    """
    check_reduction(reduction)
    check_single_labels(p)
    wide = p._wide  # what is of half precision is rounded once
    terms = wide.log_conditionals(y)
    losses = -terms.flatten(-len(p.event_shape)).sum(-1) if p.event_shape else -terms
    check_possible(losses)
    return reduced(losses, reduction).to(p._dtype)
