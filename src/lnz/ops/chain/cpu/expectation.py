"""Expectations of sums over the parts of a labelling, and their covariances with every part.

E[f] for f(y) = Σ_t u_t(y_t) + Σ_t v_t(y_t, y_{t+1}), or for f(y) = −ln P(y), whose expectation is the entropy. Numbers
(p, E) in place of probabilities p run through the recursions: the expectation semiring (Eisner 2002), the derivative of
E[f] by the scores by another such pass back (Li & Eisner 2009). Shapes as in :mod:`lnz.ops.chain.reference`.

All in logarithms and float64, so that no range is too large: C_t(k | l) = P(y_t = k | y_{t+1} = l) is normalised for
each l, whatever the scores. O(T L²) time and O(T L) memory per chain.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from lnz.ops.chain.cpu.arguments import Inputs
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


class Function(NamedTuple):
    """f: u ``[B, T, L]`` and v ``[B or 1, S', L, L]``; ``surprisal`` where it is −ln P(y), and they are not read."""

    surprisal: bool
    node: Any
    edge: Any


class Gradient(NamedTuple):
    """Of Σ weight_b · E[f] by the scores: ``node [B, T, L]``, added up in float64 ``edge [B or 1, S, L, L]``."""

    weight: Any
    node: Any
    edge: Any


@kernel(fastmath=FLAGS)
def _value(chains, function, first, last, value):
    """E[f] of chains first … last − 1 into ``value [B]``."""
    size = chains.node.shape[2]
    alpha, ahead = np.empty((2, size)), np.empty((2, size))
    scores, columns = np.empty((size, size)), room_for_columns(size)
    for b in range(first, last):
        value[b] = _forward(chains, function, b, alpha, ahead, scores, columns)


@kernel(fastmath=FLAGS)
def _slopes(chains, function, first, last, result):
    """The gradient of Σ weight_b · E[f] of chains first … last − 1."""
    _, steps, size = chains.node.shape
    alpha, ahead = np.empty((steps, size)), np.empty((steps, size))
    scores, columns = np.empty((size, size)), room_for_columns(size)
    for b in range(first, last):
        mean = _forward(chains, function, b, alpha, ahead, scores, columns)
        _backward(chains, function, b, alpha, ahead, scores, columns, mean, result)


@helper(fastmath=FLAGS)
def _forward(chains, function, b, alpha, ahead, scores, columns):
    """E[f] of chain b. ln α and E[f of what came before y_t | y_t] of step t into row t, or of the last two steps."""
    n, size, rows = chains.lengths[b], chains.node.shape[2], len(alpha)
    for t in range(n):
        row, moments = alpha[t % rows], ahead[t % rows]
        if t == 0:
            row[:] = 0.0
            moments[:] = 0.0
        else:
            _conditionals(chains, b, t - 1, alpha[(t - 1) % rows], scores, columns)
            _moments(function, b, t - 1, ahead[(t - 1) % rows], scores, columns)
            for c in range(size):
                row[c] = columns[TOP, c] + columns[LOGARITHM, c]
                moments[c] = columns[MOMENT, c]
        for c in range(size):
            row[c] += chains.node[b, t, c]
            if not function.surprisal:
                moments[c] += function.node[b, t, c]
        _normalise(row)
    return _mean(function, alpha[(n - 1) % rows], ahead[(n - 1) % rows]) if n else 0.0


@helper(fastmath=FLAGS)
def _conditionals(chains, b, t, alpha, scores, columns):
    """α_t(k) + A_t(k, l), whose columns are ln P(y_t = k | y_{t+1} = l) but for their constants."""
    edge, size = chains.edge, len(alpha)
    own, at = b if len(edge) > 1 else 0, t if edge.shape[1] > 1 else 0
    for k in range(size):
        for c in range(size):
            scores[k, c] = alpha[k] + edge[own, at, k, c]
    normalise_columns(scores, columns)


@helper(fastmath=FLAGS)
def _moments(function, b, t, ahead, scores, columns):
    """Σ_k P(y_t = k | y_{t+1} = l) (E[before | y_t = k] + v_t(k, l)) into the last row of ``columns``."""
    own, at = b if len(function.edge) > 1 else 0, t if function.edge.shape[1] > 1 else 0
    top, inverse, logarithm, moment = columns[TOP], columns[INVERSE], columns[LOGARITHM], columns[MOMENT]
    moment[:] = 0.0
    for k in range(len(scores)):
        for c in range(len(scores)):
            weight = exp(scores[k, c] - top[c]) * inverse[c]
            local = (top[c] - scores[k, c]) + logarithm[c] if function.surprisal else function.edge[own, at, k, c]
            moment[c] += weight * (ahead[k] + local) if weight > 0.0 else 0.0


@helper(fastmath=FLAGS)
def _normalise(row):
    """ln of shares that sum to 1; −inf stays."""
    top = top_of(row)
    if top == -math.inf:
        return
    total, ties = 0.0, 0.0
    for c in range(len(row)):
        if row[c] == top:
            ties += 1.0
        else:
            total += exp(row[c] - top)
    shift = math.log(ties) + math.log1p(total / ties)
    for c in range(len(row)):
        row[c] = (row[c] - top) - shift


@helper(fastmath=FLAGS)
def _mean(function, alpha, ahead):
    total = 0.0
    for c in range(len(alpha)):
        p = exp(alpha[c])
        if p > 0.0:
            total += p * (ahead[c] - alpha[c] if function.surprisal else ahead[c])
    return total


@helper(fastmath=FLAGS)
def _backward(chains, function, b, alpha, ahead, scores, columns, mean, result):
    """P(part) · (E[f | part] − E[f]) of every part of chain b.

    E[f | y_t = k] = ahead_t(k) + onward_t(k) and
    E[f | y_t = k, y_{t+1} = l] = ahead_t(k) + v_t(k, l) + u_{t+1}(l) + onward_{t+1}(l); −E[f] is in ``onward``.
    """
    n, size, weight = chains.lengths[b], len(scores), result.weight[b]
    to, of = b if len(result.edge) > 1 else 0, b if len(function.edge) > 1 else 0
    share, onward, both, follows = np.zeros((2, size)), np.zeros((2, size)), np.empty(size), np.empty(size)
    top, inverse, logarithm = columns[TOP], columns[INVERSE], columns[LOGARITHM]
    result.node[b, n:] = 0
    for t in range(n - 1, -1, -1):
        here, after = t % 2, (t + 1) % 2
        if t == n - 1:
            for k in range(size):
                share[here, k] = exp(alpha[t, k])
                onward[here, k] = -mean - (alpha[t, k] if function.surprisal and share[here, k] > 0.0 else 0.0)
        else:
            there, into = t if function.edge.shape[1] > 1 else 0, t if result.edge.shape[1] > 1 else 0
            _conditionals(chains, b, t, alpha[t], scores, columns)
            for k in range(size):
                for c in range(size):
                    both[c] = exp(scores[k, c] - top[c]) * inverse[c] * share[after, c]
                    if function.surprisal:
                        local = (top[c] - scores[k, c]) + logarithm[c]
                    else:
                        local = function.edge[of, there, k, c] + function.node[b, t + 1, c]
                    follows[c] = local + onward[after, c] if both[c] > 0.0 else 0.0
                p, q = weighted_sums(both, follows)
                for c in range(size):
                    result.edge[to, into, k, c] += weight * both[c] * (ahead[t, k] + follows[c])
                share[here, k] = p
                onward[here, k] = q / p if p > 0.0 else 0.0
        for k in range(size):
            p = share[here, k]
            result.node[b, t, k] = weight * p * (ahead[t, k] + onward[here, k]) if p > 0.0 else 0.0


RECURSION = Recursion(Inputs, Function, Gradient, _value, _slopes)


def expectation(part: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor] | None) -> Tensor:
    """E[f] ``[B]``, float64; see :mod:`lnz.ops.expectation`."""
    return shared.expectation(RECURSION, part, edge, lengths, function)


def covariances(
    part: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor] | None, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ_b grad_b ∂ E[f] / ∂ scores."""
    return shared.covariances(RECURSION, part, edge, lengths, function, grad)
