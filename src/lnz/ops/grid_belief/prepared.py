"""What solving asks the kernels, and what they are given: scores of one model, flat over the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, log_sum
from lnz.ops.grid_scores import Side, node_scores, side, split_edges
from lnz.scores import Model


@dataclass(frozen=True)
class Prepared:
    """Scores of one model; see :mod:`lnz.ops.grid_scores`.

    Attributes:
        node: ``[entries, N, L]``.
        which: ``int64 [B]``, the entry that each image reads.
        top: ``[entries, N]``, the largest score of each node.
        reach: float64 ``[entries]``, the largest difference of two scores of one node.
        given: the scores of edges as they were given, and
        sides: as kernels read them; where messages are reweighted, over the appearance probabilities.
        height: of the grid.
        width: of the grid.
        floor: ``[B]``, the least that a message says of a possible label, see
            :attr:`lnz.ops.belief.reference.Passing.reach`; −inf where messages are bounded by their tables.
        rho: how much messages count at nodes where that is not once: which entry each image reads, ``across [entries,
            H, W + 1]`` and ``down [entries, H + 1, W]``, by the edges before and after each pixel, 0 on the border.
    """

    node: Tensor
    which: Tensor
    top: Tensor
    reach: Tensor
    given: tuple[Side, Side]
    sides: tuple[Side, Side]
    height: int
    width: int
    floor: Tensor
    rho: tuple[Tensor, Tensor, Tensor] | None = None


class Settings(NamedTuple):
    """The most iterations (may be 0), the residual to stop at (0: none), and the damping."""

    limit: int
    tolerance: float
    damping: float


class Wanted(NamedTuple):
    """What to add up over the edges of one direction.

    Attributes:
        counts: beliefs, times the weights that tables were given with.
        weights: of each edge, beliefs times the table that was given, summed over labels.
        beliefs: where to add beliefs themselves, ``[entries, rows, columns, L, L]``; one entry is for any image.
    """

    counts: bool = False
    weights: bool = False
    beliefs: Tensor | None = None


class Sums(NamedTuple):
    """``counts [B, L, L]`` and ``weights [B, rows, columns]``, empty where they were not wanted."""

    counts: Tensor
    weights: Tensor


class Collected(NamedTuple):
    """ln Z without shifts, float64 ``[B]``; beliefs of nodes ``[B, N, L]``; of horizontal and vertical edges."""

    log_z: Tensor
    nodes: Tensor
    edges: tuple[Sums, ...]


def prepared_for(model: Model) -> Prepared:
    grid = model.graph.grid_layout
    assert grid is not None
    node, which = node_scores(model)
    high, low = node.amax(-1), node.amin(-1)
    if torch.isneginf(low).any():
        low = node.masked_fill(torch.isneginf(node), torch.inf).amin(-1)
    high = high.masked_fill(torch.isneginf(high), 0.0)
    across, down = split_edges(model)
    sides = (
        side(across, grid.height, grid.width - 1, model.batch_shape),
        side(down, grid.height - 1, grid.width, model.batch_shape),
    )
    reach = (high - low).clamp(min=0).amax(1).double()
    floor = message_floor(Passing(model, log_sum))
    return Prepared(node, which, high, reach, sides, sides, grid.height, grid.width, floor)


@torch.no_grad()
def message_floor(passing: Passing) -> Tensor:
    """``floor`` of :class:`Prepared`."""
    count = passing.batch.numel()
    if passing.reach is None:
        return torch.full((count,), -torch.inf, dtype=passing.dtype)
    return -passing.reach.expand(*passing.batch, 1, 1).reshape(count)
