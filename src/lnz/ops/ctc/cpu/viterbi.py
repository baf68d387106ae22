"""The best alignment of a range of sequences."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.ctc.cpu.rows import FLAGS, fill
from lnz.ops.jit.cpu import kernel


@njit(fastmath=FLAGS)
def _best(out, here, before, over, weight):
    """Add the weight to the best of three arrivals."""
    for k in range(out.size):
        best = here[k] if here[k] > before[k] else before[k]
        out[k] = (best if best > over[k] else over[k]) + weight[k]


@njit(fastmath=FLAGS)
def _sums(out, a, b):
    for k in range(out.size):
        out[k] = a[k] + b[k]


@njit(fastmath=FLAGS)
def _gather(out, row, labels):
    for u in range(labels.size):
        out[u] = row[labels[u]]


@njit(fastmath=FLAGS)
def _forward(x, start, stride, n, labels, blank, stays, direct, B, L):
    """Rows 0 … n: the best score of the paths that end in a blank, in a label, after u labels, in column u."""
    U = labels.size
    weight, jump, stay = np.full(U + 1, -math.inf), np.empty(U + 1), np.empty(U + 1)
    for k in range(U + 1):
        B[0, k] = L[0, k] = -math.inf
    B[0, 0] = 0.0
    for t in range(1, n + 1):
        row = x[start + (t - 1) * stride]
        b, l = B[t - 1], L[t - 1]
        _gather(weight[1:], row, labels)
        _sums(jump[:U], l[:U], direct[1 : U + 1])
        for k in range(U + 1):
            stay[k] = l[k] + stays
        at_blank = np.float64(row[blank]) if blank >= 0 else -math.inf
        for k in range(U + 1):
            B[t, k] = (b[k] if b[k] > l[k] else l[k]) + at_blank
        L[t, 0] = -math.inf
        _best(L[t, 1 : U + 1], stay[1:], b[:U], jump[:U], weight[1:])


@kernel(fastmath=FLAGS)
def viterbi(x, strides, labels, direct, lengths, sizes, blank, collapses, first, last, best, scores):
    """Write the best alignments ``[B, T]``, −100 over padding, or throughout where there is none, and their scores."""
    T, S = best.shape[1], labels.shape[1]
    B, L, jumps = np.empty((T + 1, S + 1)), np.empty((T + 1, S + 1)), np.empty(S + 1)
    stays = 0.0 if collapses else -math.inf
    for b in range(first, last):
        n, y = lengths[b], labels[b, : sizes[b]]
        u = y.size
        for k in range(u):
            jumps[k + 1] = 0.0 if direct[b, k] else -math.inf
        start = b * strides[0]
        _forward(x, start, strides[1], n, y, blank, stays, jumps, B, L)
        scores[b] = max(B[n, u], L[n, u])
        fill(best[b], -100)
        if scores[b] == -math.inf:
            continue
        in_label = L[n, u] > B[n, u]
        for t in range(n, 0, -1):
            best[b, t - 1] = y[u - 1] if in_label else blank
            if not in_label:
                in_label = L[t - 1, u] > B[t - 1, u]
                continue
            stay, before, over = L[t - 1, u] + stays, B[t - 1, u - 1], L[t - 1, u - 1] + jumps[u]
            if stay >= before and stay >= over:
                continue
            u -= 1
            in_label = over > before
