"""Labels are summed out of scores, and probabilities of spans shared out among labels."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite


@kernel
def sum_kernel(scores, peaks, own, lengths, N, size, BLOCK: tl.constexpr):
    """Of one span ln Σ_l exp s, double, into ``own [B, N, N]``, and its highest score into ``peaks``, 0 for −inf."""
    b, i, j = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    n = tl.load(lengths + b)
    if (i <= j) & (j < n):
        at = (b * N + i) * N + j
        scores += at * size
        REAL: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32  # pyright: ignore
        top, total = tl.full([BLOCK], -float("inf"), REAL), tl.zeros([BLOCK], REAL)
        for first in range(0, size, BLOCK):
            l = first + tl.arange(0, BLOCK)
            score = tl.load(scores + l, mask=l < size, other=-float("inf")).to(REAL)
            higher = tl.maximum(top, score)
            total = total * tl.exp(top - finite(higher)) + tl.exp(score - finite(higher))
            top = higher
        whole = finite(tl.max(top, 0))
        total = tl.sum(total * tl.exp(top - whole), 0)
        tl.store(peaks + at, whole)
        tl.store(own + at, tl.where(total == 0, -float("inf"), whole.to(tl.float64) + tl.log(total).to(tl.float64)))


@kernel
def share_kernel(scores, peaks, shares, weight, marginals, lengths, N, size, BLOCK: tl.constexpr):
    """``marginals [B, N, N, L]`` of one span: weight · share · exp(s − peak); 0 below the diagonal and over padding."""
    b, i, j = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    n = tl.load(lengths + b)
    REAL: tl.constexpr = tl.float64 if scores.dtype.element_ty == tl.float64 else tl.float32  # pyright: ignore
    at = (b * N + i) * N + j
    there = (i <= j) & (j < n)
    peak = tl.load(peaks + at).to(REAL)
    factor = tl.load(shares + at).to(REAL) * tl.load(weight + b).to(REAL)
    for first in range(0, size, BLOCK):
        l = first + tl.arange(0, BLOCK)
        score = tl.load(scores + at * size + l, mask=l < tl.where(there, size, 0), other=-float("inf")).to(REAL)
        tl.store(marginals + at * size + l, factor * tl.exp(score - peak), mask=l < size)
