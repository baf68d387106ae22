"""ln Z and occupancies of a range of sequences, straight from the scores of frames."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.ctc.cpu import logs, scaled
from lnz.ops.ctc.cpu.rows import FLAGS, exponentials, fill, highest, lowest, multiply, total
from lnz.ops.jit.cpu import kernel

FAINT = 1e-30  # weights of frames below this are taken in float64
TRUSTED = 1e-250  # what :func:`.scaled.backward` must return


@njit(fastmath=FLAGS)
def _gather(out, row, prior, labels, blank):
    """The scores of labels to ``out[2:]``, −inf to ``out[:2]``, that of blank returned."""
    out[0] = out[1] = -math.inf
    for u in range(labels.size):
        out[u + 2] = np.float64(row[labels[u]]) - np.float64(prior[labels[u]])
    return np.float64(row[blank]) - np.float64(prior[blank]) if blank >= 0 else -math.inf


@njit(fastmath=FLAGS)
def _pick(out, powers, labels):
    for u in range(labels.size):
        out[u + 2] = powers[labels[u]]


@njit(fastmath=FLAGS)
def _weigh(out, row, powers, top, prior, factors, labels, blank, scratch):
    """The weights of labels at a frame to ``out[2:]``; that of blank, and the shift of both, returned.

    ``powers`` are e^(row − top), or empty. ``factors`` are e^−prior of the labels and, last, of the blank.
    """
    U = labels.size
    if powers.size:
        _pick(out, powers, labels)
        faint = np.float64(powers[blank]) if blank >= 0 else 1.0
        faint = min(faint, lowest(out[2 : U + 2])) if U else faint
        if faint > FAINT:
            out[0] = out[1] = 0.0
            multiply(out[2 : U + 2], factors[:U])
            fill(out[U + 2 : U + scaled.PAD], 0.0)
            return (np.float64(powers[blank]) * factors[U] if blank >= 0 else 0.0), np.float64(top)
    at_blank = _gather(scratch, row, prior, labels, blank)
    shift = max(highest(scratch[: U + 2]), at_blank)
    if shift == -math.inf:
        shift = 0.0
    exponentials(out[: U + 2], scratch[: U + 2], shift)
    fill(out[U + 2 : U + scaled.PAD], 0.0)
    return math.exp(at_blank - shift), shift


@njit(fastmath=FLAGS)
def _solve_in_logs(x, start, stride, n, prior, labels, blank, weights, blanks, arcs, stays, B, L, work, occupancy):
    """ln Z of unnormalised frames, and the occupancies; ``arcs`` are 0 and 1, and become their logarithms."""
    for t in range(n):
        blanks[t] = _gather(weights[t], x[start + t * stride], prior, labels, blank)
    for k in range(arcs.size):
        arcs[k] = 0.0 if arcs[k] > 0.0 else -math.inf
    lasting = 0.0 if stays > 0.0 else -math.inf
    log_z = logs.forward(n, labels.size, weights, blanks, arcs, lasting, B, L)
    if log_z > -math.inf:
        logs.backward(n, labels.size, weights, blanks, arcs, lasting, B, L, log_z, work, occupancy)
    return log_z


@kernel(fastmath=FLAGS)
def solve(
    x, strides, prior, labels, direct, lengths, sizes, blank, stays, normalise, first, last, log_z, occupancy, frames
):
    """Sequences ``first`` … ``last`` − 1, frame t of sequence b at row ``b · strides[0] + t · strides[1]`` of x.

    Writes ln Z (less the normalisers of frames, where ``normalise``), the occupancies ``[B, T, S + 1]`` and, of each
    frame, the largest score and the sum of exp of the scores less that, ``[B, T, 2]``.
    """
    T, S = occupancy.shape[1], labels.shape[1]
    wide = S + scaled.PAD
    weights, blanks = np.empty((T, wide)), np.empty(T)
    B, L, work = np.empty((T + 1, wide)), np.empty((T + 1, wide)), np.empty((4, wide))
    arcs, factors = np.zeros(wide), np.empty(S + 1)
    powers = np.empty(x.shape[1] if normalise else 0, x.dtype)
    for b in range(first, last):
        n, y = lengths[b], labels[b, : sizes[b]]
        U = y.size
        needed, shifts, normalisers, bad = U, 0.0, 0.0, False
        fill(arcs, 0.0)
        for u in range(U):
            arcs[u + 2] = 1.0 if direct[b, u] else 0.0
            factors[u] = math.exp(-prior[y[u]])
            needed += 0 if direct[b, u] or u == 0 else 1
        factors[U] = math.exp(-prior[blank]) if blank >= 0 else 0.0
        possible = needed <= n
        for t in range(n):
            row = x[b * strides[0] + t * strides[1]]
            top = highest(row)
            bad |= top == np.inf
            possible &= top > -np.inf
            if bad or not possible:
                continue
            if normalise:
                exponentials(powers, row, top)
                frames[b, t, 0], frames[b, t, 1] = top, total(powers)
                normalisers += np.float64(top) + math.log(frames[b, t, 1])
            blanks[t], shift = _weigh(weights[t], row, powers, top, prior, factors, y, blank, work[0])
            shifts += shift
        value, trusted = -math.inf, 0.0
        if possible and not bad:
            value = shifts + scaled.forward(n, U, weights, blanks, arcs, stays, B, L)
            if value > -math.inf:
                trusted = scaled.backward(n, U, weights, blanks, arcs, stays, B, L, work, occupancy[b])
            if not trusted > TRUSTED:
                value = _solve_in_logs(
                    x, b * strides[0], strides[1], n, prior, y, blank, weights, blanks, arcs, stays, B, L, work,
                    occupancy[b],
                )  # fmt: skip
        log_z[b] = np.nan if bad else value - normalisers
        for t in range(n if value > -math.inf else 0, T):
            fill(occupancy[b, t], 0.0)
