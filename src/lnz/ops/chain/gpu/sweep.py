"""The forward recursion: α_t(l), ln P(y_t = l | the scores up to t), and the constants whose sum is ln Z.

    α_{t+1}(l) = x_{t+1}(l) + ln Σ_k exp(α_t(k) + A(k, l)) − c_{t+1},    ln Z = Σ_t c_t

c normalises. The largest score of a row and of a table is taken off before, and goes into ln Z in double precision:
what is left are small numbers, which float32 holds to the last digit whatever the size of the scores.
"""

from __future__ import annotations

import triton.language as tl

from lnz.ops.chain.gpu.recursion import arrive, columns, prepared, row, row_if
from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite, log_sum_exp, normalised


@kernel
def sweep(
    alpha, total, first, last, node, edge, kept, size, step, LABELS: tl.constexpr, COLUMNS: tl.constexpr,
    SHARED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """From α at ``first`` to α at ``last``, and ``total`` plus the constants on the way.

    ``node``, ``edge`` and ``kept [T, L]`` begin at step 0; tables of pairs lie ``step`` apart. α is kept where KEEP.
    """
    REAL: tl.constexpr = alpha.dtype
    l = tl.arange(0, LABELS)
    weights, top, reach = 0.0, tl.zeros([], REAL), 0.0
    if SHARED:
        weights, top, reach = prepared(edge, size, LABELS, COLUMNS, REAL)
    following = row_if(node + (first + 1) * size, l, size, first < last, REAL)
    for t in range(first + 1, last + 1):
        x = following  # loaded a step ahead, so that no step waits for memory
        following = row_if(node + (t + 1) * size, l, size, t < last, REAL)
        highest_x = finite(tl.max(x, 0))
        x -= highest_x
        if COLUMNS == LABELS:
            message, top = arrive(alpha, edge + (t - 1) * step, weights, top, reach, size, LABELS, SHARED)
            reached = x + message
        else:  # column by column, through memory: registers hold one row, but no table
            for begin in range(0, size, COLUMNS):
                some = columns(edge + (t - 1) * step, begin, size, LABELS, COLUMNS, REAL)
                place = begin + tl.arange(0, COLUMNS)
                tl.store(kept + t * size + place, log_sum_exp(alpha[:, None] + some, 0), mask=place < size)
            tl.debug_barrier()
            reached = x + row(kept + t * size, l, size, REAL)
            tl.debug_barrier()
        alpha, constant = normalised(reached)
        if KEEP:
            tl.store(kept + t * size + l, alpha, mask=l < size)
        total += constant.to(tl.float64) + highest_x.to(tl.float64) + top.to(tl.float64)
    return alpha, total


@kernel
def start(node, size, there, LABELS: tl.constexpr, REAL: tl.constexpr):
    """α at the first step, and its constant."""
    x = row_if(node, tl.arange(0, LABELS), size, there, REAL)
    top = finite(tl.max(x, 0))
    alpha, constant = normalised(x - top)
    return alpha, constant.to(tl.float64) + top.to(tl.float64)
