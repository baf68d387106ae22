"""Metropolis sweeps in plain torch: any device and dtype, all chains and models at once."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.random import uniform
from lnz.ops.conditionals.sites import Order
from lnz.ops.conditionals.sweep import sweep
from lnz.scores import Model


def metropolis_sweeps(
    model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, order: Order
) -> tuple[Tensor, Tensor]:
    """As :func:`lnz.ops.metropolis.op.metropolis_sweeps`.

    A node is offered a label drawn uniformly from all that it has, the present one too, and takes it with probability
    min(1, e^gain) of what the score gains; never where that is −inf or, between two impossible labels, NaN.
    """
    labels, count = labels.clone(), torch.zeros(labels.shape[:-1], device=labels.device)

    def moved(scores: Tensor, before: Tensor, cardinalities: Tensor, free: Tensor) -> Tensor:
        nonlocal count
        drawn = (uniform(before.shape, scores, generator) * cardinalities).long().minimum(cardinalities - 1)
        gain = (scores.gather(-1, drawn[..., None]) - scores.gather(-1, before[..., None])).squeeze(-1)
        accept = uniform(gain.shape, gain, generator).log() < gain
        count = count + (accept & free).sum(-1)
        return torch.where(accept, drawn, before)

    for _ in range(sweeps):
        sweep(model, labels, order, generator, moved)
    return labels, count
