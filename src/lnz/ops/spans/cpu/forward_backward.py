"""ln Z and marginals: labels are summed out, CKY over what is left, and probabilities shared out among labels.

The exponentials of the scores stay where the marginals will be, so that there is one exponential per score.
Shapes as in :mod:`lnz.ops.spans.reference`.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, full_like, load, store
from lnz.ops.jit.cpu.rows import FLAGS, clear, highest
from lnz.ops.jit.cpu.vectors import LANES, sum_lanes
from lnz.ops.spans.cpu.inside import highest_of, inside, new_chart
from lnz.ops.spans.cpu.outside import outside


@kernel(fastmath=FLAGS)
def run(first, last, scores, lengths, log_z, marginals, in_range):
    """Of sentences first … last − 1: ``log_z``, float64 ``[B]``, ``marginals [B, N, N, L]``, and ``in_range [B]``.

    The last says whether all scores are numbers; if not, the other results mean nothing.
    """
    N, size = scores.shape[1], scores.shape[3]
    chart, shares = new_chart(N), np.empty((N, N))
    for b in range(first, last):
        n = lengths[b]
        top = highest_of(scores, b, n)
        in_range[b] = top < math.inf
        if not top < math.inf:
            continue
        for i in range(n):
            for w in range(n - i):
                row, out = address(scores, (b, i, i + w)), address(marginals, (b, i, i + w))
                peak, total = float(row[0]), 1.0
                if size > 1:
                    peak, total = exponentials(row, out, size)
                chart.own[w, i] = (peak - top) + math.log(total) if total > 0 else -math.inf
                shares[i, w] = 1.0 / total if total > 0 else 0.0
        inside(chart, n)
        log_z[b] = chart.logs[n - 1, 0] + (2 * n - 1) * top if n > 0 else 0.0
        outside(chart, n)
        for i in range(n):
            clear(address(marginals, (b, i)), i * size)
            clear(address(marginals, (b, i)) if n == N else address(marginals, (b, i, n)), (N - n) * size)
            for w in range(n - i):
                out, mass = address(marginals, (b, i, i + w)), chart.mass[w, i]
                if size > 1:
                    scale(out, mass * shares[i, w], size)
                else:
                    out[0] = mass
        clear(address(marginals, b) if n == N else address(marginals, (b, n)), (N - n) * N * size)


@helper(fastmath=FLAGS)
def exponentials(row, out, size):
    """``out = exp(row − peak)``; the peak, 0 if all is −∞, and their sum."""
    peak, total = highest(row, size), full_like(row, 0.0)
    if not peak > -math.inf:
        peak = sum_lanes(total)
    for at in range(0, size, LANES):
        n = min(LANES, size - at)
        value = exp(load(row, at, n, -math.inf) - peak)
        store(value, out, at, n)
        total += value
    return float(peak), float(sum_lanes(total))


@helper(fastmath=FLAGS)
def scale(out, factor, size):
    for l in range(size):
        out[l] *= factor
