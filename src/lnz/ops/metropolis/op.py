"""Metropolis sweeps."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops.conditionals.sites import Order
from lnz.ops.dispatch import Kernels
from lnz.ops.metropolis import reference
from lnz.scores import Model

KERNELS = Kernels("metropolis")
KERNELS.register("cpu", "lnz.ops.gibbs.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))
"""The kernel of Gibbs sweeps of any factor graph has both rules."""


@torch.no_grad()
def metropolis_sweeps(
    model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None = None, order: Order = "random"
) -> tuple[Tensor, Tensor]:
    """The labellings after ``sweeps`` sweeps, and how many proposals each chain has accepted; as the reference.

    The kernel's random numbers are Philox's at (node, chain, sweep) under a key drawn from ``generator``.

    Args:
        model: what to sample; observed nodes keep their labels.
        labels: ``int64 [n, *batch, N]``, in range, observed entries as observed.
        sweeps: 0 or more; each offers every node one label (on average, with ``order="random"``).
        generator: of the random numbers; ``None`` is torch's default one.
        order: as in :func:`lnz.ops.gibbs.op.gibbs_sweeps`.

    Returns:
        New labels, shaped as ``labels``, and counts ``[n, *batch]`` of proposals accepted, those of the present label
        among them. O(sweeps · Σ_f k_f · L) time per chain.
    """
    if sweeps == 0 or labels.numel() == 0:
        return labels.clone(), torch.zeros(labels.shape[:-1], device=labels.device)
    run = KERNELS.find("metropolis_sweeps", *model.tensors) if concrete(labels, *model.tensors) else None
    return (run or reference.metropolis_sweeps)(model, labels, sweeps, generator, order)
