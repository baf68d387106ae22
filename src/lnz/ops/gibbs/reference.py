"""Gibbs sweeps in plain torch: any device and dtype, all chains and models at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.random import categorical
from lnz.ops.conditionals.sites import Order
from lnz.ops.conditionals.sweep import sweep
from lnz.scores import Model


def gibbs_sweeps(
    model: Model,
    labels: Tensor,
    sweeps: int,
    generator: torch.Generator | None = None,
    order: Order = "chromatic",
    temperature: float = 1.0,
) -> Tensor:
    """The labellings after ``sweeps`` Gibbs sweeps; O(sweeps · Σ_f k_f · L) time per chain.

    Args:
        model: what to sample; observed nodes keep their labels.
        labels: ``int64 [n, *batch, N]``, in range, observed entries as observed.
        sweeps: how many times every node is redrawn (on average, with ``order="random"``).
        generator: of the random numbers; ``None`` is torch's default one.
        order: see :func:`~lnz.ops.conditionals.sweep.sweep`.
        temperature: that all scores are divided by.

    Returns:
        New labels, shaped as ``labels``. A node none of whose labels is possible keeps the one it has.
    """

    def redrawn(scores: Tensor, before: Tensor, cardinalities: Tensor, free: Tensor) -> Tensor:
        possible = ~torch.isneginf(scores.amax(-1))
        return torch.where(possible, categorical(scores / temperature, generator), before)

    labels = labels.clone()
    for _ in range(sweeps):
        sweep(model, labels, order, generator, redrawn)
    return labels
