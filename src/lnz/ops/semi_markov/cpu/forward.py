"""The pass forward: probability is shared out among the widths of a segment, and the labels after it.

In proportion to the summands of the pass back, so by products only. Arguments that are rows are pointers.
"""

from __future__ import annotations

import math

import numpy as np

from lnz.ops.jit.cpu import helper
from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import address, full_like, load, store
from lnz.ops.jit.cpu.product import multiply
from lnz.ops.jit.cpu.rows import clear
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, sum_lanes
from lnz.ops.semi_markov.cpu.widths import FLAGS, repeat, stretch

OFTEN = 16  # steps after which the sum of all probability is looked at


@helper(fastmath=FLAGS)
def share_out(given, tile, tables, back, forward, work):
    """Marginals from the ``starts`` of step 0: of segments into ``back.weights``, ``ROWWISE`` of edges into the tables.

    ``AS_ONE``, ``back.leaves`` times ``back.ahead`` times the table are the marginals of edges, but for those that
    ``forward.extra`` has.
    """
    edge, lengths, kind = given.edge, given.lengths, given.kind
    ahead, leaves, starts, ends = back.ahead, back.leaves, forward.starts, forward.ends
    table, factors, state, message = tables.table, tables.factors, work.state, work.message
    W, size, columns, folds = given.segment.shape[2], edge.shape[3], state.T, address(work.folds, 0)
    first, count, longest = tile
    clear(address(ends, 0), ends.size)
    clear(address(forward.extra, 0), forward.extra.size)
    for t in range(longest):
        if t > 0:
            for r in range(count):
                if t < lengths[first + r]:
                    leave(address(ends, (r, (t - 1) * size)), address(leaves, (r, t)), address(state, r), size)
            if len(kind) > 0:
                multiply(columns, table, message, count, size)
        for r in range(count):
            b = first + r
            widths = min(W, lengths[b] - t)
            if widths <= 0:
                continue
            begun, ended, scale = address(starts, r), address(ends, (r, t * size)), 1.0
            if t > 0:
                ending, leaving, here = address(ended, -size), address(leaves, (r, t)), address(ahead, (r, t))
                joints = address(factors, b * edge.shape[1] + t - 1 if len(kind) == 0 else 0)
                if len(kind) > 0:
                    arrive(address(message, r), here, begun, size)
                else:
                    arrive_rowwise(joints, leaving, here, begun, size)
                if back.rare[r, t]:
                    scores = address(edge, (b if len(edge) > 1 else 0, t - 1 if len(kind) == 0 else 0))
                    logs = address(back.begins, (r, t)), address(back.afters, (r, t * size))
                    if len(kind) > 0:
                        arrive_in_logs(scores, ending, leaving, *logs, begun, address(forward.extra, r), size)
                    else:
                        arrive_in_logs(scores, ending, leaving, *logs, begun, joints, size)
                scale = scale_of(ending, begun, W * size if t % OFTEN == 0 else 0, size)
            inverse, weights = address(back.inverses, (r, t)), address(back.weights, (b, t))
            share(begun, scale, inverse, weights, ended, widths, size, folds)


@helper(fastmath=FLAGS)
def share(starts, scale, inverses, weights, ends, widths, size, folds):
    """``weights`` become the marginals of segments that start here, and ``ends`` grow by them where they end.

    Args:
        starts: the probability that a segment of each label starts here, ``[L']``, but for
        scale: what to multiply it by.
        inverses: 1 / Σ_w weights, ``[L']``.
        weights: as :func:`sum_widths` leaves them, ``[W, L]``.
        ends: ``[≥ W, L]``.
        widths: of the segments that do not reach beyond the end.
        size: L.
        folds: see :mod:`.widths`.
    """
    for column in range(0, size, LANES):
        run = stretch(widths, size, column)
        mine, ending = address(weights, column), address(ends, column)
        wide = astype(load(starts, column), np.float64) * scale
        wide = wide * astype(load(inverses, column), np.float64)
        if run.packed > 1:
            wide = repeat(wide, run, size, folds)
        factor = astype(wide, weights)
        for i in range(run.blocks):
            n = run.lanes if i < run.blocks - 1 else run.last
            probability = load(mine, i * run.step, n, 0) * factor
            store(probability, mine, i * run.step, n)
            store(load(ending, i * run.step) + probability, ending, i * run.step)


@helper(fastmath=FLAGS)
def leave(ends, leaves, state, size):
    """``leaves`` times ``ends``, there and into ``state``."""
    for column in range(0, size, LANES):
        leaving = load(ends, column, min(LANES, size - column), 0) * load(leaves, column)
        store(leaving, leaves, column)
        store(leaving, state, column)


@helper(fastmath=FLAGS)
def arrive(message, ahead, starts, size):
    """``starts`` from what a product with the one table says."""
    for column in range(0, size, LANES):
        store(load(message, column) * load(ahead, column), starts, column)


@helper(fastmath=FLAGS)
def arrive_rowwise(factors, leaves, ahead, starts, size):
    """``starts`` from a table of this position, which becomes the marginals of its edges."""
    for column in range(0, size, LANES):
        n, here, arrived = min(LANES, size - column), load(ahead, column), full_like(starts, 0)
        for k in range(size):
            joint = load(factors, k * size + column, n, 0) * leaves[k] * here
            store(joint, factors, k * size + column, n)
            arrived += joint
        store(arrived, starts, column)


@helper(fastmath=FLAGS)
def arrive_in_logs(scores, ends, leaves, begins, afters, starts, joints, size):
    """Add to ``starts``, and to the marginals of edges ``joints``, what comes from labels whose ``leaves`` are 0."""
    for k in range(size):
        if leaves[k] == 0 and ends[k] > 0 and afters[k] > -math.inf:
            for l in range(size):
                joint = ends[k] * exp(scores[k * size + l] + begins[l] - afters[k])
                starts[l] += joint
                joints[k * size + l] += joint


@helper(fastmath=FLAGS)
def scale_of(ends, starts, under_way, size):
    """What ``starts`` are to be multiplied by: what starts is what has ended, but each step rounds.

    A factor of almost 1 would round to one side in float32. ``under_way`` is how many numbers from ``ends`` on hold the
    probability of the segments that are under way, or 0: those that end at t − 1 or later and have started by then have
    probability 1 together, but for rounding.
    """
    old = new = wide = broadcast(0.0)
    for column in range(0, size, LANES):
        old += astype(load(ends, column, min(LANES, size - column), 0), np.float64)
        new += astype(load(starts, column), np.float64)
    mass = sum_lanes(new)
    if under_way > 0:
        for at in range(0, under_way, LANES):
            wide += astype(load(ends, at), np.float64)  # zeros after the last
        mass *= sum_lanes(wide)
    return sum_lanes(old) / mass if mass > 0 else 0.0
