"""The gradient to the scores of frames, written once, row by row."""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.ctc.cpu.rows import FLAGS, fill, scaled_exponentials
from lnz.ops.jit.cpu import kernel


@kernel(fastmath=FLAGS)
def gradient(x, strides, labels, lengths, sizes, blank, normalise, factor, log_z, occupancy, frames, first, last, out):
    """Rows ``first`` … ``last`` − 1 of ``out``: factor · (occupancies summed by class, less the softmax).

    0 over padding and where ln Z = −inf; the softmax only where ``normalise``. ``factor`` and ``log_z`` are ``[B]``.
    """
    T, S = occupancy.shape[1], occupancy.shape[2] - 1
    for r in range(first, last):
        b, t = (r // T, r % T) if strides[1] == 1 else (r % lengths.size, r // lengths.size)
        row, g = out[r], factor[b]
        if t >= lengths[b] or log_z[b] == -math.inf:
            fill(row, 0.0)
            continue
        if math.isnan(log_z[b]):
            fill(row, np.nan)
            continue
        if normalise:
            scaled_exponentials(row, x[r], frames[b, t, 0], -g / frames[b, t, 1])
        else:
            fill(row, 0.0)
        occupied = occupancy[b, t]
        for u in range(sizes[b]):
            row[labels[b, u]] += g * occupied[u]
        if blank >= 0:
            row[blank] += g * occupied[S]
