"""CKY inside and outside, a program per sentence; shapes as in :mod:`lnz.ops.spans.reference`."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.charts import add_ways, entries, log_of, share
from lnz.ops.jit.triton.launch import kernel


@kernel
def chart_kernel(own, ways, chart, mass, lengths, log_z, N, SIDE: tl.constexpr):
    """β into ``chart [B, N, N]`` out of ln Σ_l exp s, ``own``; P(span) into ``mass``, and ln Z.

    ``ways [B, N, N]`` is the part of β that sums over splits. SIDE spans are worked on at once, SIDE splits of each.

        β(i, j) = own(i, j) + ways(i, j),    ways(i, j) = ln Σ_k exp(β(i, k) + β(k + 1, j))

    Outside, a span has the probability that comes from spans with the same first, and with the same last word:

        P(i, j) = Σ_m P(i, m) exp(β(i, j) + β(j + 1, m) − ways(i, m))
                + Σ_m P(m, j) exp(β(m, i − 1) + β(i, j) − ways(m, j))
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b)
    REAL: tl.constexpr = mass.dtype.element_ty
    own, ways, chart, mass = own + b * N * N, ways + b * N * N, chart + b * N * N, mass + b * N * N
    for begin in range(0, n, SIDE):
        i = begin + tl.arange(0, SIDE)
        word = tl.load(own + i * N + i, mask=i < n, other=0.0)
        tl.store(chart + i * N + i, word, mask=i < n)
    tl.debug_barrier()
    for width in range(1, n):
        for begin in range(0, n - width, SIDE):
            i = begin + tl.arange(0, SIDE)
            j = i + width
            top, total = tl.full([SIDE], -float("inf"), tl.float64), tl.zeros([SIDE], REAL)
            for split in range(0, width, SIDE):
                k = i[:, None] + split + tl.arange(0, SIDE)[None, :]
                there = (j[:, None] < n) & (k < j[:, None])
                left, right = entries(chart, i[:, None], k, N, there), entries(chart, k + 1, j[:, None], N, there)
                top, total = add_ways(top, total, left + right, REAL)
            found = log_of(top, total)
            tl.store(ways + i * N + j, found, mask=j < n)
            tl.store(chart + i * N + j, found + tl.load(own + i * N + j, mask=j < n, other=0.0), mask=j < n)
        tl.debug_barrier()
    whole = tl.load(chart + n - 1, mask=n > 0, other=0.0)
    tl.store(log_z + b, whole)
    tl.store(mass + n - 1, tl.where(whole > -float("inf"), 1.0, 0.0), mask=n > 0)
    tl.debug_barrier()
    for width in range(n - 2, -1, -1):
        for begin in range(0, n - width, SIDE):
            i = begin + tl.arange(0, SIDE)
            j = i + width
            here = tl.load(chart + i * N + j, mask=j < n, other=-float("inf"))[:, None]
            found = tl.zeros([SIDE], REAL)
            for other in range(0, n, SIDE):
                m = other + tl.arange(0, SIDE)[None, :]
                first, last = i[:, None], j[:, None]
                there = (m > last) & (m < n)
                beside = entries(chart, last + 1, m, N, there)
                found += share(mass, first, m, N, there, here + beside, entries(ways, first, m, N, there), REAL)
                there = (m < first) & (last < n)
                beside = entries(chart, m, first - 1, N, there)
                found += share(mass, m, last, N, there, here + beside, entries(ways, m, last, N, there), REAL)
            tl.store(mass + i * N + j, found, mask=j < n)
        tl.debug_barrier()
