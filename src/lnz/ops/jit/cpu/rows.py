"""Arithmetic along one row: the classes of a frame, the states of a lattice, the scores of a step.

Each loop is a function of slices, for only then does it vectorise. Sums may be reordered, so they are kept apart from
the polynomials of :mod:`lnz.ops.jit.cpu.math`, which must not be.
"""

from __future__ import annotations

import math

from numba import njit

from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import fold_blocks, full_like, load
from lnz.ops.jit.cpu.vectors import max_lanes, maximum, select

FLAGS = {"contract"}
REORDERED = {"contract", "reassoc", "nsz"}


@njit(fastmath=FLAGS)
def highest(row, size):
    """The largest of ``size`` numbers from a pointer on; +inf where any is NaN or +inf."""
    return max_lanes(fold_blocks(_climb, full_like(row, -math.inf), size, row))


@njit(fastmath=FLAGS)
def _climb(top, at, n, row):
    values = load(row, at, n, -math.inf)
    return maximum(select(values < math.inf, values, math.inf), top)


@njit(fastmath=FLAGS)
def exponentials(out, row, top):
    for c in range(out.size):
        out[c] = exp(row[c] - top)


@njit(fastmath=FLAGS)
def scaled_exponentials(out, row, top, factor):
    for c in range(out.size):
        out[c] = factor * exp(row[c] - top)


@njit(fastmath=REORDERED)
def total(row):
    s = row.dtype.type(0.0)
    for c in range(row.size):
        s += row[c]
    return s


@njit(fastmath=FLAGS)
def fill(row, value):
    for k in range(row.size):
        row[k] = value
