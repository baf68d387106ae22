"""ln P(y) of full labellings and its gradients, gold − marginals, in one pass over chains that share one edge table.

The recursions of :mod:`lnz.ops.chain.cpu.sweep`, eight sequences side by side, on scratch that stays in the cache: only
the gradients leave it. α and what goes backward are kept up to a factor per step and sequence, so that no row is
touched twice: of a row forward[t] = α_{t−1} exp A and a state exp(x_t) β_t, whatever their scale,

- the marginals are forward[t] · state / Σ, and
- those of edges α_{t−1}(k) exp A(k, l) state(l) / Σ, with the same Σ = Σ_l forward[t] · state, if α_{t−1} has the
  scale that it was multiplied with: a product of the matrices of all α and of all states / Σ, in the dtype of the
  scores for some hundred rows, in float64 beyond.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.chain.cpu.batch8 import (
    EIGHT,
    Eight,
    Gradients,
    backward_step,
    eight,
    emit_gradients,
    exp_nodes,
    forward_step,
)
from lnz.ops.chain.cpu.numerator import PRODUCTS, ROWS, flush
from lnz.ops.chain.cpu.rows import FLAGS, LARGE, SMALL, fill, scaled_copy, smallest, span
from lnz.ops.chain.cpu.sweep import (
    EDGE_RANGE,
    FINITE,
    HAS_NEG_INF,
    MIN_ALPHA,
    MIN_BETA,
    MIN_JOINT,
    MIN_LOCAL,
    START,
    check_range,
    exp_table,
)
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, store
from lnz.ops.jit.cpu.product import add_matmul, matmul
from lnz.ops.jit.cpu.vectors import LANES, negative


class Batch(NamedTuple):
    """Chains that share one table, and a labelling of each.

    Attributes:
        node: ``[B, T, L]``.
        edge: ``[L, L]``.
        lengths: ``int64 [B]``.
        y: ``int64 [B, T]``; what is beyond the lengths is not looked at.
        ends: ``[2, L]``, on top of the scores of the first and of the last label.
        weights: ``[B]``, of the gradients of ln P(y).
    """

    node: Any
    edge: Any
    lengths: Any
    y: Any
    ends: Any
    weights: Any


class Results(NamedTuple):
    """What is written.

    Attributes:
        log_prob: ``[B]``; the difference is taken in float64.
        in_range: bool ``[B]``: where it is false, nothing of the sequence is in the gradients, and what is in
            ``log_prob`` means nothing.
        at_node: ``[B, T, L]``: weights · (indicators of y − marginals); or ``[0, 0, 0]``.
        total: float64 ``[shares, L, L]``, 0 at first: −Σ weights · Σ_t α_{t−1} ⊗ state_t.
        at_edge: float64 ``[shares, L, L]``, 0 at first: Σ weights · (indicators of y − marginals), of each share.
    """

    log_prob: Any
    in_range: Any
    at_node: Any
    total: Any
    at_edge: Any


class Table(NamedTuple):
    """What is known of the table of edge scores.

    Attributes:
        top: the largest edge score; 0 where all are −inf.
        reach: ``top`` less the smallest that is not −inf.
        has_neg_inf: whether there is −inf.
        finite: whether none is NaN or +inf.
        delayed: whether states are divided by their sums one step late, see :mod:`lnz.ops.chain.cpu.sweep`.
    """

    top: float
    reach: float
    has_neg_inf: bool
    finite: bool
    delayed: bool


class Scratch(NamedTuple):
    """Arrays of one group of eight sequences, which stay in the cache; a first axis is that of shares of the batch.

    Attributes:
        cuts: ``int64 [shares + 1]``, the first sequence of each share.
        places: ``int64 [shares, 2, 8]``, the sequence of each row, and its length.
        rows: ``[shares, 2, T, 8, line]``, see :class:`~lnz.ops.chain.cpu.batch8.Eight`.
        state: ``[shares, 2, 8, line]``: states and messages, 0 beyond the labels.
        steps: ``[shares, 2, T, 8]``, see :class:`Lanes`.
        tables: ``[shares, 2, ≥ L, ≥ L]``, exp(edge − top) and its transpose; 0 beyond the labels.
        sums: ``[shares, line, line]``; or ``[shares, 0, line]``.
        lanes: ``[shares, 39, 8]``: partial sums, and numbers of each row.
        wide: float64 ``[shares, 2 + 7, 8]``, see :class:`Lanes`.
    """

    cuts: Any
    places: Any
    rows: Any
    state: Any
    steps: Any
    tables: Any
    sums: Any
    lanes: Any
    wide: Any


class Lanes(NamedTuple):
    """Pointers to numbers of the eight rows.

    Attributes:
        factors: by which to multiply what arrives next.
        tops: the largest score of a step.
        shares: 1 over the sum of joint weights of a step.
        joints: the smallest of these sums.
        nodes: weights of node marginals.
        edges: weights of backward states.
        weights: of the gradients of ln P(y).
        into: ``[T, 8]``, the factor by which each message into a step was multiplied.
        gains: ``[T, 8]``, that of each state after it, where it is normalised at once.
        masses: float64, products of sums whose logarithm is not taken yet.
        log_z: float64.
        range_stats: float64 ``[8, 7]``, of :mod:`lnz.ops.chain.cpu.sweep`.
    """

    factors: Any
    tops: Any
    shares: Any
    joints: Any
    nodes: Any
    edges: Any
    weights: Any
    into: Any
    gains: Any
    masses: Any
    log_z: Any
    range_stats: Any


FIELDS = len(START)
FIRST = 2 * LANES  # row of ``lanes``: those before it hold the partial sums of two reductions


@helper()
def pointers(batch, s, share):
    """The rows of a share as :class:`~lnz.ops.chain.cpu.batch8.Eight`, and its numbers as :class:`Lanes`."""
    lanes, steps, wide, T = s.lanes[share], s.steps[share], s.wide[share], batch.node.shape[1]
    e = Eight(
        address(batch.node, 0), address(batch.ends, 0), address(s.places, (share, 0)), address(s.places, (share, 1)),
        address(s.rows, (share, 0)), address(s.rows, (share, 1)), address(s.state, (share, 0)),
        address(s.state, (share, 1)), address(lanes, 0), batch.node.shape[2], s.state.shape[3], T,
    )  # fmt: skip
    v = Lanes(
        address(lanes, FIRST), address(lanes, FIRST + 1), address(lanes, FIRST + 2), address(lanes, FIRST + 3),
        address(lanes, FIRST + 4), address(lanes, FIRST + 5), address(lanes, FIRST + 6), address(steps, 0),
        address(steps, 1), address(wide, 0), address(wide, 1), address(wide, 2),
    )  # fmt: skip
    return e, v


@helper(fastmath=FLAGS)
def exp_tables(edge, tables, limit):
    """Write ``tables [2, ≥ L, ≥ L]``: exp(edge − max) and its transpose. Returns what is known of ``edge [L, L]``.

    ``limit`` is :attr:`~lnz.ops.chain.cpu.arguments.Limits.reach`.
    """
    size, scores, transposed = len(edge), tables[0], tables[1]
    fill(address(tables, 0), 0, tables.size)
    top, reach, has_neg_inf, finite = exp_table(address(edge, 0), scores, size, False)
    for k in range(size):
        for l in range(size):
            transposed[l, k] = scores[k, l]
    return Table(top, reach, has_neg_inf, finite, not has_neg_inf and 3 * reach < limit)


@helper()
def begin_group(e, v, lengths, weights, at, last, table):
    """Sequences ``at`` … ``at + 7``, as far as there are such before ``last``; the longest and the shortest length."""
    longest, shortest = 0, lengths[at]
    for r in range(EIGHT):
        there = at + r < last
        count = lengths[at + r] if there else 0
        e.at[r] = at + r if there else last - 1
        e.counts[r] = count
        v.weights[r] = weights[at + r] if there else 0
        longest = count if count > longest else longest
        shortest = count if there and count < shortest else shortest
        for k in range(FIELDS):
            v.range_stats[FIELDS * r + k] = START[k]
        if count > 1:
            v.range_stats[FIELDS * r + EDGE_RANGE] = table.reach
            v.range_stats[FIELDS * r + HAS_NEG_INF] = 1.0 if table.has_neg_inf else 0.0
            v.range_stats[FIELDS * r + FINITE] = 1.0 if table.finite else 0.0
    return longest, shortest


@helper(fastmath=FLAGS)
def forward(e, v, longest, shortest, table, scores, columns, messages):
    """α of eight sequences, by exp ``scores [L, L]``, from ``columns`` into ``messages``; and ln Z."""
    finite = True
    for r in range(EIGHT):
        v.factors[r] = 1
        v.masses[r] = 1
        v.log_z[r] = 0
    for t in range(longest):
        finite = exp_nodes(e, t, t == 0 or t >= shortest - 1, v.tops, v.log_z) and finite
        if t:
            matmul(columns, scores, messages, EIGHT, e.size, e.size)
        else:
            fill(e.message, 1, EIGHT * e.line)
        store(eight(v.factors), v.into, t * EIGHT)
        if not forward_step(e, t, v.factors, v.masses):
            rescale(v)
        if not table.delayed:
            normalise(e, v, address(v.gains, t * EIGHT))
        if table.has_neg_inf:
            update_minima(e, v, t)
    if table.delayed:
        fill(v.gains, 1, longest * EIGHT)
    for r in range(EIGHT):
        v.log_z[r] += math.log(v.masses[r]) if v.masses[r] > 0 else -math.inf
        if e.counts[r] > 1:
            v.log_z[r] += (e.counts[r] - 1) * np.float64(table.top)
        if not finite:
            v.range_stats[FIELDS * r + FINITE] = 0


@helper()
def rescale(v):
    """Take logarithms of products of sums that have come near an end of their range."""
    for r in range(EIGHT):
        if not SMALL < v.masses[r] < LARGE:
            v.log_z[r] += math.log(v.masses[r]) if v.masses[r] > 0 else -math.inf
            v.masses[r] = 1


@helper(fastmath=FLAGS)
def normalise(e, v, gains):
    """Multiply the states by ``factors`` at once; ``gains`` keeps these."""
    for r in range(EIGHT):
        row = address(e.state, r * e.line)
        scaled_copy(row, v.factors[r], row, e.size)
        gains[r] = v.factors[r]
        v.factors[r] = 1


@helper(fastmath=FLAGS)
def update_minima(e, v, t):
    """Into ``range_stats``: the smallest state of each row, and how far its smallest score lies below the largest."""
    for r in range(EIGHT):
        if t < e.counts[r]:
            range_stats = address(v.range_stats, FIELDS * r)
            range_stats[MIN_ALPHA] = smallest(address(e.state, r * e.line), range_stats[MIN_ALPHA], e.size)
            low = span(address(e.x, (e.at[r] * e.steps + t) * e.size), e.size)[1] - v.tops[r]
            low += span(address(e.ends, 0), e.size)[1] if t == 0 else 0
            low += span(address(e.ends, e.size), e.size)[1] if t == e.counts[r] - 1 else 0
            range_stats[MIN_LOCAL] = low if low < range_stats[MIN_LOCAL] else range_stats[MIN_LOCAL]


@helper(fastmath=FLAGS)
def backward(e, v, count, longest, shortest, table, scores, columns, messages, out):
    """exp(x_t) β_t of eight sequences; the gradients by the node scores into ``out [B, T, L]`` where that is not empty,
    and the factors of those by the edge scores. ``scores`` is transposed.
    """
    with_nodes, nodes = out.size > 0, address(out, 0)
    for r in range(EIGHT):
        v.factors[r] = 1
        v.joints[r] = math.inf
    fill(e.state, 0, EIGHT * e.line)
    for t in range(longest - 1, -1, -1):
        matmul(columns, scores, messages, EIGHT, e.size, e.size)
        if t >= shortest - 1:
            for r in range(EIGHT):
                if t == e.counts[r] - 1:
                    fill(address(e.message, r * e.line), 1, e.size)
                    v.factors[r] = 1
        backward_step(e, t, v.factors, v.joints, v.shares)
        gains = address(v.gains, t * EIGHT)
        weights = negative(eight(v.weights) * eight(v.shares))
        store(weights, v.nodes, 0)
        store(weights * eight(address(v.into, t * EIGHT)), v.edges, 0)
        emit_gradients(e, t, Gradients(gains, v.nodes, v.edges, count, nodes, with_nodes))
        if not table.delayed:
            normalise(e, v, v.tops)  # which nobody asks for any more
        if table.has_neg_inf:
            for r in range(EIGHT):
                if t < e.counts[r]:
                    range_stats = address(v.range_stats, FIELDS * r)
                    range_stats[MIN_BETA] = smallest(address(e.state, r * e.line), range_stats[MIN_BETA], e.size)
    for r in range(EIGHT):
        joint, range_stats = np.float64(v.joints[r]), address(v.range_stats, FIELDS * r)
        range_stats[MIN_JOINT] = range_stats[MIN_JOINT] if joint >= range_stats[MIN_JOINT] else joint  # NaN too


@helper(fastmath=FLAGS)
def add_pairs(alphas, states, steps, size, sums, total):
    """``total [L, L]`` += Σ alphas[t] ⊗ states[t + 1] over the rows ``[T · 8, labels]`` of the first ``steps``."""
    last = (steps - 1) * EIGHT
    for products, row in enumerate(range(0, last, ROWS)):
        count = ROWS if row + ROWS < last else last - row
        add_matmul(alphas[row:], states[row + EIGHT :], sums, size, count, size)
        if products % PRODUCTS == PRODUCTS - 1:
            flush(sums, total, 1.0)
    flush(sums, total, 1.0)


@kernel(fastmath=FLAGS)
def run(first, last, batch, with_edges, limits, s, out):
    """Sequences first … last − 1, one of the shares.

    Args:
        first: of the sequences.
        last: the one after the last.
        batch: a :class:`Batch`, whose y are full labellings.
        with_edges: whether the gradient by the edge scores is asked for.
        limits: a :class:`~lnz.ops.chain.cpu.arguments.Limits`.
        s: :class:`Scratch`.
        out: :class:`Results`, written.
    """
    node, edge, lengths, y, ends, weights = batch
    log_prob, in_range, at_node = out.log_prob, out.in_range, out.at_node
    share = 0
    while s.cuts[share + 1] <= first:
        share += 1
    tables, sums, total, at_edge = s.tables[share], s.sums[share], out.total[share], out.at_edge[share]
    T, size = node.shape[1:]
    columns, messages, range_stats = s.state[share, 0].T, s.state[share, 1], s.wide[share, 2:].reshape(-1, FIELDS)
    e, v = pointers(batch, s, share)
    fill(e.state, 0, 2 * EIGHT * e.line)
    fill(address(sums, 0), 0, sums.size)
    table = exp_tables(edge, tables, limits.reach)
    for at in range(first, last, EIGHT):
        count = EIGHT if at + EIGHT < last else last - at
        longest, shortest = begin_group(e, v, address(lengths, 0), address(weights, 0), at, last, table)
        forward(e, v, longest, shortest, table, tables[0], columns, messages)
        if at_node.size or with_edges:
            backward(e, v, count, longest, shortest, table, tables[1], columns, messages, at_node)
        for r in range(count):
            b, n = at + r, lengths[at + r]
            in_range[b] = check_range(range_stats, s.wide[share, 1], r, limits)
            log_prob[b] = score(node[b], edge, ends, y[b], n) - (0.0 if v.log_z[r] == -math.inf else v.log_z[r])
            if at_node.size:
                fill(address(at_node, (b, longest)), 0, (T - longest) * size)
            if not in_range[b]:
                drop_sequence(e, v, r, longest, at_node, b)
            else:
                add_gold(y[b], n, weights[b], at_node, b, at_edge, with_edges)
        if with_edges and longest > 1:
            alphas, states = s.rows[share, 0].reshape(-1, e.line), s.rows[share, 1].reshape(-1, e.line)
            add_pairs(alphas, states, longest, size, sums, total)
    for k in range(len(total)):
        for l in range(len(total)):
            at_edge[k, l] += total[k, l] * tables[0, k, l]


@helper()
def score(node, edge, ends, y, n):
    """s(y) of one sequence in float64; −inf where it is impossible."""
    total = 0.0
    for t in range(n):
        total += node[t, y[t]]
        if t:
            total += edge[y[t - 1], y[t]]
    if n:
        total += np.float64(ends[0, y[0]]) + ends[1, y[n - 1]]
    return total


@helper()
def add_gold(y, n, weight, at_node, b, gold, with_edges):
    """Add ``weight`` times the indicators of y to the gradients."""
    for t in range(n):
        if at_node.size:
            at_node[b, t, y[t]] += weight
        if with_edges and t:
            gold[y[t - 1], y[t]] += weight


@helper()
def drop_sequence(e, v, r, longest, at_node, b):
    """Take the sequence of row r, which left the range, out of all gradients."""
    for t in range(longest):
        if at_node.size:
            fill(address(at_node, (b, t)), 0, e.size)
        fill(address(e.local, (t * EIGHT + r) * e.line), 0, e.line)
        fill(address(e.forward, (t * EIGHT + r) * e.line), 0, e.line)
