"""What the functions of transducers take and give."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels
from lnz.ops.transducer.lattice import Lattice

KERNELS = Kernels("transducer")
KERNELS.register("cpu", "lnz.ops.transducer.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


class Joint(NamedTuple):
    """Joint scores of B sequences.

    Attributes:
        logits: ``[B, T, U + 1, C]``.
        labels: ``int64 [B, U]``, classes; anything in 0 … C − 1 beyond the target.
        lengths: ``int64 [B]``, frames.
        target_lengths: ``int64 [B]``, labels.
        blank: the class of blank.
        normalise: whether ln Σ_c exp of the logits of each node is taken off.
    """

    logits: Tensor
    labels: Tensor
    lengths: Tensor
    target_lengths: Tensor
    blank: int
    normalise: bool

    # a method, not a property, which torch.compile of torch 2.10 cannot trace on named tuples
    def inside(self) -> Tensor:
        """Which nodes have a blank arc, ``bool [B, T, U + 1]``."""
        _, T, W, _ = self.logits.shape
        return Lattice(self.lengths, self.target_lengths, True).blanks(T, W - 1)


class ArcScores(NamedTuple):
    """Scores of the arcs of blank ``[B, T, U + 1]`` and labels ``[B, T, U]``, double; scales of nodes ``[…, 2]``."""

    blank: Tensor
    label: Tensor
    scales: Tensor


class Arcs(NamedTuple):
    """Scores of arcs ``[B, T, U + 1]`` and ``[B, T, U]``, and the fields of a :class:`.lattice.Lattice`."""

    blank: Tensor
    label: Tensor
    lengths: Tensor
    target_lengths: Tensor
    several: bool

    @property
    def of(self) -> Lattice:
        return Lattice(*self[2:])


class Pass(NamedTuple):
    """ln Z ``[B]``, double, and the probabilities of arcs, shaped as their scores."""

    log_z: Tensor
    blanks: Tensor
    labels: Tensor
