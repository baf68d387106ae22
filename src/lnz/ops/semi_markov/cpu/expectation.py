"""Expectations of sums over the parts of a segmentation, and their covariances with every part.

As :mod:`lnz.ops.chain.cpu.expectation`, where two conditionals take turns: P(width | a segment of label k ends at t)
and P(label k before | a segment of label l starts at t). Shapes as in :mod:`lnz.ops.semi_markov.reference`.
O(T (W L + L²)) time and O(T L) memory per sequence.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lnz.ops.jit import expectation as shared
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.columns import (
    FLAGS,
    INVERSE,
    LOGARITHM,
    MOMENT,
    TOP,
    normalise_columns,
    room_for_columns,
    weighted_sums,
)
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.rows import top_of
from lnz.ops.jit.expectation import Recursion


class Inputs(NamedTuple):
    """What is summed: segment ``[B, T, W, L]``, edge ``[B or 1, S, L, L]``, lengths ``[B]``."""

    segment: Any
    edge: Any
    lengths: Any


class Function(NamedTuple):
    """f: values of segments and of edges, as scores are; ``surprisal`` where it is −ln P(y), and they are not read."""

    surprisal: bool
    segment: Any
    edge: Any


class Gradient(NamedTuple):
    """Of Σ weight_b · E[f] by the scores, as they are; that of edges is added up in float64."""

    weight: Any
    segment: Any
    edge: Any


class State(NamedTuple):
    """Per step and label, ``[T, L]``: ln Σ and E[f] over what comes before a start, and over all up to an end."""

    enter: Any
    before: Any
    leave: Any
    until: Any


def _value(sequences: Inputs, function: Function, first: int, last: int, value: np.ndarray) -> None:
    """E[f] of sequences first … last − 1 into ``value [B]``."""
    _run(sequences, function, first, last, value, Gradient(value[:0], sequences.segment[:0], sequences.edge[:0]))


def _slopes(sequences: Inputs, function: Function, first: int, last: int, result: Gradient) -> None:
    """The gradient of Σ weight_b · E[f] of sequences first … last − 1."""
    _run(sequences, function, first, last, np.empty_like(result.weight), result)


@kernel(fastmath=FLAGS)
def _run(sequences, function, first, last, value, result):  # one, since a second would be compiled for as long
    _, steps, _, size = sequences.segment.shape
    state, scores, columns = _state(steps, size), _table(sequences.segment), room_for_columns(size)
    for b in range(first, last):
        value[b] = _forward(sequences, function, b, state, scores, columns)
        if len(result.weight) > 0:
            _backward(sequences, function, b, state, scores, columns, value[b], result)


@helper()
def _state(steps, size):
    rows = np.empty((4, steps, size))
    return State(rows[0], rows[1], rows[2], rows[3])


@helper()
def _table(segment):
    return np.empty((max(segment.shape[2], segment.shape[3]), segment.shape[3]))


@helper(fastmath=FLAGS)
def _forward(sequences, function, b, state, scores, columns):
    """E[f] of sequence b, and its ``state``."""
    n, size = sequences.lengths[b], scores.shape[1]
    for t in range(n):
        if t == 0:
            state.enter[0, :] = 0.0
            state.before[0, :] = 0.0
        else:
            _labels(sequences, b, t - 1, state, scores, columns)
            _moments_of_labels(function, b, t - 1, state, scores, columns)
            for c in range(size):
                state.enter[t, c] = columns[TOP, c] + columns[LOGARITHM, c]
                state.before[t, c] = columns[MOMENT, c]
        widths = _widths(sequences, b, t, state, scores, columns)
        _moments_of_widths(function, b, t, widths, state, scores, columns)
        for c in range(size):
            state.leave[t, c] = columns[TOP, c] + columns[LOGARITHM, c]
            state.until[t, c] = columns[MOMENT, c]
    total = 0.0
    if n:
        last, until = _last(state, n, columns), state.until[n - 1]
        for c in range(size):
            p = exp(last[c])
            if p > 0.0:
                total += p * (until[c] - last[c] if function.surprisal else until[c])
    return total


@helper(fastmath=FLAGS)
def _labels(sequences, b, t, state, scores, columns):
    """leave_t(k) + A_t(k, l): columns of ln P(k ends at t | l starts at t + 1), but for their constants."""
    edge, size = sequences.edge, scores.shape[1]
    own, at = b if len(edge) > 1 else 0, t if edge.shape[1] > 1 else 0
    for k in range(size):
        for c in range(size):
            scores[k, c] = state.leave[t, k] + edge[own, at, k, c]
    normalise_columns(scores[:size], columns)


@helper(fastmath=FLAGS)
def _widths(sequences, b, t, state, scores, columns):
    """enter_{t−w}(k) + s_{t−w}(w, k): columns of ln P(w | k ends at t), but for their constants; how many widths."""
    widths = min(t + 1, sequences.segment.shape[2])
    for w in range(widths):
        for c in range(scores.shape[1]):
            scores[w, c] = state.enter[t - w, c] + sequences.segment[b, t - w, w, c]
    normalise_columns(scores[:widths], columns)
    return widths


@helper(fastmath=FLAGS)
def _moments_of_labels(function, b, t, state, scores, columns):
    """E[f of what comes before | l starts at t + 1] into the last row of ``columns``."""
    own, at = b if len(function.edge) > 1 else 0, t if function.edge.shape[1] > 1 else 0
    top, inverse, logarithm, moment = columns[TOP], columns[INVERSE], columns[LOGARITHM], columns[MOMENT]
    moment[:] = 0.0
    for k in range(scores.shape[1]):
        for c in range(scores.shape[1]):
            weight = exp(scores[k, c] - top[c]) * inverse[c]
            local = (top[c] - scores[k, c]) + logarithm[c] if function.surprisal else function.edge[own, at, k, c]
            moment[c] += weight * (state.until[t, k] + local) if weight > 0.0 else 0.0


@helper(fastmath=FLAGS)
def _moments_of_widths(function, b, t, widths, state, scores, columns):
    """E[f of all up to its end | k ends at t] into the last row of ``columns``."""
    top, inverse, logarithm, moment = columns[TOP], columns[INVERSE], columns[LOGARITHM], columns[MOMENT]
    moment[:] = 0.0
    for w in range(widths):
        for c in range(scores.shape[1]):
            weight = exp(scores[w, c] - top[c]) * inverse[c]
            local = (top[c] - scores[w, c]) + logarithm[c] if function.surprisal else function.segment[b, t - w, w, c]
            moment[c] += weight * (state.before[t - w, c] + local) if weight > 0.0 else 0.0


@helper(fastmath=FLAGS)
def _last(state, n, columns):
    """ln P(the last segment has label k), a row of ``columns``."""
    leave, last = state.leave[n - 1], columns[MOMENT]
    top, ties, rest = top_of(leave), 0.0, 0.0
    for k in range(leave.size):  # the largest apart: next to it, the digits of the others would be lost
        if leave[k] == top:
            ties += 1.0
        else:
            rest += exp(leave[k] - top)
    logarithm = math.log(ties) + math.log1p(rest / ties) if top > -math.inf else 0.0
    for k in range(leave.size):
        last[k] = (leave[k] - top) - logarithm if top > -math.inf else -math.inf
    return last


@helper(fastmath=FLAGS)
def _backward(sequences, function, b, state, scores, columns, mean, result):
    """P(part) · (E[f | part] − E[f]) of every part of sequence b.

    ``ends`` and ``starts``, ``[T, L]``, are how likely a segment of a label ends and starts at a step, ``after_end``
    and ``from_start`` E[f of what comes then] − E[f].
    """
    size = scores.shape[1]
    n, weight = sequences.lengths[b], result.weight[b]
    ends, starts, from_start = np.zeros((n, size)), np.zeros((n, size)), np.zeros((n, size))
    after_end, both, follows = np.zeros(size), np.empty(size), np.empty(size)
    top, inverse, logarithm = columns[TOP], columns[INVERSE], columns[LOGARITHM]
    to, of = b if len(result.edge) > 1 else 0, b if len(function.edge) > 1 else 0
    result.segment[b] = 0
    for t in range(n - 1, -1, -1):
        if t == n - 1:
            last = _last(state, n, columns)
            for k in range(size):
                ends[t, k] = exp(last[k])
                after_end[k] = -mean - (last[k] if function.surprisal and ends[t, k] > 0.0 else 0.0)
        else:
            at, into = t if function.edge.shape[1] > 1 else 0, t if result.edge.shape[1] > 1 else 0
            for c in range(size):  # sums of p E so far
                from_start[t + 1, c] = from_start[t + 1, c] / starts[t + 1, c] if starts[t + 1, c] > 0.0 else 0.0
            _labels(sequences, b, t, state, scores, columns)
            for k in range(size):
                for c in range(size):
                    both[c] = exp(scores[k, c] - top[c]) * inverse[c] * starts[t + 1, c]
                    own = (top[c] - scores[k, c]) + logarithm[c]
                    local = own if function.surprisal else function.edge[of, at, k, c]
                    follows[c] = local + from_start[t + 1, c] if both[c] > 0.0 else 0.0
                p, q = weighted_sums(both, follows)
                for c in range(size):
                    result.edge[to, into, k, c] += weight * both[c] * (state.until[t, k] + follows[c])
                ends[t, k] = p
                after_end[k] = q / p if p > 0.0 else 0.0
        widths = _widths(sequences, b, t, state, scores, columns)
        for w in range(widths):
            for c in range(size):
                p = exp(scores[w, c] - top[c]) * inverse[c] * ends[t, c]
                own = (top[c] - scores[w, c]) + logarithm[c]
                local = own if function.surprisal else function.segment[b, t - w, w, c]
                if p > 0.0:
                    onward = local + after_end[c]
                    starts[t - w, c] += p
                    from_start[t - w, c] += p * onward
                    result.segment[b, t - w, w, c] = weight * p * (state.before[t - w, c] + onward)


RECURSION = Recursion(Inputs, Function, Gradient, _value, _slopes)


def expectation(part: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor] | None) -> Tensor:
    """E[f] ``[B]``, float64; see :mod:`lnz.ops.expectation`."""
    return shared.expectation(RECURSION, part, edge, lengths, function)


def covariances(
    part: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor] | None, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ_b grad_b ∂ E[f] / ∂ scores."""
    return shared.covariances(RECURSION, part, edge, lengths, function, grad)
