"""Eisner's chart outside: probabilities flow from the whole sentence to the parts that its spans are made of."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.charts import entries, share
from lnz.ops.jit.triton.launch import kernel
from lnz.ops.projective.gpu.inside import LEFT, OPEN_LEFT, OPEN_RIGHT, RIGHT


@kernel
def outside_kernel(charts, masses, lengths, M, SINGLE_ROOT: tl.constexpr, SIDE: tl.constexpr):
    """``masses [B, 5, M, M]``, the probability of each span of each kind, of the ``charts`` of the pass inside.

    By widths, from the widest. A closed span is a part of wider closed ones, and of where two closed ones meet; an open
    span is a part of closed ones, not narrower. Of each, the part is in proportion to the sum that it is a term of.
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b) + 1
    REAL: tl.constexpr = masses.dtype.element_ty
    size = M * M
    charts, masses = charts + b * 5 * size, masses + b * 5 * size
    meet, open_right, open_left = charts, charts + OPEN_RIGHT * size, charts + OPEN_LEFT * size
    right, left = charts + RIGHT * size, charts + LEFT * size
    of_meet, of_right, of_left = masses, masses + RIGHT * size, masses + LEFT * size
    sentence = tl.where(tl.load(right + n - 1) > -float("inf"), n - 1, -1)  # its last word, where it has a tree
    for width in range(n - 1, -1, -1):
        for begin in range(0, n - width, SIDE):
            i = begin + tl.arange(0, SIDE)
            first, last, there = i[:, None], (i + width)[:, None], (i + width < n)[:, None]
            go_right, go_left = entries(right, first, last, M, there), entries(left, first, last, M, there)
            p_right = tl.where((i == 0) & (i + width == sentence), 1.0, 0.0).to(REAL)
            p_left = tl.zeros([SIDE], REAL)
            for other in range(0, n, SIDE):
                m = other + tl.arange(0, SIDE)[None, :]
                before, after = there & (m < first), (m > last) & (m < n)
                # right(i, j): the end of right(m, j), and the left part where two spans meet from i to m
                ways = go_right + entries(open_right, m, first, M, before)
                p_right += share(of_right, m, last, M, before, ways, entries(right, m, last, M, before), REAL)
                joined = after
                if SINGLE_ROOT:
                    joined = after & ((first > 0) | (last == 0))
                ways = go_right + entries(left, last + 1, m, M, joined)
                p_right += share(of_meet, first, m, M, joined, ways, entries(meet, first, m, M, joined), REAL)
                # left(i, j): the beginning of left(i, m), and the right part where two spans meet from m to j
                ways = go_left + entries(open_left, last, m, M, after)
                p_left += share(of_left, first, m, M, after, ways, entries(left, first, m, M, after), REAL)
                joined = before
                if SINGLE_ROOT:
                    joined = before & ((m > 0) | (first == 1))
                ways = go_left + entries(right, m, first - 1, M, joined)
                p_left += share(of_meet, m, last, M, joined, ways, entries(meet, m, last, M, joined), REAL)
            tl.store(of_right + i * M + i + width, p_right, mask=i + width < n)
            tl.store(of_left + i * M + i + width, p_left, mask=i + width < n)
        tl.debug_barrier()
        if width > 0:
            for begin in range(0, n - width, SIDE):
                i = begin + tl.arange(0, SIDE)
                first, last, there = i[:, None], (i + width)[:, None], (i + width < n)[:, None]
                opened_right = entries(open_right, first, last, M, there)
                opened_left = entries(open_left, first, last, M, there)
                p_right, p_left = tl.zeros([SIDE], REAL), tl.zeros([SIDE], REAL)
                for other in range(0, n, SIDE):
                    m = other + tl.arange(0, SIDE)[None, :]
                    before, after = there & (m <= first), (m >= last) & (m < n)
                    ways = opened_right + entries(right, last, m, M, after)
                    p_right += share(of_right, first, m, M, after, ways, entries(right, first, m, M, after), REAL)
                    ways = opened_left + entries(left, m, first, M, before)
                    p_left += share(of_left, m, last, M, before, ways, entries(left, m, last, M, before), REAL)
                at = i * M + i + width
                tl.store(masses + OPEN_RIGHT * size + at, p_right, mask=i + width < n)
                tl.store(masses + OPEN_LEFT * size + at, p_left, mask=i + width < n)
                tl.store(of_meet + at, p_right + p_left, mask=i + width < n)
            tl.debug_barrier()
