"""Binary 4-neighbour grids: all that scores of nodes and edges say, as odds of label 1.

Whatever the table t of an edge is, a neighbour of label 0 adds t[1, 0] − t[0, 0] to the score of label 1 at the first
end of the edge, t[0, 1] − t[0, 0] at its second, and one of label 1 adds t[1, 1] − t[1, 0] − t[0, 1] + t[0, 0] more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.gibbs.cpu.binary import odds_of
from lnz.ops.gibbs.cpu.checkerboard import BLOCK, places
from lnz.ops.jit.buffers import empty

Side = tuple[bool, Tensor, Tensor]


def odds(node: Tensor, sides: list[Side], height: int, width: int, beta: float) -> tuple[Tensor, list[Tensor]] | None:
    """The odds where all neighbours have label 0, and what one of label 1 multiplies them by.

    The former are ``[2, H, K / 16, 1, 16]``, the latter ``[E or 1]`` for horizontal and for vertical edges. None where
    scores are infinite, or edges too strong: odds are kept in the range of the dtype, from the ends of which neighbours
    must not lead back to odds that a uniform number resolves, those from e^−17 to e^17 (float32) or e^−37 to e^37.

    Args:
        node: ``[N or 1, 2]``.
        sides: of horizontal and vertical edges, as :mod:`.grid` has them.
        height: of the grid.
        width: of the grid.
        beta: one over the temperature.
    """
    limit, reach = (700.0, 650.0) if node.dtype == torch.float64 else (85.0, 60.0)
    gains, ends = [], []
    for side, rows, columns in zip(sides, (height, height - 1), (width - 1, width), strict=True):
        gain, first, second = _parts(side)
        gains.append(gain)
        shape = (rows, columns) if len(gain) > 1 else (1, 1)
        ends.append((first.reshape(shape).numpy(), second.reshape(shape).numpy()))
    if not 2 * beta * sum(float(gain.abs().amax()) for gain in gains) < reach:  # nor where it is NaN
        return None
    laid = empty(2, height, places(width) // BLOCK, 1, BLOCK, dtype=node.dtype)
    scores = node.expand(height * width, 2).reshape(height, width, 2).contiguous().numpy()
    if not odds_of(scores, *ends, *node.new_tensor([beta, limit]).numpy(), laid.numpy()):
        return None
    return laid, [(gain * beta).exp_() for gain in gains]


def _parts(side: Side) -> tuple[Tensor, Tensor, Tensor]:
    """What two labels 1 score together, what the first and the second score alone: ``[E or 1]`` each."""
    equal, weight, table = side
    if equal:
        return 2 * weight, -weight, -weight
    none, second, first, both = (weight[:, None, None] * table).flatten(1).unbind(1)
    return both - first - second + none, first - none, second - none
