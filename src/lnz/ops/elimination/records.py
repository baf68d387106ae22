"""What the functions of variable elimination take and give, and its backends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels
from lnz.ops.elimination.program import Program, program_of
from lnz.ops.scaffold.batch import Axis

KERNELS = Kernels("elimination")
KERNELS.register("cpu", "lnz.ops.elimination.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))

BASE = {"base": Axis(shared=True)}


class Rows(NamedTuple):
    """Models of one junction tree.

    Attributes:
        scores: all tables ``[B, program.size]``, float32 or wider.
        base: ``int64 [B or 1, tables]``, where each table starts in its row; no columns where no node is cut out.
        handle: the junction tree's :attr:`Program.handle`.
        clamped: whether any node table holds anything but 0; if not, they need not be read.
    """

    scores: Tensor
    base: Tensor
    handle: str
    clamped: bool

    # a method, not a property, which torch.compile of torch 2.10 cannot trace on named tuples
    def program(self) -> Program:
        return program_of(self.handle)


class Pass(NamedTuple):
    """ln Z, float64 ``[B]``, and the marginal of every entry of every table ``[B, program.size]``."""

    log_z: Tensor
    marginals: Tensor


class Total(NamedTuple):
    """ln Z, float64 ``[B]``."""

    log_z: Tensor


def arrays(scores: Tensor, base: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores and base as kernels take them."""
    return scores.detach().contiguous().numpy(), base.contiguous().numpy()
