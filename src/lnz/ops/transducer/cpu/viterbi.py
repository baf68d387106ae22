"""The best alignment of a range of lattices."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.rows import FLAGS, fill
from lnz.ops.transducer.cpu.solve import band, gather


@njit(fastmath=FLAGS)
def _back(out, moves, at_blank, at_label, here, above):
    """The best score from each node on, and whether its label arc is the way."""
    for k in range(out.size):
        a, c = at_blank[k] + here[k], at_label[k] + above[k]
        moves[k] = c > a
        out[k] = c if c > a else a


@kernel(fastmath=FLAGS)
def viterbi(blank, label, lengths, sizes, slant, first, step, frames, scores):
    """Write the frame of each label ``[B, U]``, −100 over padding or where there is no alignment, and the scores."""
    B, T, W = blank.shape
    moves = np.empty((T + slant * (W - 1), W), np.bool_)
    later, now, at_blank, at_label = np.empty(W + 2), np.empty(W + 2), np.empty(W + 2), np.empty(W + 2)
    for b in range(first, B, step):
        n, size = min(lengths[b], T), min(sizes[b], W - 1)
        fill(frames[b], -100)
        fill(later, -math.inf)
        later[size] = 0.0
        steps = n + slant * size
        for i in range(steps - 1, -1, -1):
            low, end = band(i, n, size, slant)
            gather(blank[b], label[b], i, low, end, size, slant, at_blank, at_label)
            fill(now, -math.inf)
            _back(
                now[low:end], moves[i, low:end], at_blank[low:end], at_label[low:end], later[low:end],
                later[low + 1 : end + 1],
            )  # fmt: skip
            later, now = now, later
        scores[b] = later[0]
        if scores[b] == -math.inf:
            continue
        u = 0
        for i in range(steps):
            if u < size and moves[i, u]:
                frames[b, u] = i - slant * u
                u += 1
