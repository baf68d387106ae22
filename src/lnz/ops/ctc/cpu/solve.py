"""ln Z and occupancies of a range of sequences, straight from the scores of frames."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.ctc.cpu.floating import exponential, whole
from lnz.ops.ctc.cpu.lattice import backward, columns, forward
from lnz.ops.ctc.cpu.rows import FLAGS, exponentials, fill, highest, total
from lnz.ops.jit.cpu import kernel


@njit(fastmath=FLAGS)
def _gather(out, row, labels):
    for u in range(labels.size):
        out[u] = row[labels[u]]


@njit(fastmath=FLAGS)
def _subtract(row, a):
    for k in range(row.size):
        row[k] -= a[k]


@kernel(fastmath=FLAGS)
def solve(
    x, strides, prior, labels, direct, lengths, sizes, blank, stays, normalise, first, last, states, weights, log_z,
    occupancy, frames,
):  # fmt: skip
    """Sequences ``first`` … ``last`` − 1, frame t of sequence b at row ``b · strides[0] + t · strides[1]`` of x.

    Writes ln Z (less the normalisers of frames, where ``normalise``), the occupancies ``[B, T, S + 1]`` and, of each
    frame, the largest score and the sum of exp of the scores less that, ``[B, T, 2]``. ``states`` ``[T + 1, 4, K]`` and
    ``weights`` ``[T, 2, K]``, with as many columns K as S labels need, are room to work in.
    """
    T, wide = occupancy.shape[1], states.shape[2]
    blanks, arcs, priors = np.empty((T, 2)), np.empty(wide), np.empty(wide)
    own, onward, occupied = np.empty(wide), np.empty((4, wide)), np.empty((2, wide))
    powers = np.empty(x.shape[1] if normalise else 0, x.dtype)
    lasting = 0.0 if stays else -math.inf
    for b in range(first, last):
        n, y = lengths[b], labels[b, : sizes[b]]
        U, end = y.size, columns(y.size)
        fill(arcs, 0.0)
        fill(priors, 0.0)
        for u in range(U):
            arcs[u] = 1.0 if direct[b, u] else 0.0
            priors[u + 1] = prior[y[u]]
        priors[U + 1] = prior[blank] if blank >= 0 else 0.0
        normalisers, bad, possible = 0.0, False, True
        for t in range(n):
            at = b * strides[0] + t * strides[1]
            row, top = x[at], highest(x, at)  # type: ignore[call-arg]
            bad |= top == np.inf
            possible &= top > -np.inf
            if bad or not possible:
                continue
            if normalise:
                exponentials(powers, row, top)
                frames[b, t, 0], frames[b, t, 1] = top, total(powers)
                normalisers += np.float64(top) + math.log(frames[b, t, 1])
            _gather(own[1:], row, y)
            own[0], own[U + 1] = -math.inf, row[blank] if blank >= 0 else -math.inf
            fill(own[U + 2 : end], -math.inf)
            _subtract(own[:end], priors[:end])
            exponential(weights[t, 0, :end], weights[t, 1, :end], own[:end])
            blanks[t, 0], blanks[t, 1] = weights[t, 0, U + 1], weights[t, 1, U + 1]
            weights[t, 1, U + 1] = -math.inf
        m, e = 1.0, -math.inf
        if possible and not bad:
            m, e = forward(n, U, weights, blanks, arcs, lasting, states)
        if e > -math.inf:
            backward(n, U, weights, blanks, arcs, lasting, states, m, e, onward, occupied, occupancy[b])
        log_z[b] = np.nan if bad else whole(m, e) - normalisers
        for t in range(n if e > -math.inf else 0, T):
            fill(occupancy[b, t], 0.0)
