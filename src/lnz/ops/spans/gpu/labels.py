"""Labels are summed out of scores, and probabilities of spans shared out among labels."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite


@kernel
def sum_kernel(scores, own, lengths, N, size, BLOCK: tl.constexpr):
    """ln Σ_l exp s of one span ``[B, N, N, L]``, double, into ``own [B, N, N]``."""
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
        tl.store(own + at, tl.where(total == 0, -float("inf"), whole.to(tl.float64) + tl.log(total).to(tl.float64)))


@kernel
def share_kernel(scores, own, mass, marginals, lengths, N, size, BLOCK: tl.constexpr):
    """``marginals [B, N, N, L]`` of one span: P(span) exp(s − own); 0 below the diagonal and over padding."""
    b, i, j = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    n = tl.load(lengths + b)
    REAL: tl.constexpr = mass.dtype.element_ty
    at = (b * N + i) * N + j
    there = (i <= j) & (j < n)
    whole, probability = tl.load(own + at, mask=there, other=0.0), tl.load(mass + at, mask=there, other=0.0)
    for first in range(0, size, BLOCK):
        l = first + tl.arange(0, BLOCK)
        score = tl.load(scores + at * size + l, mask=l < tl.where(there, size, 0), other=-float("inf"))
        value = probability * tl.exp((score.to(tl.float64) - finite(whole)).to(REAL))
        tl.store(marginals + at * size + l, value, mask=l < size)
