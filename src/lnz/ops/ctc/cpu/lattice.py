"""Steps through one lattice, in numbers with an exponent each (:mod:`.floating`): right at any range.

The states of a target of U labels are four rows: mantissas and exponents of the blanks b_0 … b_U in columns 0 … U, and
of the labels l_1 … l_U in columns 1 … U, so that l_j is followed by b_j. All other columns are zero, and stay so, for
the weights there are: loops run over whole blocks, up to :func:`columns`. Column j of ``direct`` says whether l_{j+1}
may follow l_j without a blank between.

Forward, α_t is the sum over the paths of t frames that end in a state. Backward, the probability of being in a state
flows to the states that it can have come from, in proportion to α: no β is needed, and no score. A share of a sum lies
in [0, 1] whatever the range of scores, where α β / Z is a difference of exponents that may have no digits left.
"""

from __future__ import annotations

import math

from numba import njit

from lnz.ops.ctc.cpu.floating import (
    RENORMALISED,
    WIDE,
    choose,
    number,
    plus,
    renormalise,
    shares,
    store_number,
    times,
)
from lnz.ops.jit.cpu.memory import address, load, store
from lnz.ops.jit.cpu.rows import FLAGS, fill, total
from lnz.ops.jit.cpu.vectors import select


@njit
def columns(U):
    """How many columns rows of U labels need."""
    return (U // WIDE + 2) * WIDE


@njit(fastmath=FLAGS)
def _forward(at, before, weights, blank, direct, lasting, after, line):
    """Blanks ``at`` … ``at`` + 7 of α_t, and the labels after them, from α_{t−1}; pointers to rows ``line`` apart."""
    b, l = number(before, at, line), number(before, at + 2 * line, line)
    m, e = number(before, at + 2 * line + 1, line)
    stay, either = (m, e + lasting), plus(b, l)
    store_number((either[0] * blank[0], either[1] + blank[1]), after, at, line)
    come = choose(load(direct, at, width=WIDE) > 0, either, b)
    label = times(plus(stay, come), number(weights, at + 1, line))
    store_number(label, after, at + 2 * line + 1, line)


@njit(fastmath=FLAGS)
def _flow(at, before, direct, lasting, there, line):
    """Columns ``at`` … ``at`` + 7 of the probabilities ``there``, one frame back, in place.

    Rows of ``there``: blanks; labels, that came from another state or are the last; labels that came from themselves.
    Those of labels add up. Label columns ``at`` + 1 … ``at`` + 8 are read: blocks go up.
    """
    b, l = number(before, at, line), number(before, at + 2 * line, line)
    m, e = number(before, at + 2 * line + 1, line)
    from_blank, from_label = shares(b, l)
    follows = load(direct, at, width=WIDE) > 0
    stayed, came = shares((m, e + lasting), choose(follows, plus(b, l), b))
    blank = load(there, at, width=WIDE)
    label = load(there, at + line + 1, width=WIDE) + load(there, at + 2 * line + 1, width=WIDE)
    came = label * came
    skipped = select(follows, came * from_label, 0.0)
    stepped = select(follows, came * from_blank, came)
    store(blank * from_blank + stepped, there, at)
    store(blank * from_label + skipped, there, at + line)
    store(label * stayed, there, at + 2 * line + 1)


@njit(fastmath=FLAGS)
def start(state, U):
    """α_0: as if a blank came before the first frame."""
    end = columns(U)
    for row in range(0, 4, 2):
        fill(state[row, :end], 1.0)
        fill(state[row + 1, :end], -math.inf)
    state[1, 0] = 0.0


@njit(fastmath=FLAGS)
def forward(t, U, before, weights, blank, direct, lasting, after):
    """α of frames 0 … t from that of frames 0 … t − 1, with the weights of frame t, that of a blank apart."""
    end = columns(U)
    line, state = before.shape[1], address(after, 0)
    rows, factors, arcs = address(before, 0), address(weights, 0), address(direct, 0)
    for at in range(0, end - WIDE, WIDE):
        _forward(at, rows, factors, blank, arcs, lasting, state, line)
    after[0, end - WIDE], after[1, end - WIDE] = 1.0, -math.inf  # beside what a block reaches
    after[2, 0], after[3, 0] = 1.0, -math.inf
    if t % RENORMALISED == RENORMALISED - 1:
        for at in range(0, end, WIDE):
            renormalise(state, at, line)
            renormalise(state, at + 2 * line, line)


@njit(fastmath=FLAGS)
def ends(state, U):
    """m and e of the mantissas of Z at a common exponent: of paths that end in the last blank, in the last label."""
    top = max(state[1, U], state[3, U])
    if top == -math.inf:
        return 0.0, 0.0, top
    return state[0, U] * 2.0 ** (state[1, U] - top), state[2, U] * 2.0 ** (state[3, U] - top), top


@njit(fastmath=FLAGS)
def finish(there, state, U):
    """The probabilities of states after the last frame."""
    blank, label, _ = ends(state, U)
    for row in range(3):
        fill(there[row, : columns(U)], 0.0)
    there[0, U], there[1, U] = blank / (blank + label), label / (blank + label)


@njit(fastmath=FLAGS)
def occupied(there, U, row):
    """Of one frame, the probabilities of labels and, last, of all blanks; 0 between."""
    _sum(row[:U], there[1, 1 : U + 1], there[2, 1 : U + 1])
    fill(row[U:], 0.0)
    row[row.size - 1] = total(there[0, : U + 1])


@njit(fastmath=FLAGS)
def backward(U, before, direct, lasting, there):
    """The probabilities of states, one frame back, from α before it."""
    rows, arcs, probabilities = address(before, 0), address(direct, 0), address(there, 0)
    for at in range(0, columns(U) - WIDE, WIDE):
        _flow(at, rows, arcs, lasting, probabilities, there.shape[1])


@njit(fastmath=FLAGS)
def _sum(out, x, y):
    for k in range(out.size):
        out[k] = x[k] + y[k]
