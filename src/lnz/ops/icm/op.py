"""Iterated conditional modes."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels
from lnz.ops.icm import reference
from lnz.ops.softened import softened
from lnz.scores import Model

KERNELS = Kernels("icm")
KERNELS.register("cpu", "lnz.ops.icm.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


def icm(model: Model, labels: Tensor, max_sweeps: int = 2**31) -> Tensor:
    """See :func:`lnz.ops.icm.reference.icm`; batch entries side by side.

    What is impossible has a finite score here, below that of every possible labelling: where it is given an impossible
    one, the search makes fewer things impossible, step by step.
    """
    run = KERNELS.find("icm", *model.tensors) or reference.icm
    return run(softened(model), labels, max_sweeps)
