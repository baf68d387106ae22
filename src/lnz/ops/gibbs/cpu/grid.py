"""4-neighbour grids with any number of labels: which rows are redrawn when."""

from __future__ import annotations

import numpy as np

from lnz.ops.gibbs.cpu.binary import rows_of_odds
from lnz.ops.gibbs.cpu.draw import FLAGS, rows_of_labels
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.jit.cpu.vectors import LANES


@kernel(fastmath=FLAGS)
def sweep(
    domain, states, free, node, across, down, beta, key, begin, end, stride, first_step, steps, low, high, up, down_by
):
    """Redraw one colour after the other in a band of rows.

    Arrays are laid out by colours as in :mod:`lnz.ops.gibbs.checkerboard`, K places per row.

    Args:
        domain: ``EXP`` or ``LOG`` of :mod:`.draw`.
        states: ``int8 or int32 [images, 2, H + 2, K + 16]``, the labels with −1 around, the first at [1, 1].
        free: ``uint8 [2, H, K]``, 1 at the nodes that may change.
        node: ``[2, H, K / 16, L, 16]``, the scores of nodes, or ``[1, 1, 1, L, 16]``, those of all. With L = 1 labels
            are binary, and these and the weights are the odds of :mod:`.binary`.
        across: of the horizontal edges ``(EQUAL or TABLE, weights [2, 2, H, K] of the edges before and after each node,
            or [2, 2, 1, 16] of all, tables [E · L · L] or [L · L])``; in ``EQUAL``, where labels only matter by being
            equal, weights are what equal labels gain, and tables are not read; else they scale the tables in ``LOG``.
        down: of the vertical edges.
        beta: ``[1]``, one over the temperature; not read in ``EXP``.
        key: ``uint64 [3]``, the key of the random numbers and W.
        begin: the first image; the number of an image is also that of its random numbers.
        end: where images end.
        stride: how many images lie from one to the next.
        first_step: the number of the first half-sweep; even ones draw colour 0.
        steps: how many half-sweeps.
        low: the first row.
        high: the row after the last.
        up: how many rows ``low`` moves per half-sweep.
        down_by: likewise for ``high``.
    """
    kind_across, across_weight, across_table = across
    kind_down, down_weight, down_table = down
    labels = node.shape[3]
    sums = workspace(labels, LANES, node.dtype)
    words = workspace(4, LANES, np.uint32)
    for image in range(begin, end, stride):
        for step in range(first_step, first_step + steps):
            t = step - first_step
            rows = low + t * up, high + t * down_by
            if labels == 1:
                rows_of_odds(states, free, node, across_weight, down_weight, key, words, image, step, *rows)
            else:
                rows_of_labels(
                    domain, states, free, node, kind_across, across_weight, across_table, kind_down, down_weight,
                    down_table, beta[0], key, words, sums, image, step, *rows,
                )  # fmt: skip
