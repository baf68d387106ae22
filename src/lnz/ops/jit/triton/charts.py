"""Sums in logarithms over the ways to make a span out of two: what kernels of charts are written in.

Charts hold logarithms in float64, since those of long sentences are large, and their differences are what counts. The
exponentials of differences are taken in float32, unless scores are float64.
"""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite


@kernel
def add_ways(top, total, ways, REAL: tl.constexpr):
    """ln Σ exp of rows as (their largest, Σ exp of the rest): with ``ways [rows, more]`` added; −inf is none."""
    higher = tl.maximum(top, tl.max(ways, 1))
    known = finite(higher)
    total *= tl.exp((top - known).to(REAL))
    return higher, total + tl.sum(tl.exp((ways - known[:, None]).to(REAL)), 1)


@kernel
def log_of(top, total):
    """The logarithm of what :func:`add_ways` has added up."""
    return tl.where(total == 0, -float("inf"), finite(top) + tl.log(total).to(tl.float64))


@kernel
def entries(chart, first, last, size, there):
    """Of a chart ``[size, size]`` the entries of spans; −inf where they are not ``there``."""
    return tl.load(chart + first * size + last, mask=there, other=-float("inf"))


@kernel
def share(mass, first, last, size, there, ways, whole, REAL: tl.constexpr):
    """What goes to a way of making spans, of the probability ``mass`` of these: in proportion, out of the ``whole``."""
    given = tl.load(mass + first * size + last, mask=there, other=0.0)
    return tl.sum(given * tl.exp((ways - finite(whole)).to(REAL)), 1)
