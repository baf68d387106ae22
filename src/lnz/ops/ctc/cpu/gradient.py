"""The gradient to the scores of frames, written once, row by row."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.rows import FLAGS, fill, scaled_exponentials


@njit(fastmath=FLAGS)
def write_row(out, at, frames, y, g, log_z, occupied, scale):
    """g · (occupancies of the labels y and, last, of blanks, summed by class, less the softmax where normalised).

    0 where ln Z = −inf, NaN where it is.
    """
    if log_z == -math.inf:
        fill(out, 0.0)
        return
    if math.isnan(log_z):
        fill(out, np.nan)
        return
    if frames.normalise:
        scaled_exponentials(out, frames.x[at], scale[0], out.dtype.type(-g / scale[1]))
    else:
        fill(out, 0.0)
    for u in range(y.size):
        out[y[u]] += g * occupied[u]
    if frames.blank >= 0:
        out[frames.blank] += g * occupied[occupied.size - 1]


@kernel(fastmath=FLAGS)
def gradient(frames, targets, factor, log_z, occupancy, scales, first, last, out):
    """Rows ``first`` … ``last`` − 1 of ``out``; 0 over padding. ``factor`` and ``log_z`` are ``[B]``."""
    T = occupancy.shape[1]
    for r in range(first, last):
        time_major = frames.strides[1] != 1
        b, t = (r % len(targets.lengths), r // len(targets.lengths)) if time_major else (r // T, r % T)
        y = targets.labels[b, : targets.sizes[b]]
        known = log_z[b] if t < targets.lengths[b] else -math.inf
        write_row(out[r], r, frames, y, factor[b], known, occupancy[b, t], scales[b, t])
