"""Iterated conditional modes."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels
from lnz.ops.icm import reference
from lnz.scores import Model

KERNELS = Kernels("icm")
KERNELS.register("cpu", "lnz.ops.icm.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


def icm(model: Model, labels: Tensor, max_sweeps: int = 2**31) -> Tensor:
    """See :func:`lnz.ops.icm.reference.icm`; batch entries side by side."""
    return (KERNELS.find("icm", *model.tensors) or reference.icm)(model, labels, max_sweeps)
