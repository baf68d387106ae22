"""4-neighbour grids with any number of labels: which rows are redrawn when."""

from __future__ import annotations

import numpy as np

from lnz.ops.gibbs.cpu.arguments import Rows, Work
from lnz.ops.gibbs.cpu.binary import rows_of_odds
from lnz.ops.gibbs.cpu.draw import FLAGS, rows_of_labels
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.jit.cpu.vectors import LANES


@kernel(fastmath=FLAGS)
def sweep(grid, states, key, band):
    """Redraw one colour after the other in a band of rows.

    Args:
        grid: the scores.
        states: ``int8 or int32 [images, 2, H + 2, K + 16]``, the labels with −1 around, the first at [1, 1].
        key: ``uint64 [2]``, of the random numbers.
        band: of rows.
    """
    labels = grid.node.shape[3]
    work = Work(workspace(4, LANES, np.uint32), workspace(labels, LANES, grid.node.dtype))
    for image in range(band.begin, band.end, band.stride):
        for t in range(band.steps):
            rows = Rows(image, band.first + t, band.low + t * band.up, band.high + t * band.down)
            if labels == 1:
                rows_of_odds(grid, states, key, rows, work)
            else:
                rows_of_labels(grid, states, key, rows, work)
