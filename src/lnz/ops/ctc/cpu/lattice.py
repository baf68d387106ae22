"""Forward–backward through one lattice, in numbers with an exponent each (:mod:`.floating`): right at any range.

The states of a target of U labels are four rows: mantissas and exponents of the blanks b_0 … b_U in columns 0 … U, and
of the labels l_1 … l_U in columns 1 … U, so that l_j is followed by b_j. All other columns are zero, and stay so, for
the weights there are: loops run over whole blocks, up to :func:`columns`. Column j of ``direct`` says whether l_{j+1}
may follow l_j without a blank between.
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
def _backward(
    typing_context: Any, onward: Any, weights: Any, blank: Any, blank_exponent: Any, direct: Any, lasting: Any,
    alpha: Any, inverse: Any, exponent: Any, occupied: Any, at: Any,
) -> Any:  # fmt: skip
    """Columns ``at`` … ``at`` + 7 of ``onward``, the weights of what follows a frame times β, one frame back.

    ``occupied`` rows 0 and 1 are α β / Z of blanks and labels; 1/Z is ``inverse`` · 2^−``exponent``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = Eight(context, builder, signature, arguments)
        onward, weights, blank, blank_exponent, direct, lasting = eight.arguments[:6]
        alpha, inverse, exponent, occupied, at = eight.arguments[6:]
        b, l = eight.number(onward, at), eight.number(onward, eight.after(at), 2)
        stay = eight.with_exponent(eight.number(onward, at, 2), eight.spread(lasting))
        either = eight.plus(b, l)
        go = eight.choose(eight.positive(eight.load(direct, at)), either, b)
        label = eight.plus(stay, go)
        inverse, exponent = eight.spread(inverse), eight.spread(exponent)
        for row, beta in enumerate((either, label)):
            m, e = eight.times(beta, eight.number(alpha, at, 2 * row))
            share = builder.fmul(builder.fmul(m, inverse), eight.power(builder.fsub(e, exponent)))
            eight.store(share, occupied, at, row)
        weight = eight.spread(blank), eight.spread(blank_exponent)
        eight.store_number(eight.times(either, weight), onward, at)
        eight.store_number(eight.times(label, eight.number(weights, at)), onward, at, 2)
        return context.get_dummy_value()

    kinds = (onward, weights, blank, blank_exponent, direct, lasting, alpha, inverse, exponent, occupied, at)
    return types.void(*kinds), generate


@njit(fastmath=FLAGS)
def clear(rows):
    """All numbers of some rows of mantissas and exponents become 0."""
    for row in range(0, rows.shape[0], 2):
        fill(rows[row], 1.0)
        fill(rows[row + 1], -math.inf)


@njit(fastmath=FLAGS)
def forward(n, U, weights, blanks, direct, lasting, states):
    """Fill ``states[:n + 1]`` with α_0 … α_n; returns Z, m and e, from ``weights[:n]`` and ``blanks[:n]``."""
    end = columns(U)
    clear(states[0, :, :end])
    states[0, 1, 0] = 0.0
    for t in range(n):
        before, after, weight, m_blank, e_blank = states[t], states[t + 1], weights[t], blanks[t, 0], blanks[t, 1]
        for at in range(0, end - WIDE, WIDE):
            _forward(before, weight, m_blank, e_blank, direct, lasting, after, at)  # type: ignore[call-arg]
        after[0, end - WIDE], after[1, end - WIDE] = 1.0, -math.inf  # beside what a block reaches
        after[2, 0], after[3, 0] = 1.0, -math.inf
        if t % RENORMALISED == RENORMALISED - 1:
            for at in range(0, end, WIDE):
                renormalise(after, at)  # type: ignore[call-arg]
    top = max(states[n, 1, U], states[n, 3, U])
    if top == -math.inf:
        return 1.0, top
    return states[n, 0, U] * 2.0 ** (states[n, 1, U] - top) + states[n, 2, U] * 2.0 ** (states[n, 3, U] - top), top


@njit(fastmath=FLAGS)
def backward(n, U, weights, blanks, direct, lasting, states, m, e, onward, occupied, occupancy):
    """The occupancies of labels, and of all blanks in the last column, from α and Z = m · 2^e > 0."""
    end = columns(U)
    clear(onward[:, :end])
    onward[1, U] = 0.0  # as if a blank came after the last frame
    inverse = 1.0 / m
    for t in range(n - 1, -1, -1):
        weight, m_blank, e_blank, alpha = weights[t], blanks[t, 0], blanks[t, 1], states[t + 1]
        for at in range(0, end - WIDE, WIDE):
            _backward(onward, weight, m_blank, e_blank, direct, lasting, alpha, inverse, e, occupied, at)  # type: ignore[call-arg]
        row = occupancy[t]
        _copy(row[:U], occupied[1, 1 : U + 1])
        fill(row[U:], 0.0)
        row[row.size - 1] = total(occupied[0, : U + 1])
        if t % RENORMALISED == 0:
            for at in range(0, end, WIDE):
                renormalise(onward, at)  # type: ignore[call-arg]


@njit(fastmath=FLAGS)
def _copy(out, row):
    for k in range(out.size):
        out[k] = row[k]
