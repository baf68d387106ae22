"""Grids laid out by the colours of a checkerboard, so that neighbours of neighbours of a row are neighbours in memory.

The colour c of row r is the nodes of columns 2k + s, s = (r + c) mod 2; node k lies at place k. Above and below it is
place k of the other colour, beside it are the places k + s − 1 and k + s of the other colour in its own row. Rows are
filled up to a multiple of ``BLOCK`` places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.gibbs.cpu.states import lay, read

BLOCK = 16  # the kernel's


def places(width: int) -> int:
    """The number of places per row and colour."""
    return ((width + 1) // 2 + BLOCK - 1) // BLOCK * BLOCK


def by_colour(values: Tensor, fill: float = 0) -> Tensor:
    """``[*, 2, H, K]`` from ``[*, H, W]``, ``fill`` at the places beyond the grid."""
    *batch, height, width = values.shape
    laid = values.new_full((*batch, 2, height, places(width)), fill)
    for parity in range(2):
        for s in range(2):
            own = values[..., parity::2, s::2]
            laid[..., (parity + s) % 2, parity::2, : own.shape[-1]] = own
    return laid


def state_of(labels: Tensor, dtype: torch.dtype) -> Tensor:
    """``[images, 2, H + 2, K + 16]`` from labels ``[images, H, W]``: −1 all around, the first place at [1, 1]."""
    images, height, width = labels.shape
    state = torch.empty(images, 2, height + 2, places(width) + BLOCK, dtype=dtype)
    lay(labels.contiguous().numpy(), state.numpy())
    return state


def labels_of(state: Tensor, width: int) -> Tensor:
    """The inverse of :func:`state_of`, ``int64``."""
    labels = torch.empty(len(state), state.shape[2] - 2, width, dtype=torch.int64)
    read(state.numpy(), labels.numpy())
    return labels


def node_blocks(scores: Tensor) -> Tensor:
    """``[2, H, K / 16, L, 16]`` from node scores ``[H, W, L]``: the nodes of a block are neighbours per label."""
    height, width, labels = scores.shape
    laid = scores.new_zeros(2, height, places(width) // BLOCK, labels, BLOCK)
    for parity in range(2):
        for s in range(2):
            own, rows = scores[parity::2, s::2], laid[(parity + s) % 2, parity::2]
            whole = own.shape[1] // BLOCK
            rows[:, :whole] = own[:, : whole * BLOCK].unflatten(1, (whole, BLOCK)).mT
            rest = own[:, whole * BLOCK :]
            if rest.shape[1]:
                rows[:, whole, :, : rest.shape[1]] = rest.mT
    return laid
