"""Conditional probabilities from the columns of a table of scores, in float64 and whatever the range of the scores."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.math import exp

FLAGS = {"contract"}
TOP, INVERSE, LOGARITHM, TIES, MOMENT = range(5)
"""The rows of ``columns``: max s, 1 / Σ exp(s − max s), ln Σ exp(s − max s), how many are largest, a moment."""


@njit
def room_for_columns(size):
    """One number per column and kind."""
    return np.empty((5, size))


@njit(fastmath=FLAGS)
def normalise_columns(scores, columns):
    """Fill in all rows of ``columns [5, ≥ L]`` but the last for ``scores [M, L]``; 0 as inverse where all are −inf."""
    top, rest, ties, logarithm = columns[TOP], columns[INVERSE], columns[TIES], columns[LOGARITHM]
    rows, size = scores.shape
    top[:] = -math.inf
    for k in range(rows):
        for c in range(size):
            top[c] = scores[k, c] if scores[k, c] > top[c] else top[c]
    rest[:] = 0.0
    ties[:] = 0.0
    for k in range(rows):
        for c in range(size):
            largest = scores[k, c] == top[c]
            ties[c] += 1.0 if largest else 0.0
            rest[c] += 0.0 if largest else exp(scores[k, c] - top[c])
    for c in range(size):  # the largest apart: next to it, the digits of the others would be lost
        if top[c] == -math.inf:
            rest[c], logarithm[c] = 0.0, 0.0
        else:
            logarithm[c] = math.log(ties[c]) + math.log1p(rest[c] / ties[c])
            rest[c] = 1.0 / (ties[c] + rest[c])


@njit(fastmath={"contract", "reassoc"})
def weighted_sums(weights, values):
    """Σ w and Σ w v."""
    total, moment = 0.0, 0.0
    for c in range(len(weights)):
        total += weights[c]
        moment += weights[c] * values[c]
    return total, moment
