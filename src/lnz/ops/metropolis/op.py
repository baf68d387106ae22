"""Metropolis sweeps: the kernel of Gibbs sweeps of any factor graph, by its other rule, or the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops import use_kernels
from lnz.ops.conditionals.sites import Order
from lnz.ops.gibbs import graph
from lnz.ops.metropolis import reference
from lnz.scores import Model


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
    if not (use_kernels(*model.tensors) and labels.device.type == "cpu" and concrete(labels, *model.tensors)):
        return reference.metropolis_sweeps(model, labels, sweeps, generator, order)
    accepted = torch.zeros(labels.shape[:-1], dtype=torch.int64)
    moved = graph.run(model, labels, sweeps, generator, order, 1.0, accepted.view(-1))
    return moved, accepted.to(torch.get_default_dtype())
