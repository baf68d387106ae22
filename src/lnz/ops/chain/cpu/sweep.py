"""Forward–backward in the exponential domain, a few sequences side by side.

Rows x_t and tables A_t are shifted to a maximum of 0 and exponentiated; α_t, and likewise what goes backward, is
normalised to sum 1 at every step (Rabiner 1989, section V.A), each direction by itself, so that neither drifts. A step
multiplies the states of four sequences with one table in registers. Everything is kept in the arrays of the results:

- ``nodes [B, T, L]`` holds exp(x_t − max x_t), in the end the marginals;
- ``before`` holds the message into t from the left, a_t(l) = Σ_k α_{t−1}(k) exp A(k, l), in the end α_t scaled;
- ``after`` holds exp(x_t) β_t, normalised,

and in the end P(y_t = k, y_{t+1} = l) = before_t(k) · after_{t+1}(l) · exp(A_t(k, l) − max A_t).

Underflow. Where no edge score is −inf, each label gets at least e^−reach of the sum of those before it, with reach the
range of the scores of one table: what falls below the smallest number of the dtype, however wide the range of node
scores, is e^reach times that number in any later sum, nothing if the reach is small enough. With −inf among edge
scores a label that is far behind now may be the only one possible later, so nothing may be lost: the smallest state
that is not exactly 0, times the smallest factors of a step, must lie inside the range; then zeros are impossible
labels.
What cannot be vouched for is said in ``exact``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.chain.cpu.rows import FLAGS, arrive, exponentiate, largest, overlap, scale, settle, smallest, span
from lnz.ops.jit.cpu import kernel
from lnz.ops.registers.cpu.product import matmul

TILE = 8  # sequences side by side; a multiple of the rows of a product
LIFT, FORWARD, BACKWARD, COLLECT = 1, 2, 4, 8  # the stages of one run, which may be done by different threads


@njit(fastmath=FLAGS)
def lift_table(scores, table, transposed):
    """``table [L, ≥ L] = exp(scores − max)``, or its transpose; max, reach, whether there is −inf and only numbers."""
    high, low, banded, proper = scores.dtype.type(-math.inf), scores.dtype.type(math.inf), False, True
    size = len(scores)
    for i in range(size):
        h, l, infinite = span(scores[i])
        high, low, banded = max(high, h), min(low, l), banded or infinite
    if high == -math.inf:
        high, low = scores.dtype.type(0), scores.dtype.type(0)
    if not transposed:
        for i in range(size):
            proper = exponentiate(table[i, :size], scores[i], high) and proper
    else:
        line = np.empty(size, scores.dtype)
        for i in range(size):
            proper = exponentiate(line, scores[i], high) and proper
            for j in range(size):
                table[j, i] = line[j]
    return high, high - low, banded, proper and high < math.inf


@njit(fastmath=FLAGS)
def lift(node, b, n, first, last, banded, nodes, tops, report):
    """Steps first … last − 1 of sequence b: ``nodes = exp(node − tops)``."""
    for t in range(first, min(n, last)):
        top = largest(node, b, t)  # type: ignore[call-arg]
        if top == -math.inf:
            top = node.dtype.type(0)
        tops[b, t] = top
        proper = exponentiate(nodes[b, t], node[b, t], top) and top < math.inf
        report[b, 0] = report[b, 0] if proper else 0
        if banded:
            report[b, 3] = min(report[b, 3], span(node[b, t])[1] - top)


@njit(fastmath=FLAGS)
def keep_smallest(values, report, b, place):
    report[b, place] = smallest(values, values.dtype.type(report[b, place]))


@njit(fastmath=FLAGS)
def forward(edge, lengths, first, count, longest, nodes, before, tops, banded, log_z, report, table, state, message):
    """α of sequences first … first + count − 1; ln Z into ``log_z``."""
    size, several, own = nodes.shape[2], edge.shape[1] > 1, first if edge.shape[0] > 1 else 0
    state[:] = 0
    sums, totals = np.ones(TILE), np.zeros(TILE)
    highest = 0.0
    for t in range(longest):
        if t == 1 or (t > 1 and several):
            high, reach, _, proper = lift_table(edge[own, t - 1 if several else 0], table, False)
            highest = high
            for r in range(count):
                if t < lengths[first + r]:
                    report[first + r, 1] = max(report[first + r, 1], reach)
                    report[first + r, 0] = report[first + r, 0] if proper else 0
        if t:
            matmul(state.T, table, message, count, size, size)
        else:
            message[:, :size] = 1
        for r in range(count):
            b = first + r
            if t < lengths[b]:
                total = arrive(message, nodes, state, r, b, t)  # type: ignore[call-arg]
                scale(state, r, 1 / total if total > 0 else total * 0, message, before, b, t)
                totals[r] += tops[b, t] + (highest if t else 0.0)
                sums[r] *= total
                if not 1e-200 < sums[r] < 1e200:
                    totals[r] += math.log(sums[r]) if sums[r] > 0 else -math.inf
                    sums[r] = 1
                if banded:
                    keep_smallest(state[r, :size], report, b, 2)
    for r in range(count):
        log_z[first + r] = totals[r] + (math.log(sums[r]) if sums[r] > 0 else -math.inf)


@njit(fastmath=FLAGS)
def backward(edge, lengths, first, count, longest, nodes, after, scales, banded, report, table, state, message):
    """exp(x_t) β_t, normalised, into ``after``; what it was divided by into ``scales``."""
    size, several, own = nodes.shape[2], edge.shape[1] > 1, first if edge.shape[0] > 1 else 0
    state[:] = 0
    for t in range(longest - 1, -1, -1):
        if t < longest - 1:
            if several or t == longest - 2:
                lift_table(edge[own, t if several else 0], table, True)
            matmul(state.T, table, message, count, size, size)
        for r in range(count):
            b = first + r
            if t < lengths[b]:
                if t == lengths[b] - 1:
                    message[r, :size] = 1
                total = arrive(message, nodes, state, r, b, t)  # type: ignore[call-arg]
                scale(state, r, 1 / total if total > 0 else total * 0, state, after, b, t)
                scales[b, t] = total
                if banded:
                    keep_smallest(state[r, :size], report, b, 4)


@njit(fastmath=FLAGS)
def collect(b, n, first, last, nodes, before, after, scales, log_z, report):
    """Steps first … last − 1 of sequence b: marginals, and the factors of those of edges; 0 over padding."""
    possible = log_z[b] > -math.inf
    for t in range(first, last):
        if t < n and possible:
            total = overlap(before, after, b, t)  # type: ignore[call-arg]
            joint = total * scales[b, t]
            keep = 1 / joint if t < n - 1 and joint > 0 else joint * 0
            settle(before, after, nodes, b, t, 1 / total if total > 0 else total * 0, keep)
            if not joint >= report[b, 5]:
                report[b, 5] = joint
        else:
            nodes[b, t, :] = 0
            before[b, t, :] = 0
            after[b, t, :] = 0


@kernel(fastmath=FLAGS)
def run(
    stages, node, edge, lengths, first, last, begin, end, banded, log_z, nodes, before, after, tops, scales, report
):
    """The ``stages`` of sequences first … last − 1; ``LIFT`` and ``COLLECT`` at steps begin … end − 1.

    Args:
        stages: a sum of ``LIFT``, ``FORWARD``, ``BACKWARD``, ``COLLECT``.
        node: ``[B, T, L]``.
        edge: ``[B or 1, T − 1 or 1, L, L]``.
        lengths: ``int64 [B]``.
        first: of the sequences.
        last: the one after the last.
        begin: the first step.
        end: the step after the last.
        banded: whether any edge score is −inf.
        log_z: float64 ``[B]``, written.
        nodes: ``[B, T, L]``, written, as are the following.
        before: likewise.
        after: likewise.
        tops: ``[B, T]``.
        scales: ``[B, T]``.
        report: float64 ``[B, 6]``, starting as (1, 0, 1, 0, 1, 1): whether all scores are numbers; the reach of the
            edge scores; if ``banded``, the smallest α, x − max x (two threads may write it, if for one sequence) and
            exp(x) β; the smallest Σ α β.
    """
    size = node.shape[2]
    padded = (size + 15) // 16 * 16
    table = np.zeros((size, padded + 16), node.dtype)  # a line more, or rows of a power of two share cache sets
    state, message = np.zeros((TILE, padded), node.dtype), np.zeros((TILE, padded), node.dtype)
    rows = TILE if len(edge) == 1 else 1
    for at in range(first, last, rows):
        count = min(rows, last - at)
        longest = 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
            if stages & LIFT:
                lift(node, b, lengths[b], begin, end, banded, nodes, tops, report)
        if stages & FORWARD:
            forward(
                edge, lengths, at, count, longest, nodes, before, tops, banded, log_z, report, table, state, message
            )
        if stages & BACKWARD:
            backward(edge, lengths, at, count, longest, nodes, after, scales, banded, report, table, state, message)
        if stages & COLLECT:
            for b in range(at, at + count):
                collect(b, lengths[b], begin, end, nodes, before, after, scales, log_z, report)
