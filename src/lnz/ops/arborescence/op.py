"""Dependency trees of any shape: ln Z and arc marginals. Shapes as in :mod:`lnz.ops.arborescence.reference`."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.arborescence import reference
from lnz.ops.arcs.records import Arcs, Pass, climb, empty_pass, gradient
from lnz.ops.dispatch import Kernels
from lnz.ops.scaffold import Differentiable, Operator

KERNELS = Kernels("arborescence")
KERNELS.register("cpu", "lnz.ops.arborescence.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


def solve(arcs: Arcs) -> Pass:
    """The pass: by the kernel in exponentials where their range suffices, by the reference elsewhere."""
    run = KERNELS.find("eliminate", arcs.scores) if arcs.scores.numel() else None
    return in_logs(arcs) if run is None else climb(run, in_logs, arcs)


def in_logs(arcs: Arcs) -> Pass:
    """ln Z and marginals, whatever the range of the scores."""
    wide = arcs.wide()
    return Pass(reference.log_partition(*wide), reference.marginals(*wide).to(arcs.scores.dtype))


def marginals(arcs: Arcs) -> list[Tensor]:
    """P(arc) ``[B, N + 1, N + 1]``, in plain torch."""
    return [reference.marginals(*arcs.wide()).to(arcs.scores.dtype)]


ARBORESCENCE = Differentiable(
    Operator("arborescence", solve, empty_pass, Arcs, Pass), scores=1, gradient=gradient, marginals=marginals
)
