"""Forward–backward through one lattice in the exponential domain, in float64, rescaled at every frame.

States are kept as two rows, blanks b_0 … b_U and labels l_1 … l_U of a target of U labels, in columns 1 … U + 1 of
buffers whose column 0 stays 0; beyond them are zeros, so that loops may run over whole multiples of ``BLOCK``. At each
frame only the states that lie on some path from start to end are visited: after t of n frames, those after
max(0, U − (n − t)) … min(U, t) labels.

How much is lost to underflow is bounded. With α_t and β_t scaled to sum 1, what is flushed to 0 at a frame is at most
about 1e-307 / c, with c the sum before scaling, and its part of Z at most that over Σ_k α_t(k) β_t(k). The smallest
product of the two over all frames is returned: where it is not well above 1e-307, :mod:`.logs` must be asked.
"""

from __future__ import annotations

import math

from numba import njit

from lnz.ops.ctc.cpu.rows import FLAGS, REORDERED, fill, store_product, total_of_both

BLOCK = 16
PAD = 2 * BLOCK + 4  # columns beyond the last state that loops may touch


@njit(fastmath=FLAGS)
def _blanks(out, b, l, weight):
    for k in range(out.size):
        out[k] = (b[k] + l[k]) * weight


@njit(fastmath=FLAGS)
def _labels(out, b, l, lasting, direct, weight, stays, factor):
    for k in range(out.size):
        out[k] = (stays * lasting[k] + b[k] + direct[k] * l[k]) * (weight[k] * factor)


@njit(fastmath=FLAGS)
def _onward_blanks(out, b, l):
    for k in range(out.size):
        out[k] = b[k] + l[k]


@njit(fastmath=FLAGS)
def _onward_labels(out, b, lasting, direct, l, stays):
    for k in range(out.size):
        out[k] = b[k] + stays * lasting[k] + direct[k] * l[k]


@njit(fastmath=FLAGS)
def _scaled(out, a, factor):
    for k in range(out.size):
        out[k] = a[k] * factor


@njit(fastmath=REORDERED)
def _overlap(ab, bb, al, bl):
    blanks, labels = 0.0, 0.0
    for k in range(ab.size):
        blanks += ab[k] * bb[k]
        labels += al[k] * bl[k]
    return blanks, labels


@njit(fastmath=FLAGS)
def band(t, n, U):
    """First column and the column after the last, rounded up, of the states visited after t of n frames."""
    low = max(0, U - (n - t))
    high = min(U, t)
    return low + 1, low + 1 + (high - low + BLOCK) // BLOCK * BLOCK


@njit(fastmath=FLAGS)
def forward(n, U, weights, blank, direct, stays, B, L):
    """Fill rows 0 … n of B and L with α_t, each to be divided by its sum; returns ln Z, −inf where all is lost."""
    fill(B[0, : U + PAD], 0.0)
    fill(L[0, : U + PAD], 0.0)
    B[0, 1] = 1.0
    log_z, before = 0.0, 1.0
    for t in range(1, n + 1):
        low, end = band(t, n, U)
        b, l, weight = B[t - 1], L[t - 1], weights[t - 1]
        _blanks(B[t, low:end], b[low:end], l[low:end], blank[t - 1] / before)
        _labels(
            L[t, low:end], b[low - 1 : end - 1], l[low - 1 : end - 1], l[low:end], direct[low:end], weight[low:end],
            stays, 1.0 / before,
        )  # fmt: skip
        B[t, 0] = L[t, 0] = 0.0
        fill(B[t, end : end + BLOCK + 2], 0.0)
        fill(L[t, end : end + BLOCK + 2], 0.0)
        before = total_of_both(B[t, low:end], L[t, low:end])
        if not before > 0.0:
            return -math.inf
        log_z += math.log(before)
    last = (B[n, U + 1] + L[n, U + 1]) / before
    return log_z + math.log(last) if last > 0.0 else -math.inf


@njit(fastmath=FLAGS)
def backward(n, U, weights, blank, direct, stays, B, L, work, occupancy):
    """The occupancies, from α; returns the smallest overlap of α and β times the scale they were computed at."""
    b, l, onward_b, onward_l = work[0], work[1], work[2], work[3]
    fill(onward_b[: U + PAD], 0.0)
    fill(onward_l[: U + PAD], 0.0)
    fill(b[: U + PAD], 0.0)
    fill(l[: U + PAD], 0.0)
    worst = 1.0
    for t in range(n, 0, -1):
        low, end = band(t, n, U)
        if t == n:
            b[U + 1] = 1.0
            l[U + 1] = 1.0 if U else 0.0
        else:
            _onward_blanks(b[low:end], onward_b[low:end], onward_l[low + 1 : end + 1])
            later = onward_l[low + 1 : end + 1]
            _onward_labels(l[low:end], onward_b[low:end], onward_l[low:end], direct[low + 1 : end + 1], later, stays)
        here, there = total_of_both(B[t, low:end], L[t, low:end]), total_of_both(b[low:end], l[low:end])
        blanks, labels = _overlap(B[t, low:end], b[low:end], L[t, low:end], l[low:end])
        both = blanks + labels
        overlap = both / here / there
        worst = min(worst, both, overlap * min(here, there)) if overlap > 0.0 else 0.0
        if not worst > 0.0:
            return 0.0
        start, stop = max(low, 2), min(end, U + 2)
        row = occupancy[t - 1]
        fill(row[: start - 2], 0.0)
        store_product(row[start - 2 : stop - 2], L[t, start:stop], l[start:stop], 1.0 / both)
        fill(row[stop - 2 :], 0.0)
        row[row.size - 1] = blanks / both
        _scaled(onward_b[low:end], b[low:end], blank[t - 1] / there)
        store_product(onward_l[low:end], l[low:end], weights[t - 1, low:end], 1.0 / there)
    return worst
