"""Tables, rows and one step of the recursion: what all kernels of chains are made of.

A program has one chain, or one block of its steps. Labels lie along the lanes of a block of ``LABELS`` entries, a power
of two; what is beyond L is −inf. A table of pairs is a block ``[LABELS, COLUMNS]``, of all columns where it fits into
registers (``COLUMNS == LABELS``), where one table is shared by all steps also for the whole run (``SHARED``).
"""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite, log_sum_exp


@kernel
def row(scores, place, size, REAL: tl.constexpr):
    """Scores of one step; −inf beyond ``size``."""
    return tl.load(scores + place, mask=place < size, other=-float("inf")).to(REAL)


@kernel
def row_if(scores, place, size, there, REAL: tl.constexpr):
    """Scores of one step; −inf beyond ``size``, and everywhere where the step is not ``there``."""
    return tl.load(scores + place, mask=place < tl.where(there, size, 0), other=-float("inf")).to(REAL)


@kernel
def columns(table, first, size, LABELS: tl.constexpr, COLUMNS: tl.constexpr, REAL: tl.constexpr):
    """A(k, l) of all k and of COLUMNS labels l from ``first`` on; −inf beyond."""
    k = tl.arange(0, LABELS)[:, None]
    l = first + tl.arange(0, COLUMNS)[None, :]
    there = (k < size) & (l < size)
    return tl.load(table + k * size + l, mask=there, other=-float("inf")).to(REAL)


@kernel
def highest(table):
    """The largest score of a table; 0 where all are −inf."""
    return finite(tl.max(tl.max(table, 1), 0))


@kernel
def span(table):
    """From the least score of a table that is not −inf to the largest, which is 0."""
    return tl.max(tl.max(tl.where(table == -float("inf"), 0.0, -table), 1), 0)


@kernel
def in_exponentials(alpha, reach, REAL: tl.constexpr):
    """Whether no term exp(α(k) + A(k, l)) underflows but those of −inf, A being at most 0 and at least −``reach``."""
    lowest = tl.min(tl.where(alpha == -float("inf"), 0.0, alpha), 0)
    return lowest - reach > (-80.0 if tl.float32 == REAL else -700.0)


@kernel
def prepared(table, size, LABELS: tl.constexpr, COLUMNS: tl.constexpr, REAL: tl.constexpr):
    """Of a table for all steps: exp(A − top), top, and how far below it the least score is."""
    scores = columns(table, 0, size, LABELS, COLUMNS, REAL)
    top = highest(scores)
    return tl.exp(scores - top), top, span(scores - top)


@kernel
def centred(table, top, size, LABELS: tl.constexpr, SHARED: tl.constexpr, REAL: tl.constexpr):
    """A whole table less its largest score, and that: ``top``, where one is shared by all steps."""
    scores = columns(table, 0, size, LABELS, LABELS, REAL)
    if not SHARED:
        top = highest(scores)
    return scores - top, top


@kernel
def arrive(alpha, table, weights, top, reach, size, LABELS: tl.constexpr, SHARED: tl.constexpr):
    """ln Σ_k exp(α(k) + A(k, l) − top), and top: a product with ``weights`` where it has the range, else in logarithms.

    Only the weights stay in registers; in logarithms the ``table``, a pointer, is read again.
    """
    if SHARED:
        if in_exponentials(alpha, reach, alpha.dtype):
            message = tl.log(tl.sum(tl.exp(alpha)[:, None] * weights, 0))
        else:
            scores, _ = centred(table, top, size, LABELS, SHARED, alpha.dtype)
            message = log_sum_exp(alpha[:, None] + scores, 0)
    else:
        scores, top = centred(table, top, size, LABELS, SHARED, alpha.dtype)
        message = log_sum_exp(alpha[:, None] + scores, 0)
    return message, top


@kernel
def shared_out(pairs, after):
    """P(k, l) = P(k | l) · after(l), where P(k | l) is in proportion to ``pairs [K, L]``."""
    mass = tl.sum(pairs, 0)
    return pairs * tl.where(mass == 0, 0.0, after / mass)[None, :]


@kernel
def in_logarithms(alpha, table):
    """exp(α(k) + A(k, l)), the largest of each column being 1."""
    pairs = alpha[:, None] + table
    return tl.exp(pairs - finite(tl.max(pairs, 0))[None, :])


@kernel
def joint(alpha, after, table, weights, top, reach, size, LABELS: tl.constexpr, SHARED: tl.constexpr):
    """P(y_t = k, y_{t+1} = l) = P(y_t = k | y_{t+1} = l) · after(l), α being that of the filter at t."""
    if SHARED:
        if in_exponentials(alpha, reach, alpha.dtype):
            pairs = tl.exp(alpha)[:, None] * weights
        else:
            scores, _ = centred(table, top, size, LABELS, SHARED, alpha.dtype)
            pairs = in_logarithms(alpha, scores)
    else:
        scores, _ = centred(table, top, size, LABELS, SHARED, alpha.dtype)
        pairs = in_logarithms(alpha, scores)
    return shared_out(pairs, after)


@kernel
def score(y, node, edge, n, size, step, BLOCK: tl.constexpr):
    """s(y), double: Σ_t x_t(y_t) + A_{t−1}(y_{t−1}, y_t), BLOCK steps side by side."""
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, n, BLOCK):
        t = first + tl.arange(0, BLOCK).to(tl.int64)
        label = tl.load(y + t, mask=t < n, other=0)
        total += tl.load(node + t * size + label, mask=t < n, other=0.0).to(tl.float64)
        joined = (t > 0) & (t < n)
        before = tl.load(y + t - 1, mask=joined, other=0)
        pair = (t - 1) * step + before * size + label
        total += tl.load(edge + pair, mask=joined, other=0.0).to(tl.float64)
    return tl.sum(total, 0)
