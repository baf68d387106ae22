"""The softmax of frames, and its gradient less what the lattice says: one reading of the logits each."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite


@kernel
def frames_kernel(x, lengths, frames, T, C, entry, step, BLOCK: tl.constexpr):
    """Of one frame the largest score and Σ exp(score − that): ``frames [B, T, 2]``; 0 and 1 over padding."""
    b, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    REAL: tl.constexpr = frames.dtype.element_ty
    size = tl.where(t < tl.load(lengths + b), C, 0)
    x += b * entry + t * step
    top, total = tl.full([BLOCK], -float("inf"), REAL), tl.zeros([BLOCK], REAL)
    for first in range(0, size, BLOCK):
        c = first + tl.arange(0, BLOCK)
        score = tl.load(x + c, mask=c < size, other=-float("inf")).to(REAL)
        higher = tl.maximum(top, score)
        total = total * tl.exp(top - finite(higher)) + tl.exp(score - finite(higher))
        top = higher
    whole = finite(tl.max(top, 0))
    total = tl.sum(total * tl.exp(top - whole), 0)
    at = frames + (b * T + t) * 2
    tl.store(at, whole)
    tl.store(at + 1, tl.where(total == 0, 1.0, total))  # of no classes that are possible


@kernel
def slopes_kernel(
    x, frames, occupancy, classes, following, is_first, most, weight, lengths, out, T, C, S, entry, step,
    NORMALISE: tl.constexpr, BLOCK: tl.constexpr, LABELS: tl.constexpr,
):  # fmt: skip
    """Of one frame, weight times (the probability of each class in alignments − its softmax), into ``out``.

    ``occupancy [B, T, S + 1]`` is that of labels and, last, of blanks; ``classes [B, S + 1]`` are theirs, −1 for none.
    The first place of a class in a target adds up those of all its places, in order: ``following [B, S + 1]`` is the
    next place of the same class, −1 for none, and no class has more than ``most [B]`` places. ``out`` lies as x.
    """
    b, t = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    REAL: tl.constexpr = frames.dtype.element_ty
    x, out = x + b * entry + t * step, out + b * entry + t * step
    scale = tl.where(t < tl.load(lengths + b), tl.load(weight + b), 0.0).to(REAL)
    top, total = tl.load(frames + (b * T + t) * 2), tl.load(frames + (b * T + t) * 2 + 1)
    for first in range(0, C, BLOCK):
        c = first + tl.arange(0, BLOCK)
        slope = tl.zeros([BLOCK], REAL)
        if NORMALISE:
            score = tl.load(x + c, mask=c < C, other=0.0).to(REAL)
            slope = tl.where(scale == 0, 0.0, -scale * tl.exp(score - top) / total)
        tl.store(out + c, slope, mask=c < C)
    tl.debug_barrier()  # what other threads of this program have written is overwritten from here on
    occupancy, classes = occupancy + (b * T + t) * (S + 1), classes + b * (S + 1)
    following, is_first = following + b * (S + 1), is_first + b * (S + 1)
    for first in range(0, S + 1, LABELS):
        j = first + tl.arange(0, LABELS)
        owner = (tl.load(is_first + j, mask=j <= S, other=0) != 0) & (j <= S)
        place, share = tl.where(owner, j, -1).to(tl.int64), tl.zeros([LABELS], REAL)
        for _ in range(tl.load(most + b)):
            share += tl.load(occupancy + place, mask=place >= 0, other=0.0)
            place = tl.load(following + place, mask=place >= 0, other=-1)
        c = tl.load(classes + j, mask=owner, other=-1)
        if NORMALISE:
            score = tl.load(x + c, mask=owner & (c >= 0), other=0.0).to(REAL)
            share -= tl.exp(score - top) / total
        tl.store(out + c, tl.where(scale == 0, 0.0, scale * share), mask=owner & (c >= 0))
