"""One frame of the lattice of :mod:`lnz.ops.ctc.lattice`, a block of its states at a time.

Blank j (state 2 j, j = 0 … S) comes before label j (state 2 j + 1, j < S). A row of states is two planes of W = S + 1
numbers: blanks, then labels; the last label is none, and −inf. ``j`` numbers both, BLOCK lanes of them.
"""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite


@kernel
def begin(states, wide, BLOCK: tl.constexpr):
    """α before the first frame: as if a blank came before it."""
    for first in range(0, wide, BLOCK):
        j = first + tl.arange(0, BLOCK)
        tl.store(states + j, tl.where(j == 0, 0.0, -float("inf")), mask=j < wide)
        tl.store(states + wide + j, tl.full([BLOCK], -float("inf"), tl.float32), mask=j < wide)
    tl.debug_barrier()


@kernel
def ways(states, direct, j, wide, count, STAYS: tl.constexpr):
    """α of the states before: of blank j itself and label j − 1; of label j itself, blank j and label j − 1.

    −inf where the way is not allowed, or beyond ``count`` labels.
    """
    blank = tl.load(states + j, mask=j <= count, other=-float("inf"))
    label = tl.load(states + wide + j, mask=j < count, other=-float("inf"))
    before = tl.load(states + wide + j - 1, mask=(j > 0) & (j <= count), other=-float("inf"))
    skips = tl.load(direct + j, mask=j < count, other=0) != 0
    if not STAYS:
        label = tl.full(label.shape, -float("inf"), label.dtype)
    return blank, before, label, tl.where(skips, before, -float("inf"))


@kernel
def emissions(x, prior, labels, j, count, blank, top, BLANK: tl.constexpr, REAL: tl.constexpr):
    """Of one frame the scores of the blank and of labels j, less their prior and the largest of the frame."""
    label = tl.load(labels + j, mask=j < count, other=0)
    of_labels = tl.load(x + label, mask=j < count, other=-float("inf")).to(REAL) - top
    of_labels -= tl.load(prior + label, mask=j < count, other=0.0).to(REAL)
    of_blank = tl.full([], -float("inf"), REAL)
    if BLANK:
        of_blank = tl.load(x + blank).to(REAL) - top - tl.load(prior + blank).to(REAL)
    return of_blank, of_labels


@kernel
def log_add(a, b):
    """ln(exp a + exp b)."""
    top = finite(tl.maximum(a, b))
    return top + tl.log(tl.exp(a - top) + tl.exp(b - top))


@kernel
def log_add_three(a, b, c):
    """ln(exp a + exp b + exp c)."""
    top = finite(tl.maximum(tl.maximum(a, b), c))
    return top + tl.log(tl.exp(a - top) + tl.exp(b - top) + tl.exp(c - top))


@kernel
def ends(states, wide, count):
    """α of the two states in which an alignment may end, the last blank and the last label, after the last frame."""
    blank = tl.load(states + count)
    label = tl.load(states + wide + count - 1, mask=count > 0, other=-float("inf"))
    return blank, label
