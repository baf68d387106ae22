"""The domains of messages on grids, and which images fit into the fastest. Shapes as in :mod:`lnz.ops.grid_scores`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lnz.ops.grid_scores import Side

EXP: tuple[()] = ()
LOG, MAX = (0,), (1,)
"""Probabilities, their logarithms (sum-product), max-marginals in logarithms.

The compiler knows the length of a tuple: ``EXP`` gets a kernel of its own, ``LOG`` and ``MAX`` share one.
"""


def fits(dtype: torch.dtype, node_reach: Tensor, across: Side, down: Side) -> Tensor:
    """Which images can be computed in probabilities, ``bool [B]``; the others need logarithms.

    A message is an average of table entries, so its labels differ by a factor of at most e^reach of its edge. A product
    of a node's scores and its four messages, each of mean one and the largest entry of each at least one, thus lies
    between e^−(node reach + 2 horizontal + 2 vertical reaches) and L⁴. Below 80 (float32) or 700 (float64) none
    underflows; −inf at a node is an exact 0 and does no harm.
    """
    limit = 80.0 if dtype == torch.float32 else 700.0
    return node_reach + 2 * across.reach[across.which] + 2 * down.reach[down.which] < limit - 4 * math.log(2.0)


def fits_reweighted(dtype: torch.dtype, node_reach: Tensor, across: Side, down: Side) -> Tensor:
    """:func:`fits` where messages are reweighted, of the scores that kernels read; nodes may span any range.

    With r the reach of an edge, messages of mean one lie between e^−r and L, so that what a node sends, which is at
    least 1 at its best label, is at most L² e^2r: quotients by two messages stay inside the range. Labels count at
    least 1e-32 (1e-300 in float64) of the best; what that adds to a sum over a table is below rounding.
    """
    limit = 25.0 if dtype == torch.float32 else 300.0
    return torch.maximum(across.reach[across.which], down.reach[down.which]) < limit
