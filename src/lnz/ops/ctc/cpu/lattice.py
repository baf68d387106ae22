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
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

from lnz.ops.ctc.cpu.floating import RENORMALISED, WIDE, Eight, renormalise
from lnz.ops.ctc.cpu.rows import FLAGS, fill, total


@njit
def columns(U):
    """How many columns rows of U labels need."""
    return (U // WIDE + 2) * WIDE


@intrinsic
def _forward(
    typing_context: Any, before: Any, weights: Any, blank: Any, blank_exponent: Any, direct: Any, lasting: Any,
    after: Any, at: Any,
) -> Any:  # fmt: skip
    """Blanks ``at`` … ``at`` + 7 of α_t, and the labels after them, from α_{t−1}."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = Eight(context, builder, signature, arguments)
        before, weights, blank, blank_exponent, direct, lasting, after, at = eight.arguments
        later = eight.after(at)
        b, l = eight.number(before, at), eight.number(before, at, 2)
        stay = eight.with_exponent(eight.number(before, later, 2), eight.spread(lasting))
        either = eight.plus(b, l)
        weight = eight.spread(blank), eight.spread(blank_exponent)
        eight.store_number(eight.times(either, weight), after, at)
        come = eight.choose(eight.positive(eight.load(direct, at)), either, b)
        eight.store_number(eight.times(eight.plus(stay, come), eight.number(weights, later)), after, later, 2)
        return context.get_dummy_value()

    return types.void(before, weights, blank, blank_exponent, direct, lasting, after, at), generate


@intrinsic
def _flow(
    typing_context: Any, before: Any, direct: Any, lasting: Any, there: Any, at: Any,
) -> Any:  # fmt: skip
    """Columns ``at`` … ``at`` + 7 of the probabilities ``there``, one frame back, in place.

    Rows of ``there``: blanks; labels, that came from another state or are the last; labels that came from themselves.
    Those of labels add up. Label columns ``at`` + 1 … ``at`` + 8 are read: blocks go up.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = Eight(context, builder, signature, arguments)
        before, direct, lasting, there, at = eight.arguments
        later = eight.after(at)

        def times(x: Any, y: Any) -> Any:
            return builder.fmul(x, y)

        def plus(x: Any, y: Any) -> Any:
            return builder.fadd(x, y)

        b, l = eight.number(before, at), eight.number(before, at, 2)
        stay = eight.with_exponent(eight.number(before, later, 2), eight.spread(lasting))
        from_blank, from_label = eight.shares(b, l)
        follows = eight.positive(eight.load(direct, at))
        stayed, came = eight.shares(stay, eight.choose(follows, eight.plus(b, l), b))
        blank, label = eight.load(there, at), plus(eight.load(there, later, 1), eight.load(there, later, 2))
        came = times(label, came)
        skipped = builder.select(follows, times(came, from_label), eight.constant(0.0))
        stepped = builder.select(follows, times(came, from_blank), came)
        eight.store(plus(times(blank, from_blank), stepped), there, at)
        eight.store(plus(times(blank, from_label), skipped), there, at, 1)
        eight.store(times(label, stayed), there, later, 2)
        return context.get_dummy_value()

    return types.void(before, direct, lasting, there, at), generate


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
    for at in range(0, end - WIDE, WIDE):
        _forward(before, weights, blank[0], blank[1], direct, lasting, after, at)  # type: ignore[call-arg]
    after[0, end - WIDE], after[1, end - WIDE] = 1.0, -math.inf  # beside what a block reaches
    after[2, 0], after[3, 0] = 1.0, -math.inf
    if t % RENORMALISED == RENORMALISED - 1:
        for at in range(0, end, WIDE):
            renormalise(after, at)  # type: ignore[call-arg]


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
    for at in range(0, columns(U) - WIDE, WIDE):
        _flow(before, direct, lasting, there, at)  # type: ignore[call-arg]


@njit(fastmath=FLAGS)
def _sum(out, x, y):
    for k in range(out.size):
        out[k] = x[k] + y[k]
