"""What kernels are written in: −inf is an ordinary number here, and nothing turns into NaN because of it."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel


@kernel
def finite(top):
    """A maximum that may be subtracted: 0 in place of −inf, of which differences are NaN."""
    return tl.where(top == -float("inf"), 0.0, top)


@kernel
def log_sum_exp(x, axis: tl.constexpr):
    """ln Σ exp x along an axis; −inf where all are."""
    top = finite(tl.max(x, axis))
    return top + tl.log(tl.sum(tl.exp(x - tl.expand_dims(top, axis)), axis))


@kernel
def normalised(x):
    """A row ``x`` less ln Σ exp x, and that; −inf stays −inf where all are."""
    constant = log_sum_exp(x, 0)
    return x - finite(constant), constant


@kernel
def entry(row, place, which):
    """``row[which]``, ``place`` being the numbers of its entries: registers cannot be indexed."""
    return tl.sum(tl.where(place == which, row, 0), 0)
