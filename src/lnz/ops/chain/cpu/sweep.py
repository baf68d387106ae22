"""Forward–backward in the exponential domain, a few sequences side by side.

Rows x_t and tables A_t are shifted to a maximum of 0 and exponentiated; α_t, and likewise what goes backward, is
normalised to sum 1 at every step (Rabiner 1989, section V.A), each direction by itself, so that neither drifts. A step
multiplies the states of a few sequences with one table in registers. Where the range allows for it, a state is not
divided by its sum at once, but the message that comes of it is (``delayed``), so that the product need not wait for the
sum. Everything is kept in the arrays of the results:

- ``nodes [B, T, L]`` holds exp(x_t − max x_t), in the end the marginals;
- ``forward_factor`` holds the message a_t(l) = Σ_k α_{t−1}(k) exp A(k, l) into t from the left, in the end α_t scaled;
- ``backward_factor`` holds exp(x_t) β_t, normalised,

and in the end P(y_t = k, y_{t+1} = l) = forward_factor_t(k) · backward_factor_{t+1}(l) · exp(A_t(k, l) − max A_t).

Underflow. Where no edge score is −inf, each label gets at least e^−reach of the sum of those before it, with reach the
range of the scores of one table: what falls below the smallest number of the dtype, however wide the range of node
scores, is e^reach times that number in any later sum, nothing if the reach is small enough. With −inf among edge
scores a label that is far behind now may be the only one possible later, so nothing may be lost: the smallest state
that is not exactly 0, times the smallest factors of a step, must lie inside the range; then zeros are impossible
labels.

:func:`check_range` says by the ``range_stats`` of a sequence whether its results are exact: ``in_range``.
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
EXP_NODES, FORWARD, BACKWARD, FINALIZE, CHECK_RANGE = 1, 2, 4, 8, 16
"""The stages of one run, which different threads may do."""

FINITE, EDGE_RANGE, MIN_ALPHA, MIN_LOCAL, MIN_BETA, MIN_JOINT, HAS_NEG_INF = range(7)
START = (1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0)
"""The ``range_stats`` of a sequence, and how they start: whether no score is NaN or +inf; the largest reach of an edge
table; if any edge score is −inf, the smallest α, x − max x (two threads may write it, if they share one sequence) and
exp(x) β; the smallest Σ α β; whether any edge score is −inf."""


@helper()
def tables(size, dtype):
    """Room for a table of ``size`` labels: rows and columns as the products read them."""
    # a line more than needed, or rows of a power of two share cache sets
    return workspace((size + SPLITS - 1) // SPLITS * SPLITS, (size + 15) // 16 * 16 + 16, dtype)


@helper(fastmath=FLAGS)
def exp_table(scores, table, size, transposed):
    """``table [L, ≥ L] = exp(scores − max)``, or its transpose, of ``scores``, a pointer to ``[L, L]``.

    Returns the max, the reach (max − the smallest that is not −inf), whether any is −inf, whether none is NaN or +inf.
    """
    high, low, has_neg_inf = span(scores, size * size)
    if high == -math.inf:
        high, low = table.dtype.type(0), table.dtype.type(0)
    finite = high < math.inf
    for i in range(size):
        finite = exp_shifted(address(scores, i * size), high, address(table, i), size) and finite
    if transposed:
        for i in range(size):
            for j in range(i):
                table[i, j], table[j, i] = table[j, i], table[i, j]
    return high, high - low, has_neg_inf, finite


@helper(fastmath=FLAGS)
def exp_nodes(node, b, n, part, has_neg_inf, out):
    """The steps of a part of sequence b: ``nodes = exp(node − tops)``, ``tops`` the largest score of a step."""
    nodes, tops, range_stats = out.nodes, out.tops, out.range_stats
    for t in range(part.begin, min(n, part.end)):
        scores = address(node, (b, t))
        top = largest(scores, node.shape[2])
        if top == -math.inf:
            top = node.dtype.type(0)
        tops[b, t] = top
        if not (exp_shifted(scores, top, address(nodes, (b, t)), node.shape[2]) and top < math.inf):
            range_stats[b, FINITE] = 0
        if has_neg_inf:
            range_stats[b, MIN_LOCAL] = min(range_stats[b, MIN_LOCAL], span(scores, node.shape[2])[1] - top)


@helper(fastmath=FLAGS)
def keep_smallest(values, size, range_stats, b, place):
    """The smallest of ``values``, a pointer, and of those before into ``range_stats[b, place]``."""
    range_stats[b, place] = smallest(values, range_stats[b, place], size)


@helper(fastmath=FLAGS)
def forward(chains, tile, out, work, top):
    """α of a tile; ln Z into ``log_z``. If all steps share the table, that of ``work`` is exp(A − ``top``) already."""
    edge, lengths, nodes, range_stats = chains.edge, chains.lengths, out.nodes, out.range_stats
    forward_factor = out.forward_factor
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
            top, reach, has_neg_inf, finite = exp_table(scores, table, size, False)
            for r in range(count):
                if t < lengths[first + r]:
                    note_table(range_stats, first + r, reach, has_neg_inf, finite)
        if t:
            multiply(columns, table, message, count, size)
        else:
            message[:, :size] = 1
        for r in range(count):
            b = first + r
            if t < lengths[b]:
                messages, states = address(message, r), address(state, r)
                total = forward_step(messages, factors[r], address(nodes, (b, t)), states, size)
                scaled_copy(messages, one, address(forward_factor, (b, t)), size)
                inverse = one / total if total > 0 else one - one
                if delayed:
                    factors[r] = inverse
                else:
                    scaled_copy(states, inverse, states, size)
                sums[r] *= total
                if not SMALL < sums[r] < LARGE:
                    totals[r] += math.log(sums[r]) if sums[r] > 0 else -math.inf
                    sums[r] = 1
                if alone or range_stats[b, HAS_NEG_INF]:
                    keep_smallest(states, size, range_stats, b, MIN_ALPHA)
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
def note_table(range_stats, b, reach, has_neg_inf, finite):
    """What :func:`exp_table` found, into the ``range_stats`` of sequence b."""
    range_stats[b, EDGE_RANGE] = max(range_stats[b, EDGE_RANGE], reach)
    range_stats[b, HAS_NEG_INF] = max(range_stats[b, HAS_NEG_INF], 1.0 if has_neg_inf else 0.0)
    range_stats[b, FINITE] = range_stats[b, FINITE] if finite else 0


@helper(fastmath=FLAGS)
def backward(chains, tile, out, work):
    """exp(x_t) β_t, normalised, into ``backward_factor``; its sum into ``scales``. The table is transposed."""
    edge, lengths, nodes, range_stats = chains.edge, chains.lengths, out.nodes, out.range_stats
    backward_factor = out.backward_factor
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
                exp_table(address(edge, (own, t if several else 0)), table, size, True)
            multiply(columns, table, message, count, size)
        for r in range(count):
            b = first + r
            if t < lengths[b]:
                if t == lengths[b] - 1:
                    message[r, :size] = 1
                messages, states = address(message, r), address(state, r)
                total = forward_step(messages, factors[r], address(nodes, (b, t)), states, size)
                inverse = one / total if total > 0 else one - one
                scaled_copy(states, inverse, address(backward_factor, (b, t)), size)
                if delayed:
                    factors[r] = inverse
                else:
                    scaled_copy(states, inverse, states, size)
                out.scales[b, t] = total
                if alone or range_stats[b, HAS_NEG_INF]:
                    keep_smallest(states, size, range_stats, b, MIN_BETA)


@helper(fastmath=FLAGS)
def finalize_marginals(b, n, part, out):
    """The steps of a part of sequence b: marginals, and the factors of those of edges; 0 over padding."""
    nodes, forward_factor, backward_factor = out.nodes, out.forward_factor, out.backward_factor
    range_stats = out.range_stats
    possible, size = out.log_z[b] > -math.inf, nodes.shape[2]
    for t in range(part.begin, part.end):
        if t < n and possible:
            forwards, backwards = address(forward_factor, (b, t)), address(backward_factor, (b, t))
            total = overlap(forwards, backwards, size)
            joint = total * out.scales[b, t]
            keep = 1 / joint if t < n - 1 and joint > 0 else joint * 0
            share = 1 / total if total > 0 else total * 0
            write_marginals(forwards, backwards, address(nodes, (b, t)), share, keep, size)
            if not joint >= range_stats[b, MIN_JOINT]:  # NaN too
                range_stats[b, MIN_JOINT] = joint
        else:
            nodes[b, t, :] = 0
            forward_factor[b, t, :] = 0
            backward_factor[b, t, :] = 0


@helper()
def check_range(range_stats, log_z, b, limits):
    """Whether the results for sequence b are exact: its states and joint sums lie inside the range of the dtype."""
    if range_stats[b, FINITE] != 1:
        return False
    if range_stats[b, HAS_NEG_INF]:
        smallest_state = min(range_stats[b, MIN_ALPHA], range_stats[b, MIN_BETA])
        small = math.log(smallest_state) + range_stats[b, MIN_LOCAL] - range_stats[b, EDGE_RANGE]
        limit = limits.width
    else:
        small, limit = -range_stats[b, EDGE_RANGE], limits.reach
    joint = range_stats[b, MIN_JOINT]
    return small > -limit and (log_z[b] == -math.inf or (joint > 0 and math.log(joint) > -limit))


@kernel(fastmath=FLAGS)
def run(stages, chains, part, out):
    """The ``stages`` of the sequences of a part; ``EXP_NODES`` and ``FINALIZE`` at its steps.

    Args:
        stages: a sum of ``EXP_NODES``, ``FORWARD``, ``BACKWARD``, ``FINALIZE``, ``CHECK_RANGE``.
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
    top, reach, has_neg_inf, finite = node.dtype.type(0), node.dtype.type(0), not shared, True
    if shared:
        if stages & (EXP_NODES | FORWARD):
            top, reach, has_neg_inf, finite = exp_table(address(edge, 0), table, size, False)
        if stages & BACKWARD:
            top, reach, has_neg_inf, finite = exp_table(address(edge, 0), transposed, size, True)
    delayed = not has_neg_inf and 2 * reach < limits.reach
    for at in range(part.first, part.last, rows):
        count = min(rows, part.last - at)
        longest = 0
        for b in range(at, at + count):
            longest = max(longest, lengths[b])
            if stages & EXP_NODES:
                if shared and lengths[b] > 1:
                    note_table(out.range_stats, b, reach, has_neg_inf, finite)
                exp_nodes(node, b, lengths[b], part, has_neg_inf, out)
        tile = Tile(at, count, longest, delayed)
        if stages & FORWARD:
            forward(chains, tile, out, Work(table, state, message), top)
        if stages & BACKWARD:
            backward(chains, tile, out, Work(transposed, state, message))
        for b in range(at, at + count):
            if stages & FINALIZE:
                finalize_marginals(b, lengths[b], part, out)
            if stages & CHECK_RANGE:
                out.in_range[b] = check_range(out.range_stats, out.log_z, b, limits)
