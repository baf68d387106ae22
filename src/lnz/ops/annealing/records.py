"""What parallel tempering hands on from call to call."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Replicas(NamedTuple):
    """Of n runs that know nothing of each other: labellings at R temperatures, and the best one so far.

    Attributes:
        labels: ``int64 [n, 2, R, *batch, N]``, two at each temperature, in range, observed entries as observed.
        best: ``int64 [n, *batch, N]``, of the same kind.
    """

    labels: Tensor
    best: Tensor
