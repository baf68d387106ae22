"""Dependency trees of any shape: ln Z and arc marginals. Shapes as in :mod:`lnz.ops.arborescence.reference`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.arborescence import reference
from lnz.ops.arcs.records import Arcs, Pass, empty_pass, gradient
from lnz.ops.dispatch import Kernels
from lnz.ops.scaffold import Differentiable, Operator

KERNELS = Kernels("arborescence")
KERNELS.register("cpu", "lnz.ops.arborescence.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


def solve(arcs: Arcs) -> Pass:
    """The pass: by the kernel in exponentials where their range suffices, by the reference elsewhere."""
    run = KERNELS.find("eliminate", arcs.scores) if arcs.scores.numel() else None
    if run is None:
        return Pass(*in_logs(arcs))

    def kernel(some: _Batch) -> tuple[tuple[Tensor, ...], Tensor]:
        *results, in_range = run(Arcs(*some, arcs.single_root))
        return tuple(results), in_range

    def logarithms(some: _Batch) -> tuple[Tensor, ...]:
        return in_logs(Arcs(*some, arcs.single_root))

    return Pass(*precision.climb(_Batch(*arcs[:2]), kernel, None, logarithms).results)


class _Batch(NamedTuple):
    """The batched part of :class:`~lnz.ops.arcs.Arcs`."""

    scores: Tensor
    lengths: Tensor


def in_logs(arcs: Arcs) -> tuple[Tensor, Tensor]:
    """ln Z and marginals, whatever the range of the scores."""
    wide = arcs.wide()
    return reference.log_partition(*wide), reference.marginals(*wide).to(arcs.scores.dtype)


def marginals(arcs: Arcs) -> list[Tensor]:
    """P(arc) ``[B, N + 1, N + 1]``, in plain torch."""
    return [reference.marginals(*arcs.wide()).to(arcs.scores.dtype)]


ARBORESCENCE = Differentiable(
    Operator("arborescence", solve, empty_pass, Arcs, Pass), scores=1, gradient=gradient, marginals=marginals
)
