"""ln Z and the probabilities of arcs of a range of lattices, in float64, safe whatever the range of scores.

One pass back in the log domain, in which each node learns ln β and the probabilities of its two arcs given that the
path is there; one pass forward, in which the probability of being there flows along them. Only the first takes
exponentials, two for each node; the second has nothing that overflows, and underflows only where a probability does.
Both go by steps, each a row of columns that do not depend on each other.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.rows import FLAGS, fill


@njit(fastmath=FLAGS)
def band(n, length, size, slant):
    """First column and the column after the last whose node at step n is in the lattice and may go on."""
    if slant == 1:
        return max(0, n - length + 1), min(size, n) + 1
    return max(0, size - (length - n)), min(size, n) + 1


@njit(fastmath=FLAGS)
def gather(blank, label, n, low, end, size, slant, at_blank, at_label):
    """The scores of the arcs of a step; returns whether any is NaN or +inf."""
    bad = False
    for u in range(low, end):
        t = n - slant * u
        at_blank[u] = blank[t, u]
        at_label[u] = label[t, u] if u < size else -math.inf
        bad |= not (at_blank[u] < np.inf and at_label[u] < np.inf)
    return bad


@njit(fastmath=FLAGS)
def _back(out, stays, moves, at_blank, at_label, here, above):
    """ln β of a step from that of the next, and the probabilities of arcs given their node (0 where β = 0)."""
    for k in range(out.size):
        a, c = at_blank[k] + here[k], at_label[k] + above[k]
        top = a if a > c else c
        shift = top if top > -math.inf else 0.0
        p, q = exp(a - shift), exp(c - shift)
        s = p + q
        out[k] = shift + log(s)
        s = s if s > 0.0 else 1.0
        stays[k] = p / s
        moves[k] = q / s


@njit(fastmath=FLAGS)
def _flow(stays, moves, there):
    """Probabilities of arcs, in place, from those given their node and that of the node."""
    for k in range(there.size):
        stays[k] *= there[k]
        moves[k] *= there[k]


@kernel(fastmath=FLAGS)
def solve(blank, label, lengths, sizes, slant, first, step, log_z, blanks, labels):
    """Sequences ``first``, ``first + step``, …: writes ln Z and, where it is above −inf, the probabilities of arcs."""
    B, T, W = blank.shape
    rows = T + slant * (W - 1)
    wide = min(T, W) if slant else W  # a step meets each frame once
    stays, moves = np.empty((rows, wide)), np.empty((rows, wide))
    later, now, at_blank, at_label = np.empty(W + 2), np.empty(W + 2), np.empty(W + 2), np.empty(W + 2)
    for b in range(first, B, step):
        n, size = min(lengths[b], T), min(sizes[b], W - 1)
        steps, bad = n + slant * size, False
        fill(later, -math.inf)
        later[size] = 0.0
        for i in range(steps - 1, -1, -1):
            low, end = band(i, n, size, slant)
            bad |= gather(blank[b], label[b], i, low, end, size, slant, at_blank, at_label)
            fill(now, -math.inf)
            _back(
                now[low:end], stays[i, : end - low], moves[i, : end - low], at_blank[low:end], at_label[low:end],
                later[low:end], later[low + 1 : end + 1],
            )  # fmt: skip
            later, now = now, later
        log_z[b] = np.nan if bad else later[0]
        if log_z[b] == -math.inf:
            continue
        fill(now, np.nan if bad else 0.0)
        now[0] = np.nan if bad else 1.0
        for i in range(steps):
            low, end = band(i, n, size, slant)
            stay, move = stays[i], moves[i]
            _flow(stay[: end - low], move[: end - low], now[low:end])
            for u in range(low, end):
                t = i - slant * u
                blanks[b, t, u] = stay[u - low]
                if u < size:
                    labels[b, t, u] = move[u - low]
            if bad:
                continue
            fill(now, 0.0)
            for u in range(low, end):
                now[u] += stay[u - low]
                now[u + 1] += move[u - low]
