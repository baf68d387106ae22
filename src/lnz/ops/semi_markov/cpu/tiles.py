"""Sequences that are done side by side, and the arrays that a tile of them needs."""

from __future__ import annotations

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.product import workspace
from lnz.ops.semi_markov.cpu.arguments import Backward, Forward, Tables, Tile, Work
from lnz.ops.semi_markov.cpu.widths import room_to_fold

TILE = 8  # sequences side by side; a multiple of the rows of a product


@helper()
def padded(size):
    """L'."""
    return (size + 15) // 16 * 16


@helper()
def tile_size(given, count):
    """How many of ``count`` sequences are done side by side: those whose products are with one table."""
    return min(TILE, count) if len(given.edge) == 1 or len(given.kind) == 0 else 1


@helper()
def tile_of(lengths, first, count):
    """``count`` sequences from ``first`` on."""
    longest = 0
    for b in range(first, first + count):
        longest = max(longest, lengths[b])
    return Tile(first, count, longest)


@helper()
def rows_of_labels(rows, steps, size, dtype):
    """Zeros ``[rows, steps, L']``."""
    return workspace(rows, steps * padded(size), dtype).reshape(rows, steps, padded(size))


@helper()
def square(size, dtype):
    """Zeros ``[≥ L, ≥ L]`` for a table as the products read it."""
    return workspace(padded(size), padded(size) + 16, dtype)  # rows of a power of two would share cache sets


@helper()
def tables(given, factors):
    size, dtype = given.edge.shape[3], factors.dtype
    return Tables(square(size, dtype), square(size, dtype), factors, workspace(TILE, padded(size), np.float64))


@helper()
def room(given, rows, out):
    """What the pass back leaves of ``rows`` sequences."""
    size, steps, dtype = given.edge.shape[3], given.segment.shape[1], given.segment.dtype
    begins, ahead = rows_of_labels(rows, steps, size, np.float64), rows_of_labels(rows, steps, size, dtype)
    inverses, leaves = rows_of_labels(rows, steps, size, dtype), rows_of_labels(rows, steps, size, dtype)
    afters = workspace(rows, (steps + 2) * size + 32, np.float64)
    rare, peaks = np.zeros((rows, steps), np.bool_), np.zeros(rows)
    return Backward(begins, afters, ahead, inverses, leaves, rare, peaks, out.segments, out.in_range)


@helper()
def room_to_work(given):
    wide, dtype = padded(given.edge.shape[3]), given.segment.dtype
    state, message = workspace(TILE, wide, dtype), workspace(TILE, wide, dtype)
    return Work(state, message, workspace(1, wide, np.float64), workspace(1, wide, dtype), room_to_fold())


@helper()
def room_to_share(given, rows):
    """For the pass forward."""
    _, steps, W, size = given.segment.shape
    starts = workspace(TILE, padded(size), given.segment.dtype)
    ends = workspace(rows, (steps + W) * size + 32, given.segment.dtype)
    return Forward(starts, ends, np.zeros((rows if len(given.kind) > 0 else 0, size, size)))
