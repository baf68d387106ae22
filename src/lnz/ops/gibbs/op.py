"""Gibbs sweeps."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops.conditionals.sites import Order
from lnz.ops.dispatch import Kernels
from lnz.ops.gibbs import reference
from lnz.scores import Model

KERNELS = Kernels("gibbs")
KERNELS.register("cpu", "lnz.ops.gibbs.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


@torch.no_grad()
def gibbs_sweeps(
    model: Model,
    labels: Tensor,
    sweeps: int,
    generator: torch.Generator | None = None,
    order: Order = "chromatic",
    temperature: float = 1.0,
) -> Tensor:
    """The labellings after ``sweeps`` Gibbs sweeps; O(sweeps · Σ_f k_f · L) time per chain, memory O(state).

    The random numbers are Philox's at (node, chain, sweep) under a key drawn from ``generator``: they do not depend on
    the number of threads. On 4-neighbour grids chromatic order is the checkerboard.

    Args:
        model: what to sample; observed nodes keep their labels.
        labels: ``int64 [n, *batch, N]``, in range, observed entries as observed.
        sweeps: how many times every node is redrawn (on average, with ``order="random"``).
        generator: of the random numbers; ``None`` is torch's default one.
        order: see :func:`lnz.ops.conditionals.sites.schedule`; in random order each chain draws its own nodes.
        temperature: that all scores are divided by, positive.

    Returns:
        New labels, shaped as ``labels``. A node none of whose labels is possible keeps the one it has.

    Raises:
        ValueError: an unknown order, a negative number of sweeps, a temperature that is not positive, or labels whose
            shape is not ``[n, *batch, N]``.
    """
    if order not in get_args(Order):
        raise ValueError(f"order: expected 'chromatic', 'systematic' or 'random', got {order!r}")
    if sweeps < 0:
        raise ValueError(f"sweeps: expected a number of sweeps, 0 or more, got {sweeps}")
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    expected = (*model.batch_shape, model.graph.num_nodes)
    if labels.dim() != len(expected) + 1 or tuple(labels.shape[1:]) != expected:
        shape = ", ".join(map(str, ("n", *expected)))
        raise ValueError(f"labels: expected shape [{shape}], got {list(labels.shape)}")
    if sweeps == 0 or labels.numel() == 0:
        return labels.clone()
    run = KERNELS.find("gibbs_sweeps", *model.tensors) if concrete(labels, *model.tensors) else None
    return (run or reference.gibbs_sweeps)(model, labels, sweeps, generator, order, temperature)
