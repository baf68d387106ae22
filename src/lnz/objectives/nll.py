"""Negative log-likelihood: ln Z − s(gold), or ln Z − ln Z(observed) where part of the gold is latent."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.distributions.base import StructuredDistribution
from lnz.errors import InfeasibleError

Reduction = Literal["none", "mean", "sum"]


def nll(p: StructuredDistribution, y: Tensor, reduction: Reduction = "mean", zero_infinity: bool = False) -> Tensor:
    """−ln P(y), the exponential softmax's cross-entropy; its gradient is model marginals − gold indicators.

    Under an approximate method this is the method's own ln Z minus the exact score (under belief propagation the
    Bethe ln Z, whose gradient is exactly the beliefs), so it may be negative.

    Args:
        p: any structured distribution.
        y: ``int64 [*batch, *event]`` gold labels; −100 entries are latent and summed over.
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch.
        zero_infinity: a gold labelling of probability 0 gives loss 0 and gradient 0 instead of an error.

    Raises:
        InfeasibleError: a gold labelling has probability 0, naming the batch entries.
        ValueError: an unknown reduction, or what ``p.log_prob`` raises.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
    losses = -p.log_prob(y)
    impossible = torch.isposinf(losses)
    if zero_infinity:
        losses = torch.where(impossible, 0.0, losses)
    elif concrete(losses) and impossible.any():
        entries = impossible.reshape(-1).nonzero().flatten().tolist()
        raise InfeasibleError(
            f"y: expected gold labellings of positive probability, got probability 0 in batch entries {entries[:8]}"
            f"{'…' if len(entries) > 8 else ''}; zero_infinity=True leaves them out",
            entries=entries,
        )
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
