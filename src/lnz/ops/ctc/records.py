"""What the operator of CTC takes and gives, and its backends."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.ctc.lattice import Lattice
from lnz.ops.dispatch import Kernels
from lnz.ops.jit.triton import SERVED

KERNELS = Kernels("ctc")
KERNELS.register("cpu", "lnz.ops.ctc.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))
KERNELS.register("triton", "lnz.ops.ctc.gpu", **SERVED)


class Frames(NamedTuple):
    """Scores of classes, and the states that they are the scores of.

    Attributes:
        scores: ``[B, T, C]``, float32 or wider unless a backend serves them as they are.
        prior: ``[C]``, taken off the scores; held constant.
        of: the lattice.
        normalise: whether ln Σ_c exp of the scores of each frame is taken off.
    """

    scores: Tensor
    prior: Tensor
    of: Lattice
    normalise: bool


class Pass(NamedTuple):
    """What a pass leaves.

    Attributes:
        log_z: ln Q ``[B]``, double.
        occupancy: of the labels of the target and, last, of all blanks ``[B, T, S + 1]``; ``[B, 0, S + 1]`` where it is
            made again for the gradient.
        frames: of each frame the largest score and the sum of exp of scores less that ``[B, T, 2]``.
    """

    log_z: Tensor
    occupancy: Tensor
    frames: Tensor


def whole_lattice(B: int, T: int, S: int) -> bool:
    """Whether occupancies ``[B, T, S + 1]`` are kept for the gradient, or made again where it is asked for.

    They are where they take at most 1 GiB (as float64), and one lattice, 32 bytes a label and frame, at most 128 MiB.
    """
    return 8 * B * T * (S + 1) <= 2**30 and 32 * T * (S + 1) <= 2**27
