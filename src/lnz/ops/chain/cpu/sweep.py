"""Forward–backward in the exponential domain, a few sequences side by side.

Rows x_t and tables A_t are shifted to a maximum of 0 and exponentiated; α_t, and likewise what goes backward, is
normalised to sum 1 at every step (Rabiner 1989, section V.A), each direction by itself, so that neither drifts. A step
multiplies the states of a few sequences with one table in registers; where the range allows for it, it does not wait
for the sum of the state before, by which what arrives is divided only then (``delayed``). Everything is kept in the
arrays of the results:

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
What cannot be vouched for is said in ``exact``, which :func:`judge` makes from the ``report`` float64 ``[B, 7]``:
whether all scores are numbers; the reach of the edge scores; if any of them is −inf, the smallest α, x − max x (two
threads may write it, if for one sequence) and exp(x) β; the smallest Σ α β; whether any edge score is −inf.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.chain.cpu.arguments import Tile, Work
from lnz.ops.chain.cpu.rows import (
    FLAGS,
    LARGE,
    SMALL,
    exp_shifted,
    forward_step,
    largest,
    overlap,
    scaled_copy,
    smallest,
    span,
    write_marginals,
)
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.product import SPLITS, multiply, workspace

TILE = 8  # sequences side by side; a multiple of the rows of a product
LIFT, FORWARD, BACKWARD, COLLECT, JUDGE = (
    1,
    2,
    4,
    8,
    16,
)  # the stages of one run, which may be done by different threads
START = (1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0)  # of a report
PROPER, REACH, ALPHA, LOCAL, BETA, JOINT, BANDED = range(len(START))


@helper()
def tables(size, dtype):
    """Room for a table of ``size`` labels: rows and columns as the products read them."""
    # a line more than needed, or rows of a power of two share cache sets
    return workspace((size + SPLITS - 1) // SPLITS * SPLITS, (size + 15) // 16 * 16 + 16, dtype)


@helper(fastmath=FLAGS)
def lift_table(scores, table, size, transposed):
    """``table [L, ≥ L] = exp(scores − max)``, or its transpose; max, reach, whether there is −inf and only numbers.

    ``scores`` is a pointer to ``[L, L]``.
    """
    high, low, banded = span(scores, size * size)
    if high == -math.inf:
        high, low = table.dtype.type(0), table.dtype.type(0)
    proper = high < math.inf
    for i in range(size):
        proper = exp_shifted(address(scores, i * size), high, address(table, i), size) and proper
    if transposed:
        for i in range(size):
            for j in range(i):
                table[i, j], table[j, i] = table[j, i], table[i, j]
    return high, high - low, banded, proper


@helper(fastmath=FLAGS)
def lift(node, b, n, part, banded, out):
    """The steps of a part of sequence b: ``nodes = exp(node − tops)``."""
    nodes, tops, report = out.nodes, out.tops, out.report
    for t in range(part.begin, min(n, part.end)):
        scores = address(node, (b, t))
        top = largest(scores, node.shape[2])
        if top == -math.inf:
            top = node.dtype.type(0)
        tops[b, t] = top
        if not (exp_shifted(scores, top, address(nodes, (b, t)), node.shape[2]) and top < math.inf):
            report[b, PROPER] = 0
        if banded:
            report[b, LOCAL] = min(report[b, LOCAL], span(scores, node.shape[2])[1] - top)


@helper(fastmath=FLAGS)
def keep_smallest(values, size, report, b, place):
    """The smallest of ``values``, a pointer, and of those before into ``report[b, place]``."""
    report[b, place] = smallest(values, report[b, place], size)


@helper(fastmath=FLAGS)
def forward(chains, tile, out, work, top):
    """α of a tile; ln Z into ``log_z``. The table of ``work`` is lifted, with ``top``, if shared."""
    edge, lengths, nodes, before, report = chains.edge, chains.lengths, out.nodes, out.before, out.report
    table, state, message = work
    first, count, longest, delayed = tile
    size, several, own = nodes.shape[2], edge.shape[1] > 1, first if edge.shape[0] > 1 else 0
    state[:] = 0
    columns = state.T  # once: each view of an array counts references
    one, factors = nodes.dtype.type(1), np.ones(TILE, nodes.dtype)
    sums, totals = np.ones(TILE), np.zeros(TILE)
    alone = len(edge) > 1 or several
    for t in range(longest):
        if alone and (t == 1 or (t > 1 and several)):
            scores = address(edge, (own, t - 1 if several else 0))
            top, reach, infinite, proper = lift_table(scores, table, size, False)
            for r in range(count):
                if t < lengths[first + r]:
                    note(report, first + r, reach, infinite, proper)
        if t:
            multiply(columns, table, message, count, size)
        else:
            message[:, :size] = 1
        for r in range(count):
            b = first + r
            if t < lengths[b]:
                messages, states = address(message, r), address(state, r)
                total = forward_step(messages, factors[r], address(nodes, (b, t)), states, size)
                scaled_copy(messages, one, address(before, (b, t)), size)
                inverse = one / total if total > 0 else one - one
                if delayed:
                    factors[r] = inverse
                else:
                    scaled_copy(states, inverse, states, size)
                sums[r] *= total
                if not SMALL < sums[r] < LARGE:
                    totals[r] += math.log(sums[r]) if sums[r] > 0 else -math.inf
                    sums[r] = 1
                if alone or report[b, BANDED]:
                    keep_smallest(states, size, report, b, ALPHA)
                if alone and t:
                    totals[r] += top
    for r in range(count):
        b = first + r
        if not alone:
            totals[r] += max(0, lengths[b] - 1) * np.float64(top)
        for t in range(lengths[b]):
            totals[r] += out.tops[b, t]
        out.log_z[b] = totals[r] + (math.log(sums[r]) if sums[r] > 0 else -math.inf)


@helper(fastmath=FLAGS)
def note(report, b, reach, infinite, proper):
    report[b, REACH] = max(report[b, REACH], reach)
    report[b, BANDED] = max(report[b, BANDED], 1.0 if infinite else 0.0)
    report[b, PROPER] = report[b, PROPER] if proper else 0


@helper(fastmath=FLAGS)
def backward(chains, tile, out, work):
    """exp(x_t) β_t, normalised, into ``after``; what it was divided by into ``scales``. The table is transposed."""
    edge, lengths, nodes, after, report = chains.edge, chains.lengths, out.nodes, out.after, out.report
    table, state, message = work
    first, count, longest, delayed = tile
    size, several, own = nodes.shape[2], edge.shape[1] > 1, first if edge.shape[0] > 1 else 0
    state[:] = 0
    columns = state.T
    one, factors = nodes.dtype.type(1), np.ones(TILE, nodes.dtype)
    alone = len(edge) > 1 or several
    for t in range(longest - 1, -1, -1):
        if t < longest - 1:
            if alone and (several or t == longest - 2):
                lift_table(address(edge, (own, t if several else 0)), table, size, True)
            multiply(columns, table, message, count, size)
        for r in range(count):
            b = first + r
            if t < lengths[b]:
                if t == lengths[b] - 1:
                    message[r, :size] = 1
                messages, states = address(message, r), address(state, r)
                total = forward_step(messages, factors[r], address(nodes, (b, t)), states, size)
                inverse = one / total if total > 0 else one - one
                scaled_copy(states, inverse, address(after, (b, t)), size)
                if delayed:
                    factors[r] = inverse
                else:
                    scaled_copy(states, inverse, states, size)
                out.scales[b, t] = total
                if alone or report[b, BANDED]:
                    keep_smallest(states, size, report, b, BETA)


@helper(fastmath=FLAGS)
def collect(b, n, part, out):
    """The steps of a part of sequence b: marginals, and the factors of those of edges; 0 over padding."""
    nodes, before, after, report = out.nodes, out.before, out.after, out.report
    possible, size = out.log_z[b] > -math.inf, nodes.shape[2]
    for t in range(part.begin, part.end):
        if t < n and possible:
            forwards, backwards = address(before, (b, t)), address(after, (b, t))
            total = overlap(forwards, backwards, size)
            joint = total * out.scales[b, t]
            keep = 1 / joint if t < n - 1 and joint > 0 else joint * 0
            share = 1 / total if total > 0 else total * 0
            write_marginals(forwards, backwards, address(nodes, (b, t)), share, keep, size)
            if not joint >= report[b, JOINT]:
                report[b, JOINT] = joint
        else:
            nodes[b, t, :] = 0
            before[b, t, :] = 0
            after[b, t, :] = 0


@helper()
def judge(report, log_z, b, reach, width):
    """Whether the results for sequence b are exact: its states and joint sums lie inside the range of the dtype.

    e^−``reach``, and what is left of it, are inside the range; e^−``width`` is at nine tenths of it.
    """
    if report[b, PROPER] != 1:
        return False
    if report[b, BANDED]:
        smallest_state = min(report[b, ALPHA], report[b, BETA])
        small = math.log(smallest_state) + report[b, LOCAL] - report[b, REACH]
        limit = width
    else:
        small, limit = -report[b, REACH], reach
    joint = report[b, JOINT]
    return small > -limit and (log_z[b] == -math.inf or (joint > 0 and math.log(joint) > -limit))


@kernel(fastmath=FLAGS)
def run(stages, chains, part, out):
    """The ``stages`` of the sequences of a part; ``LIFT`` and ``COLLECT`` at its steps.

    Args:
        stages: a sum of ``LIFT``, ``FORWARD``, ``BACKWARD``, ``COLLECT``, ``JUDGE``.
        chains: :class:`lnz.ops.chain.cpu.arguments.Inputs`.
        part: :class:`lnz.ops.chain.cpu.arguments.Span`.
        out: :class:`lnz.ops.chain.cpu.arguments.Sweep`, written.
    """
    node, edge, lengths, limits = chains.node, chains.edge, chains.lengths, out.limits
    size = node.shape[2]
    padded = (size + 15) // 16 * 16
    shared = len(edge) == 1 and edge.shape[1] == 1
    table, transposed = tables(size, node.dtype), tables(size, node.dtype)
    state, message = workspace(TILE, padded, node.dtype), workspace(TILE, padded, node.dtype)
    rows = TILE if len(edge) == 1 else 1
    top, reach, infinite, proper = node.dtype.type(0), node.dtype.type(0), not shared, True
    if shared:
        if stages & (LIFT | FORWARD):
            top, reach, infinite, proper = lift_table(address(edge, 0), table, size, False)
        if stages & BACKWARD:
            top, reach, infinite, proper = lift_table(address(edge, 0), transposed, size, True)
    delayed = not infinite and 2 * reach < limits[0]
    for at in range(part.first, part.last, rows):
        count = min(rows, part.last - at)
        longest = 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
            if stages & LIFT:
                if shared and lengths[b] > 1:
                    note(out.report, b, reach, infinite, proper)
                lift(node, b, lengths[b], part, infinite, out)
        tile = Tile(at, count, longest, delayed)
        if stages & FORWARD:
            forward(chains, tile, out, Work(table, state, message), top)
        if stages & BACKWARD:
            backward(chains, tile, out, Work(transposed, state, message))
        for b in range(at, at + count):
            if stages & COLLECT:
                collect(b, lengths[b], part, out)
            if stages & JUDGE:
                out.in_range[b] = judge(out.report, out.log_z, b, *limits)
