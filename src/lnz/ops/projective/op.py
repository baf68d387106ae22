"""Projective dependency trees: ln Z and arc marginals. Shapes as in :mod:`lnz.ops.projective.reference`."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.arcs.records import Arcs, Pass, climb, empty_pass, gradient
from lnz.ops.dispatch import Kernels
from lnz.ops.jit.triton import SERVED
from lnz.ops.projective import reference
from lnz.ops.scaffold import Differentiable, Operator

KERNELS = Kernels("projective")
KERNELS.register("cpu", "lnz.ops.projective.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))
KERNELS.register("triton", "lnz.ops.projective.gpu", **SERVED)


def solve(arcs: Arcs) -> Pass:
    """The pass: by the kernel in exponentials where their range suffices, in logarithms elsewhere."""
    run = KERNELS.find("inside_outside", arcs.scores) if arcs.scores.numel() else None
    if run is not None:
        return climb(run, in_logs, arcs)
    in_any_range = KERNELS.find("solve", arcs.scores) if arcs.scores.numel() else None
    return in_logs(arcs) if in_any_range is None else in_any_range(arcs)


def in_logs(arcs: Arcs) -> Pass:
    """ln Z and marginals, whatever the range of the scores."""
    run = KERNELS.find("inside_outside_in_logs", arcs.scores) if arcs.scores.numel() else None
    if run is not None:
        return Pass(*run(arcs))
    wide = arcs.wide()
    return Pass(reference.log_partition(*wide), reference.marginals(*wide).to(arcs.scores.dtype))


def marginals(arcs: Arcs) -> list[Tensor]:
    """P(arc) ``[B, N + 1, N + 1]``, in plain torch."""
    return [reference.marginals(*arcs.wide()).to(arcs.scores.dtype)]


PROJECTIVE = Differentiable(
    Operator("projective", solve, empty_pass, Arcs, Pass), scores=1, gradient=gradient, marginals=marginals
)
