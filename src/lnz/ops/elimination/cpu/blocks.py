"""Blocks of a clique's table: ``summed`` rows of ``lanes`` numbers, behind a pointer.

The rows of a block are the joint labels of the eliminated nodes, its columns those of a part of the separator. Inputs
are pointers to where the block's part of them starts.
"""

from __future__ import annotations

import numpy as np

from lnz.ops.elimination.cpu.layout import CONSECUTIVE, CONSTANT
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address

FLAGS = {"contract"}


@helper(fastmath=FLAGS)
def add(source, i, summed, lanes, tree, block):
    """Add the entries of input ``i`` to a block."""
    along, lane, lines = tree.along[i], address(tree.lane_offsets, tree.lane[i]), address(tree.offsets, tree.rows[i])
    for r in range(summed):
        row, part = address(block, r * lanes), address(source, lines[r])
        if along == CONSTANT:
            value = part[0]
            for l in range(lanes):
                row[l] += value
        elif along == CONSECUTIVE:
            for l in range(lanes):
                row[l] += part[l]
        else:
            for l in range(lanes):
                row[l] += part[lane[l]]


@helper(fastmath=FLAGS)
def collect(block, target, i, summed, lanes, tree):
    """Add a block to the entries of input ``i``: the transpose of :func:`add`."""
    along, lane, lines = tree.along[i], address(tree.lane_offsets, tree.lane[i]), address(tree.offsets, tree.rows[i])
    for r in range(summed):
        row, part = address(block, r * lanes), address(target, lines[r])
        if along == CONSTANT:
            part[0] += _total(row, lanes)
        elif along == CONSECUTIVE:
            for l in range(lanes):
                part[l] += row[l]
        else:
            for l in range(lanes):
                part[lane[l]] += row[l]


@helper(fastmath={"reassoc", "contract"})
def _total(row, lanes):
    total = row[0]
    for l in range(1, lanes):
        total += row[l]
    return total


@helper(fastmath=FLAGS)
def sum_out(block, summed, lanes, out, shift, total, keep):
    """ln Σ exp of a block's columns into ``out``; if ``keep``, the block becomes the probabilities of its columns."""
    column_maxima(block, summed, lanes, out)
    for l in range(lanes):
        shift[l] = out[l] if out[l] > -np.inf else 0.0
        total[l] = 0.0
    for r in range(summed):
        row = address(block, r * lanes)
        for l in range(lanes):
            row[l] -= shift[l]
    for place in range(summed * lanes):  # in one loop, whose vectors have no remainder row by row
        block[place] = exp(block[place])
    for r in range(summed):
        row = address(block, r * lanes)
        for l in range(lanes):
            total[l] += row[l]
    for l in range(lanes):
        out[l] = shift[l] + log(total[l])
    if keep:
        for l in range(lanes):
            total[l] = 1.0 / total[l] if total[l] > 0.0 else 0.0
        for r in range(summed):
            row = address(block, r * lanes)
            for l in range(lanes):
                row[l] *= total[l]


@helper(fastmath=FLAGS)
def column_maxima(block, summed, lanes, out):
    """The largest of each column."""
    for l in range(lanes):
        out[l] = block[l]
    for r in range(1, summed):
        row = address(block, r * lanes)
        for l in range(lanes):
            out[l] = row[l] if row[l] > out[l] else out[l]
