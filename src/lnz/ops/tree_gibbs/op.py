"""Joint draws of forests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import concrete
from lnz.ops.dispatch import Kernels
from lnz.ops.tree_gibbs import reference
from lnz.scores import Model

KERNELS = Kernels("tree_gibbs")
KERNELS.register("cpu", "lnz.ops.tree_gibbs.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


@torch.no_grad()
def tree_sweeps(
    model: Model,
    labels: Tensor,
    sweeps: int,
    generator: torch.Generator | None = None,
    blocks: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """See :func:`lnz.ops.tree_gibbs.reference.tree_sweeps`."""
    run = KERNELS.find("tree_sweeps", *model.tensors) if concrete(labels, *model.tensors) else None
    return (run or reference.tree_sweeps)(model, labels, sweeps, generator, blocks)


@torch.no_grad()
def forest_moves(
    model: Model, labels: Tensor, temperatures: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """See :func:`lnz.ops.tree_gibbs.reference.forest_moves`."""
    run = KERNELS.find("forest_moves", *model.tensors) if concrete(labels, *model.tensors) else None
    return (run or reference.forest_moves)(model, labels, temperatures, generator)
