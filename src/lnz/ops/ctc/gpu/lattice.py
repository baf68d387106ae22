"""Through the lattice forwards, for ln Q, and backwards, for the occupancies of its states."""

from __future__ import annotations

import triton.language as tl

from lnz.ops.ctc.gpu.states import begin, emissions, ends, log_add, log_add_three, ways
from lnz.ops.jit.triton.launch import kernel
from lnz.ops.jit.triton.math import finite


@kernel
def forward_kernel(
    x, prior, labels, direct, lengths, counts, frames, states, log_z, T, S, entry, step, rows, blank,
    STAYS: tl.constexpr, NORMALISE: tl.constexpr, KEEP: tl.constexpr, BLANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """ln Q of one target, double, and its states ``[B, rows, 2, S + 1]`` in logarithms: all rows, or the last two.

    The largest of a row is taken off the next one, and its sum, with what frames have in common, into ln Q in double.
    """
    b = tl.program_id(0).to(tl.int64)
    REAL: tl.constexpr = states.dtype.element_ty
    n, count, wide = tl.load(lengths + b), tl.load(counts + b), S + 1
    x, frames, states = x + b * entry, frames + b * T * 2, states + b * rows * 2 * wide
    labels, direct = labels + b * S, direct + b * S
    begin(states, wide, BLOCK)
    top, total = tl.zeros([], REAL), tl.zeros([], tl.float64)
    for t in range(n):
        before = states + (t if KEEP else t % 2) * 2 * wide
        after = states + ((t + 1) if KEEP else (t + 1) % 2) * 2 * wide
        centre, highest = tl.load(frames + t * 2), tl.full([BLOCK], -float("inf"), REAL)
        for first in range(0, wide, BLOCK):
            j = first + tl.arange(0, BLOCK)
            of_blank, of_labels = emissions(x + t * step, prior, labels, j, count, blank, centre, BLANK, REAL)
            at_blank, before_label, at_label, skipped = ways(before, direct, j, wide, count, STAYS)
            blanks = log_add(at_blank, before_label) + of_blank - top
            own = log_add_three(at_label, at_blank, skipped) + of_labels - top
            tl.store(after + j, blanks, mask=j < wide)
            tl.store(after + wide + j, own, mask=j < wide)
            highest = tl.maximum(highest, tl.maximum(tl.where(j <= count, blanks, -float("inf")), own))
        total += top.to(tl.float64)
        top = finite(tl.max(highest, 0))
        tl.debug_barrier()
    last_blank, last_label = ends(states + (n if KEEP else n % 2) * 2 * wide, wide, count)
    common = tl.zeros([128], tl.float64)
    for first in range(0, n, 128):
        frame = first + tl.arange(0, 128)
        if NORMALISE:
            common -= tl.log(tl.load(frames + frame * 2 + 1, mask=frame < n, other=1.0).to(tl.float64))
        else:
            common += tl.load(frames + frame * 2, mask=frame < n, other=0.0).to(tl.float64)
    tl.store(log_z + b, log_add(last_blank, last_label).to(tl.float64) + total + tl.sum(common, 0))


@kernel
def backward_kernel(
    direct, lengths, counts, states, flows, occupancy, T, S, STAYS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Occupancies ``[B, T, S + 1]`` of labels and, last, of all blanks, of the states that the pass forwards left.

    They flow back from the last frame, from each state to those before it in proportion to the paths that come from
    there. ``flows [B, 2, 5, S + 1]`` is room for what goes along each way: blanks that stay, blanks from labels, labels
    that stay, labels from blanks, labels from labels.
    """
    b = tl.program_id(0).to(tl.int64)
    REAL: tl.constexpr = states.dtype.element_ty
    n, count, wide = tl.load(lengths + b), tl.load(counts + b), S + 1
    states, flows, direct = states + b * (T + 1) * 2 * wide, flows + b * 10 * wide, direct + b * S
    occupancy += b * T * wide
    last_blank, last_label = ends(states + n * 2 * wide, wide, count)
    whole = finite(log_add(last_blank, last_label))
    for first in range(0, wide, BLOCK):  # as if all of the last frame stayed
        j = first + tl.arange(0, BLOCK)
        here = flows + (n % 2) * 5 * wide + j
        nothing = tl.zeros([BLOCK], REAL)
        tl.store(here, tl.where(j == count, tl.exp(last_blank - whole), 0.0), mask=j < wide)
        tl.store(here + wide, nothing, mask=j < wide)
        tl.store(here + 2 * wide, tl.where(j == count - 1, tl.exp(last_label - whole), 0.0), mask=j < wide)
        tl.store(here + 3 * wide, nothing, mask=j < wide)
        tl.store(here + 4 * wide, nothing, mask=j < wide)
    tl.debug_barrier()
    for t in range(n, 0, -1):
        came, go = flows + (t % 2) * 5 * wide, flows + ((t - 1) % 2) * 5 * wide
        all_blanks = tl.zeros([BLOCK], REAL)
        for first in range(0, wide, BLOCK):
            j = first + tl.arange(0, BLOCK)
            blanks = tl.load(came + j, mask=j < wide, other=0.0)
            blanks += tl.load(came + 3 * wide + j, mask=j < wide, other=0.0)
            own = tl.load(came + 2 * wide + j, mask=j < wide, other=0.0)
            own += tl.load(came + wide + j + 1, mask=j < S, other=0.0)
            own += tl.load(came + 4 * wide + j + 1, mask=j < S, other=0.0)
            tl.store(occupancy + (t - 1) * wide + j, own, mask=j < S)
            all_blanks += blanks
            at_blank, before_label, at_label, skipped = ways(states + (t - 1) * 2 * wide, direct, j, wide, count, STAYS)
            into_blank = finite(log_add(at_blank, before_label))
            into_label = finite(log_add_three(at_label, at_blank, skipped))
            tl.store(go + j, blanks * tl.exp(at_blank - into_blank), mask=j < wide)
            tl.store(go + wide + j, blanks * tl.exp(before_label - into_blank), mask=j < wide)
            tl.store(go + 2 * wide + j, own * tl.exp(at_label - into_label), mask=j < wide)
            tl.store(go + 3 * wide + j, own * tl.exp(at_blank - into_label), mask=j < wide)
            tl.store(go + 4 * wide + j, own * tl.exp(skipped - into_label), mask=j < wide)
        tl.store(occupancy + (t - 1) * wide + S, tl.sum(all_blanks, 0))
        tl.debug_barrier()
