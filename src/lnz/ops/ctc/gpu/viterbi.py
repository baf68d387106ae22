"""Best alignments: the lattice in (max, +), and the walk back."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from lnz.ops.ctc.gpu.calls import arranged, block, warps_for
from lnz.ops.ctc.gpu.states import begin, emissions, ends, ways
from lnz.ops.ctc.lattice import Lattice
from lnz.ops.jit.triton import accumulating
from lnz.ops.jit.triton.launch import kernel, launch
from lnz.ops.jit.triton.math import finite
from lnz.typing import IGNORE


@kernel
def viterbi_kernel(
    x, prior, labels, direct, lengths, counts, states, origins, alignments, scores, T, S, entry, step, blank,
    STAYS: tl.constexpr, BLANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One target: ``alignments [B, T]``, classes, where there is one, and its score, double.

    ``states [B, 2, 2, S + 1]`` are rows; ``origins uint8 [B, T, 2, S + 1]`` how many states back each came from.
    """
    b = tl.program_id(0).to(tl.int64)
    REAL: tl.constexpr = states.dtype.element_ty
    n, count, wide = tl.load(lengths + b), tl.load(counts + b), S + 1
    x, states, origins = x + b * entry, states + b * 4 * wide, origins + b * T * 2 * wide
    labels, direct, alignments = labels + b * S, direct + b * S, alignments + b * T
    begin(states, wide, BLOCK)
    top = tl.zeros([], REAL)
    for t in range(n):
        before, after = states + (t % 2) * 2 * wide, states + ((t + 1) % 2) * 2 * wide
        highest = tl.full([BLOCK], -float("inf"), REAL)
        for first in range(0, wide, BLOCK):
            j = first + tl.arange(0, BLOCK)
            of_blank, of_labels = emissions(x + t * step, prior, labels, j, count, blank, top, BLANK, REAL)
            at_blank, before_label, at_label, skipped = ways(before, direct, j, wide, count, STAYS)
            blanks = tl.maximum(at_blank, before_label) + of_blank
            into_label = tl.maximum(tl.maximum(at_label, at_blank), skipped)
            own = into_label + of_labels
            tl.store(after + j, blanks, mask=j < wide)
            tl.store(after + wide + j, own, mask=j < wide)
            at = origins + t * 2 * wide + j
            tl.store(at, tl.where(at_blank >= before_label, 0, 1).to(tl.uint8), mask=j < wide)
            back = tl.where(at_label == into_label, 0, tl.where(at_blank == into_label, 1, 2))
            tl.store(at + wide, back.to(tl.uint8), mask=j < wide)
            highest = tl.maximum(highest, tl.maximum(tl.where(j <= count, blanks, -float("inf")), own))
        top = finite(tl.max(highest, 0))
        tl.debug_barrier()
    last_blank, last_label = ends(states + (n % 2) * 2 * wide, wide, count)
    if tl.maximum(last_blank, last_label) > -float("inf"):
        state = 2 * count - tl.where(last_label > last_blank, 1, 0)
        total = tl.zeros([], tl.float64)
        for t in range(n - 1, -1, -1):
            j = state // 2
            is_label = state % 2 == 1
            label = tl.load(labels + j, mask=is_label, other=blank)
            tl.store(alignments + t, label.to(tl.int64))
            total += tl.load(x + t * step + label).to(tl.float64)
            state -= tl.load(origins + t * 2 * wide + (state % 2) * wide + j).to(state.dtype)
        tl.store(scores + b, total)
    else:
        tl.store(scores + b, -float("inf"))


def viterbi(x: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """Best alignments ``int64 [B, T]`` and their scores ``[B]``; −100 and −inf where there is none. O(B T S) time."""
    (B, T, _), S = x.shape, of.labels.shape[1]
    x, strides, lattice = arranged(x, of)
    alignments = torch.full((B, T), IGNORE, dtype=torch.int64, device=x.device)
    states = torch.empty(B, 2, 2, S + 1, dtype=accumulating(x.dtype), device=x.device)
    origins = torch.empty(B, T, 2, S + 1, dtype=torch.uint8, device=x.device)
    scores = states.new_empty(B, dtype=torch.float64)
    launch(
        viterbi_kernel, (B,), x, x.new_zeros(x.shape[2]), *lattice, states, origins, alignments, scores, T, S, *strides,
        max(0, of.blank), STAYS=of.stays, BLANK=of.blank >= 0, BLOCK=block(S), warps=warps_for(S, states),
    )  # fmt: skip
    return alignments, scores
