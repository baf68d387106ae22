"""Soft targets: the cross-entropy against another distribution, a teacher's say."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.distributions.base import StructuredDistribution
from lnz.objectives.reduction import Reduction, check_possible, check_reduction, reduced


def soft_nll(
    p: StructuredDistribution,
    target: StructuredDistribution,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """−Σ_y T(y) ln P(y), over all labellings y: what :func:`nll` is of a sure ``target`` T.

    Its gradient by the scores of p is their marginals under p − those under the target; it is least, T's entropy, where
    p is the target. For distillation (Hinton et al. 2015) divide the scores of both: ``soft_nll(p.tempered(t),
    teacher.tempered(t))``. The target is differentiated too; make it under ``torch.no_grad`` where it is not learnt.
    As costly as a marginal of each.

    Args:
        p: the distribution that is learnt.
        target: of the same family, event and lengths.
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch.
        zero_infinity: a target that may be what is impossible under p gives loss 0 and gradient 0 instead of an error.

    Raises:
        InfeasibleError: such a target, naming the batch entries; a target or p without a possible labelling.
        TypeError, ValueError: another family, event or lengths; an unknown reduction.
    """
    check_reduction(reduction)
    for name, value in (("p", p), ("target", target)):
        if not isinstance(value, StructuredDistribution):
            raise TypeError(f"{name}: expected a structured distribution, got {type(value).__name__}")
    losses = target.cross_entropy(p)
    if zero_infinity:
        losses = torch.where(torch.isposinf(losses), 0.0, losses)
    else:
        check_possible(losses, "; the target may be what is impossible under p; zero_infinity=True leaves these out")
    return reduced(losses, reduction)
