"""What a step does going forward: probability is shared out among the widths of a segment, and the labels after it.

In proportion to the summands of the pass back, so by products only; arrays as in :mod:`.widths` and :mod:`.labels`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.math import exp
from lnz.ops.jit.cpu.memory import load, store
from lnz.ops.jit.cpu.product import multiply
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, sum_lanes
from lnz.ops.semi_markov.cpu.widths import FLAGS, REPEAT, packing, stretch

OFTEN = 16  # steps after which the sum of all probability is looked at


@njit(fastmath=FLAGS)
def share_widths(lengths, first, count, steps, W, size, t, starts, scales, inverses, weights, ends, folds):
    """``weights`` become the marginals of segments that start at t, and ``ends`` grow by them where they end.

    Args:
        lengths: ``int64 [B]``.
        first: of the sequences side by side.
        count: of them.
        steps: T.
        W: the largest width.
        size: L.
        t: the step.
        starts: the probability that a segment of each label starts here, ``[count, L rounded up to 16]``, but for
        scales: float64 ``[count]``, what to multiply it by.
        inverses: 1 / Σ_w weights, ``[count, T, L rounded up to 16]``.
        weights: as :func:`sum_widths` leaves them, flat.
        ends: ``[count, ≥ (T + W) L + 16]``.
        folds: see there.
    """
    packed = packing(size)
    stride = packed * size
    for r in range(count):
        left = lengths[first + r] - t
        if left <= 0:
            continue
        widths = min(W, left)
        row = ((first + r) * steps + t) * W * size
        for column in range(0, size, LANES):
            blocks, lanes, last = stretch(widths, size, column)
            at, end = row + column, t * size + column
            wide = astype(load(starts, (r, column)), np.float64) * scales[r]
            wide = wide * astype(load(inverses, (r, t, column)), np.float64)
            if packed > 1:
                for k in range(packed):
                    store(wide, folds, (REPEAT, k * size))
                wide = load(folds, (REPEAT, 0))
            factor = astype(wide, weights.dtype)
            for i in range(blocks):
                n = lanes if i < blocks - 1 else last
                share = load(weights, (at + i * stride,), n, 0) * factor
                store(share, weights, (at + i * stride,), n)
                store(load(ends, (r, end + i * stride)) + share, ends, (r, end + i * stride))


@njit(fastmath=FLAGS)
def start(
    kind, edge, lengths, first, count, W, size, t, table, columns, state, message, begins, ahead, afters, ends, leaves,
    rare, starts, scales, edges, extra,
):  # fmt: skip
    """``starts``, the probabilities of segments that start at t, from the ``ends`` of those that end at t − 1.

    Args:
        kind: see :func:`lnz.ops.semi_markov.cpu.labels.after`.
        edge: see there, as for what is not named here.
        lengths: see there.
        first: see there.
        count: see there.
        W: the largest width.
        size: L.
        t: the step, above 0.
        table: exp(A − top), ``AS_ONE``.
        columns: ``state``, transposed.
        state: ``[count, L …]``, to work in.
        message: ``[count, L …]``, to work in.
        begins: see there.
        ahead: see there.
        afters: see there.
        ends: ``[count, ≥ (T + W) L + 16]``.
        leaves: see there; multiplied by ``ends``.
        rare: see there.
        starts: ``[count, L …]``, written but for
        scales: float64 ``[count]``, what to multiply it by, written.
        edges: ``[B · S, L, L]``; ``ROWWISE`` exp(A − top) becomes the marginals.
        extra: float64 ``[count, L, L]``; ``AS_ONE`` it grows by the marginals of rows done with logarithms.
    """
    for r in range(count):
        if t >= lengths[first + r]:
            continue
        for column in range(0, size, LANES):
            ending = load(ends, (r, (t - 1) * size + column), min(LANES, size - column), 0)
            share = ending * load(leaves, (r, t, column))
            store(share, leaves, (r, t, column))
            store(share, state, (r, column))
    if len(kind) > 0:
        multiply(columns, table, message, count, size)
    for r in range(count):
        if t >= lengths[first + r]:
            continue
        row = (first + r) * edge.shape[1] + t - 1 if len(kind) == 0 else 0
        old = new = broadcast(0.0)
        for column in range(0, size, LANES):
            n = min(LANES, size - column)
            old += astype(load(ends, (r, (t - 1) * size + column), n, 0), np.float64)
            here = load(ahead, (r, t, column))
            if len(kind) > 0:
                arrived = load(message, (r, column)) * here
            else:
                arrived = broadcast(ends.dtype.type(0))
                for k in range(size):
                    joint = load(edges, (row, k, column), n, 0) * leaves[r, t, k] * here
                    store(joint, edges, (row, k, column), n)
                    arrived += joint
            store(arrived, starts, (r, column))
        if rare[r, t]:
            own, place = first + r if len(edge) > 1 else 0, t - 1 if len(kind) == 0 else 0
            for k in range(size):
                ending, far = ends[r, (t - 1) * size + k], afters[r, t * size + k]
                if leaves[r, t, k] == 0 and ending > 0 and far > -math.inf:
                    for l in range(size):
                        joint = ending * exp(edge[own, place, k, l] + begins[r, t, l] - far)
                        starts[r, l] += joint
                        if len(kind) == 0:
                            edges[row, k, l] = joint
                        else:
                            extra[r, k, l] += joint
        for column in range(0, size, LANES):
            new += astype(load(starts, (r, column)), np.float64)
        # what starts is what has ended, but each step rounds; a factor of almost 1 would round to one side in float32
        mass = sum_lanes(new)
        if t % OFTEN == 0:
            mass *= under_way(ends, r, t - 1, W, size)
        scales[r] = sum_lanes(old) / mass if mass > 0 else 0.0


@njit(fastmath=FLAGS)
def under_way(ends, r, t, W, size):
    """The probability of all segments that end at t or later and have started by then: 1, but for rounding."""
    mass = broadcast(0.0)
    for at in range(t * size, (t + W) * size, LANES):
        mass += astype(load(ends, (r, at)), np.float64)  # zeros after the last
    return sum_lanes(mass)
