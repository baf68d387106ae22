"""Arithmetic along one row: the classes of a frame, the states of a lattice, the scores of a step.

Each loop is a function of slices, for only then does it vectorise. Sums may be reordered, so they are kept apart from
the polynomials of :mod:`lnz.ops.jit.cpu.math`, which must not be.
"""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import fold_blocks, full_like, load
from lnz.ops.jit.cpu.vectors import max_lanes, maximum, select

FLAGS = {"contract"}
REORDERED = {"contract", "reassoc", "nsz"}


@helper(fastmath=FLAGS)
def highest(row, size):
    """The largest of ``size`` numbers from a pointer on; +inf where any is NaN or +inf."""
    return max_lanes(fold_blocks(_climb, full_like(row, -math.inf), size, row))


@helper(fastmath=FLAGS)
def _climb(top, at, n, row):
    values = load(row, at, n, -math.inf)
    return maximum(select(values < math.inf, values, math.inf), top)


@helper(fastmath=FLAGS)
def exponentials(out, row, top):
    for c in range(out.size):
        out[c] = exp(row[c] - top)


@helper(fastmath=FLAGS)
def scaled_exponentials(out, row, top, factor):
    for c in range(out.size):
        out[c] = factor * exp(row[c] - top)


@helper(fastmath=REORDERED)
def total(row):
    s = row.dtype.type(0.0)
    for c in range(row.size):
        s += row[c]
    return s


@helper(fastmath=FLAGS)
def top_of(row):
    """The largest number of an array, NaN passed over."""
    top = row[0]
    for k in range(row.size):
        top = row[k] if row[k] > top else top
    return top


@helper(fastmath=FLAGS)
def fill(row, value):
    for k in range(row.size):
        row[k] = value


@helper()
def clear(x, count):
    """``count`` zeros from a pointer on."""
    for k in range(count):
        x[k] = 0


@helper(fastmath=FLAGS)
def copy(out, row):
    """``out = row`` of arrays: an assignment of NumPy's can fail, and its message takes seconds to compile."""
    for k in range(out.size):
        out[k] = row[k]


@helper()
def longest(at):
    """The largest of all ``at[k + 1] − at[k]``, at least 1."""
    most = 1
    for k in range(len(at) - 1):
        most = max(most, at[k + 1] - at[k])
    return most
