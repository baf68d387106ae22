"""ln P(y) of full labellings and its gradients, gold − marginals, in one pass over chains that share one edge table.

The recursions of :mod:`lnz.ops.chain.cpu.sweep`, eight sequences side by side, on scratch that stays in the cache: only
the gradients leave it. α and what goes backward are kept up to a factor per step and sequence, so that no row is
touched twice: of a row before[t] = α_{t−1} exp A and a state exp(x_t) β_t, whatever their scale,

- the marginals are before[t] · state / Σ, and
- those of edges α_{t−1}(k) exp A(k, l) state(l) / Σ, with the same Σ = Σ_l before[t] · state where α_{t−1} is as it was
  when it was multiplied: a product of the matrices of all α and of all states / Σ, in the dtype of the scores for some
  hundred rows, in float64 beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.batch8 import (
    EIGHT,
    Eight,
    Gradients,
    backward_step,
    emit_gradients,
    forward_step,
    lift,
)
from lnz.ops.chain.cpu.forward_backward import RANGE
from lnz.ops.chain.cpu.forward_backward import REACH as WITHIN
from lnz.ops.chain.cpu.numerator import FULL, IGNORE, LATENT, PRODUCTS, ROWS, WRONG, flush, merge
from lnz.ops.chain.cpu.rows import FLAGS, LARGE, SMALL, shrink, span
from lnz.ops.chain.cpu.sweep import (
    ALPHA,
    BANDED,
    BETA,
    JOINT,
    LOCAL,
    PROPER,
    REACH,
    START,
    judge,
    keep_smallest,
    lift_table,
    tables,
)
from lnz.ops.chain.records import Ended, Fused
from lnz.ops.jit import buffers
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.product import add_matmul, matmul, workspace
from lnz.ops.jit.cpu.vectors import LANES
from lnz.ops.jit.work import on_threads, shares_of, threads_for


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
        total: float64 ``[L, L]``: −Σ weights · Σ_t α_{t−1} ⊗ state_t.
        gold: float64 ``[L, L]``: Σ weights over pairs of labels.
    """

    log_prob: Any
    in_range: Any
    at_node: Any
    total: Any
    gold: Any


@helper()
def kind_of(y, lengths, labels):
    """``FULL``, ``LATENT`` or ``WRONG``, as :func:`lnz.ops.chain.cpu.numerator.inspect`."""
    latent, wrong = 0, 0
    for b in range(len(y)):
        for t in range(lengths[b]):
            label = y[b, t]
            latent |= label == IGNORE
            wrong |= (label != IGNORE) & ((label < 0) | (label >= labels))
    return WRONG if wrong else LATENT if latent else FULL


class Scratch(NamedTuple):
    """Arrays of one group of eight sequences, which stay in the cache.

    Attributes:
        at: ``int64 [8]``, the sequence of each row.
        counts: ``int64 [8]``, its length.
        local: ``[T, 8, line]``.
        forward: ``[T, 8, line]``.
        state: ``[8, line]``.
        message: ``[8, line]``.
        into: ``[T, 8]``, the factor by which each message into a step was multiplied.
        gains: ``[T, 8]``, that of each state after it, where it is normalised at once.
        partial: ``[2, 8, 16]``.
        report: float64 ``[8, 7]``, of :mod:`lnz.ops.chain.cpu.sweep`.
    """

    at: Any
    counts: Any
    local: Any
    forward: Any
    state: Any
    message: Any
    into: Any
    gains: Any
    partial: Any
    report: Any


@helper()
def rows_of(node, ends, s):
    """Pointers to the arrays."""
    return Eight(
        address(node, 0), address(ends, 0), address(s.at, 0), address(s.counts, 0), address(s.local, 0),
        address(s.forward, 0), address(s.state, 0), address(s.message, 0), address(s.partial, 0),
        node.shape[2], s.state.shape[1], node.shape[1],
    )  # fmt: skip


@helper(fastmath=FLAGS)
def forward(node, ends, s, longest, delayed, banded, table, shifts):
    """α of eight sequences; ln Z, but for the maximum of the edge scores, into ``shifts``."""
    size = node.shape[2]
    columns, rows = s.state.T, rows_of(node, ends, s)
    factors, tops, masses = np.ones(EIGHT, node.dtype), np.empty(EIGHT, node.dtype), np.ones(EIGHT)
    factors_at, tops_at = address(factors, 0), address(tops, 0)
    masses_at, shifts_at = address(masses, 0), address(shifts, 0)
    proper = True
    least = span(ends[0])[1], span(ends[1])[1]
    shifts[:] = 0
    for t in range(longest):
        proper = lift(rows, t, tops_at, shifts_at) and proper
        if t:
            matmul(columns, table, s.message, EIGHT, size, size)
        else:
            s.message[:] = 1
        for r in range(EIGHT):
            s.into[t, r] = factors[r]
        if not forward_step(rows, t, factors_at, masses_at):
            for r in range(EIGHT):
                if not SMALL < masses[r] < LARGE:
                    shifts[r] += math.log(masses[r]) if masses[r] > 0 else -math.inf
                    masses[r] = 1
        if not delayed:
            for r in range(EIGHT):
                shrink(s.state, r, size, factors[r])
                s.gains[t, r] = factors[r]
                factors[r] = 1
        if banded:
            for r in range(EIGHT):
                if t < s.counts[r]:
                    keep_smallest(s.state[r, :size], s.report, r, ALPHA)
                    low = span(node[s.at[r], t])[1] - tops[r]
                    low += (least[0] if t == 0 else 0) + (least[1] if t == s.counts[r] - 1 else 0)
                    s.report[r, LOCAL] = min(s.report[r, LOCAL], low)
    if delayed:
        s.gains[:] = 1
    for r in range(EIGHT):
        shifts[r] += math.log(masses[r]) if masses[r] > 0 else -math.inf
        if not proper:
            s.report[r, PROPER] = 0


@helper(fastmath=FLAGS)
def backward(node, ends, s, count, longest, delayed, banded, table, weights, at_node):
    """exp(x_t) β_t of eight sequences; the gradients by the node scores, the factors of those by the edge scores."""
    dtype, size = s.state.dtype, node.shape[2]
    columns, rows = s.state.T, rows_of(node, ends, s)
    factors, shares, joints = np.ones(EIGHT, dtype), np.empty(EIGHT, dtype), np.full(EIGHT, math.inf, dtype)
    nodes, edges = np.empty(EIGHT, dtype), np.empty(EIGHT, dtype)
    factors_at, shares_at, joints_at = address(factors, 0), address(shares, 0), address(joints, 0)
    nodes_at, edges_at, out, with_nodes = address(nodes, 0), address(edges, 0), address(at_node, 0), at_node.size > 0
    shortest = longest
    for r in range(count):
        shortest = min(shortest, s.counts[r])
    s.state[:] = 0
    for t in range(longest - 1, -1, -1):
        matmul(columns, table, s.message, EIGHT, size, size)
        if t >= shortest - 1:
            for r in range(EIGHT):
                if t == s.counts[r] - 1:
                    s.message[r] = 1
                    factors[r] = 1
        backward_step(rows, t, factors_at, joints_at, shares_at)
        for r in range(EIGHT):
            nodes[r] = -weights[r] * shares[r]
            edges[r] = nodes[r] * s.into[t, r]
        emit_gradients(rows, t, Gradients(address(s.gains, t), nodes_at, edges_at, count, out, with_nodes))
        if not delayed:
            for r in range(EIGHT):
                shrink(s.state, r, size, factors[r])
                factors[r] = 1
        if banded:
            for r in range(EIGHT):
                if t < s.counts[r]:
                    keep_smallest(s.state[r, :size], s.report, r, BETA)
    for r in range(EIGHT):
        s.report[r, JOINT] = min(s.report[r, JOINT], joints[r]) if joints[r] == joints[r] else math.nan


@helper(fastmath=FLAGS)
def pairs(alphas, states, steps, size, sums, total):
    """``total [L, L]`` += Σ alphas[t] ⊗ states[t + 1] over the rows ``[T · 8, labels]`` of the first ``steps``."""
    last = (steps - 1) * EIGHT
    for products, row in enumerate(range(0, last, ROWS)):
        add_matmul(alphas[row:], states[row + EIGHT :], sums, size, min(ROWS, last - row), size)
        if products % PRODUCTS == PRODUCTS - 1:
            flush(sums, total, 1.0)
    flush(sums, total, 1.0)


@kernel(fastmath=FLAGS)
def run(batch, first, last, with_edges, limits, scratch, out):
    """Sequences first … last − 1; ``FULL``, or what else y is, and then nothing is done.

    Args:
        batch: a :class:`Batch`.
        first: of the sequences.
        last: the one after the last.
        with_edges: whether the gradient by the edge scores is asked for.
        limits: of :func:`lnz.ops.chain.cpu.sweep.judge`.
        scratch: ``[2, 8 T, labels rounded up]``, aligned.
        out: :class:`Results`, written.
    """
    node, edge, lengths, y, ends, weights = batch
    log_prob, in_range, at_node, total, gold = out
    kind = kind_of(y, lengths, len(edge))
    if kind != FULL:
        return kind
    T, size = node.shape[1:]
    dtype = node.dtype
    table, transposed = tables(size, dtype), tables(size, dtype)
    line = scratch.shape[2]
    local, before = scratch[0].reshape(T, EIGHT, line), scratch[1].reshape(T, EIGHT, line)
    at, counts, report = np.empty(EIGHT, np.int64), np.empty(EIGHT, np.int64), np.empty((EIGHT, len(START)))
    s = Scratch(
        at, counts, local, before, workspace(EIGHT, line, dtype), workspace(EIGHT, line, dtype),
        np.empty((T, EIGHT), dtype), np.empty((T, EIGHT), dtype), np.empty((2, EIGHT, LANES), dtype), report,
    )  # fmt: skip
    sums = workspace(line if with_edges else 0, line, dtype)
    own, log_z = np.empty(EIGHT, dtype), np.empty(EIGHT)
    with_nodes = at_node.size > 0
    top, reach, banded, proper = lift_table(edge, table, False)
    if with_nodes or with_edges:
        lift_table(edge, transposed, True)
    delayed = not banded and 3 * reach < limits[0]
    if with_edges:
        total[:] = 0
        gold[:] = 0
    for begin in range(first, last, EIGHT):
        count = min(EIGHT, last - begin)
        longest = 0
        for r in range(EIGHT):
            there = r < count
            at[r] = begin + r if there else last - 1
            counts[r] = lengths[begin + r] if there else 0
            own[r] = weights[begin + r] if there else 0
            longest = max(longest, counts[r])
            for k in range(len(START)):
                report[r, k] = START[k]
            if counts[r] > 1:
                report[r, REACH] = reach
                report[r, BANDED] = 1.0 if banded else 0.0
                report[r, PROPER] = 1.0 if proper else 0.0
        forward(node, ends, s, longest, delayed, banded, table, log_z)
        for r in range(EIGHT):
            log_z[r] += max(0, counts[r] - 1) * np.float64(top)
        if with_nodes or with_edges:
            backward(node, ends, s, count, longest, delayed, banded, transposed, own, at_node)
        for r in range(count):
            b = begin + r
            in_range[b] = judge(report, log_z, r, limits[0], limits[1])
            log_prob[b] = score(batch, b, lengths[b]) - (0.0 if log_z[r] == -math.inf else log_z[r])
            if with_nodes:
                at_node[b, longest:] = 0
            if in_range[b]:
                add_gold(y, b, lengths[b], own[r], at_node, gold, with_nodes, with_edges)
            else:
                forget(b, r, longest, at_node, local, before, with_nodes)
        if with_edges and longest > 1:
            pairs(local.reshape(-1, line), before.reshape(-1, line), longest, size, sums, total)
    return FULL


@helper()
def score(batch, b, n):
    """s(y) of sequence b in float64; −inf where it is impossible."""
    node, edge, y, ends, total = batch.node, batch.edge, batch.y, batch.ends, 0.0
    for t in range(n):
        total += node[b, t, y[b, t]]
        if t:
            total += edge[y[b, t - 1], y[b, t]]
    if n:
        total += np.float64(ends[0, y[b, 0]]) + ends[1, y[b, n - 1]]
    return total


@helper()
def add_gold(y, b, n, weight, at_node, gold, with_nodes, with_edges):
    for t in range(n):
        if with_nodes:
            at_node[b, t, y[b, t]] += weight
        if with_edges and t:
            gold[y[b, t - 1], y[b, t]] += weight


@helper()
def forget(b, r, longest, at_node, local, before, with_nodes):
    """Take a sequence out of all gradients."""
    for t in range(longest):
        if with_nodes:
            at_node[b, t] = 0
        local[t, r] = 0
        before[t, r] = 0


def fused_log_prob(given: Ended, weight: Tensor, wanted: Sequence[bool]) -> Fused | None:
    """ln P(y) and its gradients times ``weight`` ``[B]``, of one table; ``None`` where y is no full labelling."""
    with_node, with_edge = wanted
    node, edge, lengths, y, ends, weights = (x.contiguous().numpy() for x in (*given, weight))
    B, T, L = node.shape
    dtype = given.node.dtype
    parts = shares_of(B, threads_for(node.size))
    columns = -(-L // 16) * 16
    line = columns if columns <= 64 else columns + 16  # or rows of a power of two share cache sets
    scratch = buffers.empty(len(parts), 2, EIGHT * T, line, dtype=dtype).numpy()
    log_prob, in_range = torch.empty(B, dtype=dtype), torch.empty(B, dtype=torch.bool)
    at_node = buffers.empty(B, T, L, dtype=dtype) if with_node else torch.empty(0, 0, 0, dtype=dtype)
    at_edge = torch.empty(1, 1, L, L, dtype=dtype) if with_edge else None
    totals, golds = np.empty((2, len(parts), L, L) if with_edge else (2, len(parts), 0, 0))
    batch, limits = Batch(node, edge[0, 0], lengths, y, ends, weights), (WITHIN[dtype], RANGE[dtype])
    outputs = log_prob.numpy(), in_range.numpy(), at_node.numpy()
    kinds = [FULL] * len(parts)

    def task(part: int, first: int, last: int) -> None:
        out = Results(*outputs, totals[part], golds[part])
        kinds[part] = run(batch, first, last, with_edge, limits, scratch[part], out)

    on_threads(task, parts)
    if kinds != [FULL] * len(parts):
        return None
    if at_edge is not None:
        merge(edge[0, 0], totals, golds, at_edge.numpy()[0, 0])
    return Fused(log_prob, at_node if with_node else None, at_edge, in_range)
