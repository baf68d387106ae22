"""Simulated annealing, and parallel tempering with cluster moves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.annealing import reference
from lnz.ops.annealing.records import Replicas
from lnz.ops.dispatch import Kernels
from lnz.scores import Model

KERNELS = Kernels("annealing")
KERNELS.register("cpu", "lnz.ops.annealing.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


@torch.no_grad()
def anneal(
    model: Model, labels: Tensor, temperatures: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """See :func:`lnz.ops.annealing.reference.anneal`; chains and batch entries side by side."""
    run = KERNELS.find("anneal", *model.tensors)
    return (run or reference.anneal)(model, labels, temperatures, generator)


@torch.no_grad()
def temper(
    model: Model,
    replicas: Replicas,
    temperatures: Sequence[float],
    sweeps: int,
    generator: torch.Generator | None = None,
) -> Replicas:
    """See :func:`lnz.ops.annealing.reference.temper`; runs and batch entries side by side."""
    run = KERNELS.find("temper", *model.tensors)
    return (run or reference.temper)(model, replicas, temperatures, sweeps, generator)
