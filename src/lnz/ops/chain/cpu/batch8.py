"""What a step does to the rows of eight sequences side by side.

The rows of one step lie behind one another in scratch ``[T, 8, line]``, whose lines hold whole vectors of labels and
zeros beyond the labels, so that nothing there is masked. What follows from the sums and maxima of eight rows is done
for eight sequences in one vector. Where a row is padding, its scores count as 0.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lnz.ops.chain.cpu.rows import FLAGS, LARGE, SMALL, climb, plus
from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, fold_blocks, for_blocks, full_like, load, store
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, astype, broadcast, max_rows, select, sum_rows

EIGHT = 8


class Eight(NamedTuple):
    """Eight sequences; pointers to arrays that the kernel holds, and sizes.

    Attributes:
        x: node scores ``[B, T, L]``.
        ends: ``[2, L]``, on top of those of the first and of the last label.
        at: ``int64 [8]``, the sequence of each row.
        counts: ``int64 [8]``, its length; 0 for a row that is none.
        local: ``[T, 8, line]``, exp(x − max x).
        forward: ``[T, 8, line]``, the message into each step from the left.
        state: ``[8, line]``.
        message: ``[8, line]``.
        partial: ``[2, 8, 16]``, room for sums.
        size: L.
        line: from one row of scratch to the next.
        steps: T.
    """

    x: Any
    ends: Any
    at: Any
    counts: Any
    local: Any
    forward: Any
    state: Any
    message: Any
    partial: Any
    size: Any
    line: Any
    steps: Any


@helper()
def _row(e, r, t):
    """How far into ``[B, T, L]`` the row of sequence r at step t lies."""
    return (e.at[r] * e.steps + t) * e.size


@helper(fastmath=FLAGS)
def _scores(e, r, t):
    """A pointer to the scores of sequence r at step t; where an end adds to them, to the sum, in its message row."""
    scores, sums = address(e.x, _row(e, r, t)), address(e.message, r * e.line)
    if t == 0:
        scores = plus(scores, address(e.ends, 0), sums, e.size)
    if t == e.counts[r] - 1:
        scores = plus(scores, address(e.ends, e.size), sums, e.size)
    return scores


@helper()
def eight(x):
    """The numbers of eight rows."""
    return load(x, 0, width=EIGHT)


@helper()
def _inside(e, t):
    return broadcast(t, EIGHT) < eight(e.counts)


@helper(fastmath=FLAGS)
def _inverse(x):
    """1 / x; 0 where x is not positive."""
    return select(x > 0, 1 / x, 0)


@helper()
def _partial(e, which, r):
    return (which * EIGHT + r) * LANES


@helper()
def _vectors(e, which):
    at, x = which * EIGHT * LANES, e.partial
    return (
        load(x, at), load(x, at + LANES), load(x, at + 2 * LANES), load(x, at + 3 * LANES),
        load(x, at + 4 * LANES), load(x, at + 5 * LANES), load(x, at + 6 * LANES), load(x, at + 7 * LANES),
    )  # fmt: skip


@helper(fastmath=FLAGS)
def exp_nodes(e, t, ends, tops, shifts):
    """``tops = max x[at, t]``, ``local[t] = exp(x[at, t] − tops)``; ``shifts`` (float64) grow by ``tops``.

    Returns whether all of x is a number. ``ends``: whether t may be the first or the last step of a row; what is in
    ``message`` is lost then.
    """
    for r in range(EIGHT):
        if t < e.counts[r]:
            scores = _scores(e, r, t) if ends else address(e.x, _row(e, r, t))
            top = fold_blocks(climb, full_like(e.x, -math.inf), e.size, scores)
        else:
            top = full_like(e.x, 0)
        store(top, e.partial, _partial(e, 0, r))
    top = max_rows(_vectors(e, 0))
    top = select(top == -math.inf, 0, top)
    store(top, tops, 0)
    store(eight(shifts) + astype(top, np.float64), shifts, 0)
    finite = full_like(e.x, 0) == 0
    for r in range(EIGHT):
        row = address(e.local, (t * EIGHT + r) * e.line)
        if t < e.counts[r]:
            scores = _scores(e, r, t) if ends else address(e.x, _row(e, r, t))
            finite = fold_blocks(_exp_shifted, finite, e.size, scores, tops[r], row)
        else:
            for column in range(0, e.size, LANES):
                store(full_like(e.x, 1), row, column)
    return all_lanes(finite) and all_lanes(top < math.inf)


@helper(fastmath=FLAGS)
def _exp_shifted(finite, at, n, x, top, out):
    values = load(x, at, n, -math.inf)
    store(exp(values - top), out, at)
    return finite & (values <= top)


@helper(fastmath=FLAGS)
def forward_step(e, t, factors, masses):
    """``forward[t] = message · factors`` and ``state = forward[t] · local[t]``.

    ``factors`` become 1 / Σ state, 0 over padding; ``masses`` (float64) are multiplied by these sums. Returns whether
    they are far from the ends of their range.
    """
    local, forward = address(e.local, t * EIGHT * e.line), address(e.forward, t * EIGHT * e.line)
    for r in range(EIGHT):
        total, factor = full_like(local, 0), factors[r]
        for at in range(r * e.line, r * e.line + e.size, LANES):
            arrived = load(e.message, at) * factor
            product = arrived * load(local, at)
            store(arrived, forward, at)
            store(product, e.state, at)
            total += product
        store(total, e.partial, _partial(e, 0, r))
    total, inside = sum_rows(_vectors(e, 0)), _inside(e, t)
    store(select(inside, _inverse(total), 0), factors, 0)
    mass = eight(masses) * select(inside, astype(total, np.float64), 1.0)
    store(mass, masses, 0)
    return all_lanes((mass > SMALL) & (mass < LARGE))


@helper(fastmath=FLAGS)
def backward_step(e, t, factors, joints, shares):
    """``state = message · factors · local[t]``; ``factors`` become 1 / Σ state, ``shares`` 1 / Σ forward[t] · state.

    Over padding ``shares`` are 0. ``joints`` become the smallest of these sums so far.
    """
    local, forward = address(e.local, t * EIGHT * e.line), address(e.forward, t * EIGHT * e.line)
    for r in range(EIGHT):
        total, both, factor = full_like(local, 0), full_like(local, 0), factors[r]
        for at in range(r * e.line, r * e.line + e.size, LANES):
            own = load(e.message, at) * factor * load(local, at)
            store(own, e.state, at)
            total += own
            both += own * load(forward, at)
        store(total, e.partial, _partial(e, 0, r))
        store(both, e.partial, _partial(e, 1, r))
    store(_inverse(sum_rows(_vectors(e, 0))), factors, 0)
    joint, inside, lowest = sum_rows(_vectors(e, 1)), _inside(e, t), eight(joints)
    store(select(inside, _inverse(joint), 0), shares, 0)
    store(select(inside, select(joint >= lowest, lowest, joint), lowest), joints, 0)


class Gradients(NamedTuple):
    """Weights of one step, pointers ``[8]``, and where gradients by node scores go.

    Attributes:
        alphas: of the forward states, to bring them to the scale in which they were multiplied.
        nodes: of node marginals.
        edges: of the backward states.
        count: how many rows are sequences.
        out: ``[B, T, L]``; not written where ``with_nodes`` is false.
        with_nodes: whether gradients by node scores are wanted.
    """

    alphas: Any
    nodes: Any
    edges: Any
    count: Any
    out: Any
    with_nodes: Any


@helper(fastmath=FLAGS)
def emit_gradients(e, t, g):
    """Node gradients ``forward[t] · state · nodes``; then, in place, ``local[t]`` becomes ``forward[t] · local[t] ·
    alphas``, and ``forward[t]`` becomes ``state · edges``.
    """
    for r in range(EIGHT):
        at = r * e.line
        step = t * EIGHT * e.line + at
        rows = address(e.forward, step), address(e.state, at), address(e.local, step), g.alphas[r], g.edges[r]
        if g.with_nodes and r < g.count:
            for_blocks(_emit_all, e.size, rows, address(g.out, _row(e, r, t)), g.nodes[r])
        else:
            for_blocks(_emit_edges, e.size, rows)


@helper(fastmath=FLAGS)
def _emit_all(at, n, rows, out, weight):
    store(load(rows[0], at) * load(rows[1], at) * weight, out, at, n)
    _emit_edges(at, n, rows)


@helper(fastmath=FLAGS)
def _emit_edges(at, n, rows):
    forward, state, local, alpha, edge = rows
    store(load(forward, at) * load(local, at) * alpha, local, at)
    store(load(state, at) * edge, forward, at)
