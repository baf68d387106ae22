"""ln Z and what marginals are made of: labels are summed out, CKY over what is left, and back down.

Shapes as in :mod:`lnz.ops.spans.reference`.
"""

from __future__ import annotations

import math

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.rows import FLAGS, clear
from lnz.ops.spans.cpu.inside import chart_in, inside, new_room
from lnz.ops.spans.cpu.labels import sum_labels
from lnz.ops.spans.cpu.outside import outside


@kernel(fastmath=FLAGS)
def run(first, last, scores, lengths, log_z, peaks, shares, in_range):
    """Of sentences first … last − 1: ``log_z``, float64 ``[B]``, ``peaks`` and ``shares [B, N, N]``, ``in_range [B]``.

    The last says whether all scores are numbers; if not, the other results mean nothing.
    """
    numbers, exponents = new_room(scores.shape[1])
    for b in range(first, last):
        n, chart = lengths[b], chart_in(numbers, exponents)
        top = sum_labels(chart, scores, b, n)
        in_range[b] = top < math.inf
        if top < math.inf:
            inside(chart, n)
            log_z[b] = chart.logs[(n - 1) * chart.wide] + (2 * n - 1) * top if n > 0 else 0.0
            outside(chart, n)
            write(chart, n, address(peaks, b), address(shares, b), peaks.shape[1], scores.shape[3])


@helper(fastmath=FLAGS)
def write(chart, n, peaks, shares, N, size):
    """``peaks`` and ``shares [N, N]`` by first and last word, pointers; 0 where no span is."""
    clear(peaks, N * N)
    clear(shares, N * N)
    for i in range(n):
        for w in range(n - i):
            at, to = w * chart.wide + i, i * N + i + w
            peaks[to] = chart.peaks[at] if chart.peaks[at] > -math.inf else 0.0
            if size == 1:
                shares[to] = chart.mass[at]
            else:
                shares[to] = chart.mass[at] / chart.totals[at] if chart.totals[at] > 0 else 0.0
