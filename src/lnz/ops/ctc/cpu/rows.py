"""Arithmetic along one row: the classes of a frame, or the states of a lattice.

Each loop is a function of slices, for only then does it vectorise. Sums may be reordered, so they are kept apart from
the polynomials of :mod:`lnz.ops.math.cpu`, which must not be.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.math.cpu import exp, log

FLAGS = {"contract"}
REORDERED = {"contract", "reassoc", "nsz"}


@njit(fastmath=FLAGS)
def highest(row):
    """The largest entry, +inf where any is NaN or +inf."""
    top = row[0]
    bad = 0
    for c in range(row.size):
        v = row[c]
        top = v if v > top else top
        bad |= not v < np.inf
    return row.dtype.type(np.inf) if bad else top


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


@njit(fastmath=REORDERED)
def total_of_both(a, b):
    s = 0.0
    for k in range(a.size):
        s += a[k] + b[k]
    return s


@njit(fastmath=REORDERED)
def dot(a, b):
    s = 0.0
    for k in range(a.size):
        s += a[k] * b[k]
    return s


@njit(fastmath=FLAGS)
def lowest(row):
    low = row[0]
    for k in range(row.size):
        low = row[k] if row[k] < low else low
    return low


@njit(fastmath=FLAGS)
def fill(row, value):
    for k in range(row.size):
        row[k] = value


@njit(fastmath=FLAGS)
def scale(row, factor):
    for k in range(row.size):
        row[k] *= factor


@njit(fastmath=FLAGS)
def multiply(row, a):
    for k in range(row.size):
        row[k] *= a[k]


@njit(fastmath=FLAGS)
def store_product(out, a, b, factor):
    for k in range(out.size):
        out[k] = (a[k] * b[k]) * factor


@njit(fastmath=FLAGS)
def log_sum(a, b, c):
    """ln(eᵃ + eᵇ + eᶜ)."""
    top = a if a > b else b
    top = top if top > c else c
    shift = top if top > -math.inf else 0.0
    return shift + log(exp(a - shift) + exp(b - shift) + exp(c - shift))
