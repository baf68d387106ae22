"""Eisner's chart inside, a program per sentence; see :mod:`lnz.ops.projective.reference`.

Five charts ``[N + 1, N + 1]`` in float64 lie one after the other, ``size`` = (N + 1)² apart:

    MEET(i, j) = ln Σ_k exp(RIGHT(i, k) + LEFT(k + 1, j))
    OPEN_RIGHT(i, j) = MEET(i, j) + score(i → j)         RIGHT(i, j) = ln Σ_m exp(OPEN_RIGHT(i, m) + RIGHT(m, j))
    OPEN_LEFT(i, j) = MEET(i, j) + score(j → i)          LEFT(i, j) = ln Σ_m exp(LEFT(i, m) + OPEN_LEFT(m, j))
"""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.charts import add_ways, entries, log_of
from lnz.ops.jit.triton.launch import kernel

MEET, OPEN_RIGHT, OPEN_LEFT, RIGHT, LEFT = (tl.constexpr(i) for i in range(5))


@kernel
def inside_kernel(scores, charts, lengths, log_z, M, SINGLE_ROOT: tl.constexpr, WIDE: tl.constexpr, SIDE: tl.constexpr):
    """``charts [B, 5, M, M]`` of ``scores [B, M, M]``, [dependent, head], M = N + 1; ln Z ``[B]``, double.

    Exponentials are WIDE, double, too.
    """
    b = tl.program_id(0).to(tl.int64)
    REAL: tl.constexpr = tl.float64 if WIDE else tl.float32  # pyright: ignore[reportAssignmentType]
    n = tl.load(lengths + b) + 1
    size = M * M
    scores, charts = scores + b * size, charts + b * 5 * size
    right, left = charts + RIGHT * size, charts + LEFT * size
    for begin in range(0, n, SIDE):
        i = begin + tl.arange(0, SIDE)
        tl.store(right + i * M + i, tl.zeros([SIDE], tl.float64), mask=i < n)
        tl.store(left + i * M + i, tl.zeros([SIDE], tl.float64), mask=i < n)
    tl.debug_barrier()
    for width in range(1, n):
        for begin in range(0, n - width, SIDE):
            i = begin + tl.arange(0, SIDE)
            j, there = i + width, i + width < n
            top, total = tl.full([SIDE], -float("inf"), tl.float64), tl.zeros([SIDE], REAL)
            for split in range(0, width, SIDE):
                k = i[:, None] + split + tl.arange(0, SIDE)[None, :]
                splits = there[:, None] & (k < j[:, None])
                if SINGLE_ROOT:  # nothing lies beside the root's one dependent
                    splits = splits & ((i[:, None] > 0) | (k == 0))
                ways = entries(right, i[:, None], k, M, splits) + entries(left, k + 1, j[:, None], M, splits)
                top, total = add_ways(top, total, ways, REAL)
            meet = log_of(top, total)
            tl.store(charts + MEET * size + i * M + j, meet, mask=there)
            to_right = tl.load(scores + j * M + i, mask=there, other=0.0).to(tl.float64)
            to_left = tl.load(scores + i * M + j, mask=there, other=0.0).to(tl.float64)
            tl.store(charts + OPEN_RIGHT * size + i * M + j, meet + to_right, mask=there)
            tl.store(charts + OPEN_LEFT * size + i * M + j, meet + to_left, mask=there)
        tl.debug_barrier()
        for begin in range(0, n - width, SIDE):
            i = begin + tl.arange(0, SIDE)
            j, there = i + width, i + width < n
            top, total = tl.full([SIDE], -float("inf"), tl.float64), tl.zeros([SIDE], REAL)
            other_top, other_total = top, total
            for split in range(0, width, SIDE):
                m = i[:, None] + split + tl.arange(0, SIDE)[None, :]
                splits = there[:, None] & (m < j[:, None])
                opened = entries(charts + OPEN_RIGHT * size, i[:, None], m + 1, M, splits)
                ways = opened + entries(right, m + 1, j[:, None], M, splits)
                top, total = add_ways(top, total, ways, REAL)
                opened = entries(charts + OPEN_LEFT * size, m, j[:, None], M, splits)
                ways = entries(left, i[:, None], m, M, splits) + opened
                other_top, other_total = add_ways(other_top, other_total, ways, REAL)
            tl.store(right + i * M + j, log_of(top, total), mask=there)
            tl.store(left + i * M + j, log_of(other_top, other_total), mask=there)
        tl.debug_barrier()
    tl.store(log_z + b, tl.load(right + n - 1))
