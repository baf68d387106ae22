"""Which paths through frames and labels an alignment may take.

A node (t, u) stands for t frames read and u labels emitted. From it a *blank* arc leads to (t + 1, u), and a *label*
arc emits the next label in frame t. Where a frame may emit several labels it leads to (t, u + 1) (Graves 2012); where
it may emit one at most, to (t + 1, u + 1) (Tripathi et al. 2019). An alignment is a path from (0, 0) to (n, m), for n
frames and m labels; no arc leaves a node after the last frame, so that the first kind of path ends with a blank.

Both are one recursion over *steps*, in which a path takes one arc each and its column u grows by one or not at all:
step t + u of the first kind, step t of the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Lattice(NamedTuple):
    """The lattices of B sequences; what :mod:`lnz.ops.transducer` takes beside scores.

    Attributes:
        lengths: ``int64 [B]``, frames.
        target_lengths: ``int64 [B]``, labels.
        several: whether a frame may emit several labels.
    """

    lengths: Tensor
    target_lengths: Tensor
    several: bool

    # methods, not properties, which torch.compile of torch 2.10 cannot trace on named tuples
    def slant(self) -> int:
        """How many frames an arc of a step lies earlier, per label emitted before: t = step − slant · u."""
        return int(self.several)

    def steps(self) -> Tensor:
        """The number of arcs of every path, ``[B]``."""
        return self.lengths + self.slant() * self.target_lengths

    def blanks(self, T: int, U: int) -> Tensor:
        """Which nodes have a blank arc, ``bool [B, T, U + 1]``."""
        frames, labels = (torch.arange(n, device=self.lengths.device) for n in (T, U + 1))
        return (frames < self.lengths[:, None])[..., None] & (labels <= self.target_lengths[:, None])[:, None]

    def labels(self, T: int, U: int) -> Tensor:
        """Which nodes have a label arc, ``bool [B, T, U]``."""
        return self.blanks(T, U)[..., 1:]  # one less label emitted
