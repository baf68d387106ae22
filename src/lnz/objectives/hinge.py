"""The hinge of structured support vector machines: gold must win by as much as the other labelling is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.distributions.base import StructuredDistribution
from lnz.objectives.augmented import augmented_argmax, judged
from lnz.objectives.errors import TaskError, check_error
from lnz.objectives.labels import as_nodes, completed_by_argmax
from lnz.objectives.reduction import Reduction, check_possible, check_reduction, reduced


def hinge(p: StructuredDistribution, y: Tensor, error: TaskError, reduction: Reduction = "mean") -> Tensor:
    """max_ŷ [s(ŷ) + Err(y, ŷ)] − s(y), the margin-rescaled structured hinge (Tsochantaridis et al. 2005).

    0 exactly where s(y) ≥ s(ŷ) + Err(y, ŷ) for every ŷ; always an upper bound of the prediction's error, and convex in
    the scores. With latent labels (−100) it is max_ŷ [s(ŷ) + Err(y, ŷ)] − max_z s(y, z) (Yu and Joachims 2009).

    The first maximum is exact where the inference method's argmax is exact and the error a sum over labels (it has
    ``node_costs``); otherwise it is what argmax, or the search that :func:`label_adjustment` describes, has found: a
    lower bound, which may even be negative.

    Args:
        p: :class:`~lnz.MRF`, :class:`~lnz.LinearChain` or :class:`~lnz.Softmax`.
        y: ``int64 [*batch, *event]`` gold labels; −100 where latent.
        error: as for :func:`label_adjustment`, not negative, and 0 for gold itself (a cost matrix has a zero diagonal).
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch.

    Raises:
        InfeasibleError: a gold labelling is impossible, naming the batch entries.
        TypeError: a family without scores of single labels, an inference method without argmax, or an error that is no
            function of two labellings.
        ValueError: an unknown reduction, wrong labels, an error that is negative, not finite, or not 0 for gold.
    """
    check_reduction(reduction)
    check_error(error)
    p, gold = as_nodes(p, y)
    _check_margin(judged(error, gold, gold), of_gold=True)
    score = p._relative_score(completed_by_argmax(p, gold))
    check_possible(-score)
    worst = augmented_argmax(p, gold, error, torch.ones_like(score.detach(), dtype=p._dtype))
    margin = judged(error, gold, worst)
    _check_margin(margin)
    return reduced(p._relative_score(worst) - score + margin, reduction).to(p._dtype)


def _check_margin(margin: Tensor, of_gold: bool = False) -> None:
    """Raise where an error is negative, or that of gold itself is not 0, beyond what rounding leaves."""
    wrong = margin.abs() if of_gold else -margin
    if concrete(margin) and (wrong > 1e-6).any():
        kind = "0 for gold itself" if of_gold else "no negative values"
        where = wrong.argmax()
        raise ValueError(f"error: as a margin, expected {kind}, got {margin.flatten()[where].item():.6g}")
