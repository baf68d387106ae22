"""Forward–backward through one lattice in the log domain, in float64, for what :mod:`.scaled` cannot do.

Rows and columns as there, logarithms throughout: weights that are not allowed, and what lies beside the states visited,
are −inf.
"""

from __future__ import annotations

import math

from numba import njit

from lnz.ops.ctc.cpu.rows import FLAGS, fill, log_sum, total
from lnz.ops.math.cpu import exp


@njit(fastmath=FLAGS)
def _blanks(out, b, l, weight):
    for k in range(out.size):
        out[k] = log_sum(b[k], l[k], -math.inf) + weight


@njit(fastmath=FLAGS)
def _labels(out, b, l, lasting, direct, weight, stays):
    for k in range(out.size):
        out[k] = log_sum(stays + lasting[k], b[k], direct[k] + l[k]) + weight[k]


@njit(fastmath=FLAGS)
def _onward(out, b, lasting, direct, l, stays):
    for k in range(out.size):
        out[k] = log_sum(b[k], stays + lasting[k], direct[k] + l[k])


@njit(fastmath=FLAGS)
def _occupied(out, a, b, log_z):
    for k in range(out.size):
        out[k] = exp(a[k] + b[k] - log_z)


@njit(fastmath=FLAGS)
def _sums(out, a, b):
    for k in range(out.size):
        out[k] = a[k] + b[k]


@njit(fastmath=FLAGS)
def forward(n, U, weights, blank, direct, stays, B, L):
    """Fill rows 0 … n of B and L with ln α_t, all U + 1 columns; returns ln Z."""
    for rows in (B, L):
        fill(rows[0, : U + 2], -math.inf)
        for t in range(n):
            rows[t + 1, 0] = -math.inf
    B[0, 1] = 0.0
    for t in range(1, n + 1):
        b, l = B[t - 1], L[t - 1]
        _blanks(B[t, 1 : U + 2], b[1 : U + 2], l[1 : U + 2], blank[t - 1])
        _labels(
            L[t, 1 : U + 2], b[: U + 1], l[: U + 1], l[1 : U + 2], direct[1 : U + 2], weights[t - 1, 1 : U + 2], stays
        )  # fmt: skip
    return log_sum(B[n, U + 1], L[n, U + 1], -math.inf)


@njit(fastmath=FLAGS)
def backward(n, U, weights, blank, direct, stays, B, L, log_z, work, occupancy):
    """The occupancies, from ln α and ln Z > −inf."""
    b, l, onward_b, onward_l = work[0], work[1], work[2], work[3]
    for row in (b, l, onward_b, onward_l):
        fill(row[: U + 3], -math.inf)
    b[U + 1] = l[U + 1] = 0.0
    for t in range(n, 0, -1):
        if t < n:
            _blanks(b[1 : U + 2], onward_b[1 : U + 2], onward_l[2 : U + 3], 0.0)
            _onward(
                l[1 : U + 2], onward_b[1 : U + 2], onward_l[1 : U + 2], direct[2 : U + 3], onward_l[2 : U + 3], stays
            )
        row = occupancy[t - 1]
        _occupied(onward_b[1 : U + 2], B[t, 1 : U + 2], b[1 : U + 2], log_z)
        blanks = total(onward_b[1 : U + 2])
        _occupied(row[:U], L[t, 2 : U + 2], l[2 : U + 2], log_z)
        fill(row[U:], 0.0)
        row[row.size - 1] = blanks
        for u in range(U + 1):
            onward_b[u + 1] = b[u + 1] + blank[t - 1]
        _sums(onward_l[1 : U + 2], l[1 : U + 2], weights[t - 1, 1 : U + 2])
