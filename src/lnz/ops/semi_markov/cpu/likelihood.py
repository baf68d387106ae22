"""ln Z and marginals: one pass back over the steps, and one forward that shares out what it left.

The summands of the pass back stay where the marginals will be. Going forward, the probability that a segment of label l
starts at t is shared out among the widths in proportion to these summands, and what ends at t among the labels that
follow: products only, and no second exponential. So there is one exponential per score and L² products per step. Where
rounding would be to one side, sums and quotients are float64, and what is shared out is held to 1 in all, so that
float32 does not drift. Shapes as in :mod:`lnz.ops.semi_markov.reference`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.product import matmul, workspace
from lnz.ops.semi_markov.cpu.back import TILE, back, room_for_tables, rows_of_labels
from lnz.ops.semi_markov.cpu.labels import lift_table
from lnz.ops.semi_markov.cpu.shares import share_widths, start
from lnz.ops.semi_markov.cpu.widths import FLAGS, room_to_fold

CHUNK = 512  # pairs of segments that are summed in the dtype of the scores


@kernel(fastmath=FLAGS)
def run(kind, segment, edge, lengths, steps, W, first, last, limit, log_z, weights, edges, exact):
    """ln Z and marginals of sequences first … last − 1.

    Args:
        kind: ``AS_ONE`` table for all positions, or ``ROWWISE``.
        segment: s, flat.
        edge: A, ``[B or 1, S, L, L]``.
        lengths: ``int64 [B]``.
        steps: T.
        W: the largest width.
        first: of the sequences.
        last: the one after the last.
        limit: from where on sums of the dtype can be relied on.
        log_z: float64 ``[B]``, written.
        weights: the marginals of segments, flat, written.
        edges: those of edges, ``[B · S, L, L]``, written.
        exact: bool ``[B]``, written: whether all scores are numbers; if not, the results mean nothing.
    """
    size, places, dtype = edge.shape[3], edge.shape[1], segment.dtype
    rows = min(TILE, last - first) if len(edge) == 1 or len(kind) == 0 else 1
    begins, ahead = rows_of_labels(rows, steps, size, np.float64), rows_of_labels(rows, steps, size, dtype)
    inverses, leaves = rows_of_labels(rows, steps, size, dtype), rows_of_labels(rows, steps, size, dtype)
    afters, ends = workspace(rows, (steps + 2) * size + 32, np.float64), workspace(rows, (steps + W) * size + 32, dtype)
    table, transposed = room_for_tables(size, dtype)
    padded = begins.shape[2]
    state, message = workspace(TILE, padded, dtype), workspace(TILE, padded, dtype)
    starts, tops, folds = workspace(TILE, padded, dtype), workspace(TILE, padded, np.float64), room_to_fold()
    rare, peaks, scales = np.zeros((rows, steps), np.bool_), np.zeros(rows), np.ones(rows)
    extra = np.zeros((rows, size, size) if len(kind) > 0 else (rows, 0, 0))
    columns, proper = state.T, True
    for at in range(first, last, rows):
        count = min(rows, last - at)
        if len(kind) > 0 and (at == first or len(edge) > 1):  # the sums with `ahead` are of no use here
            proper = lift_table(edge, at if len(edge) > 1 else 0, table, transposed, tops, ahead)
        for r in range(count):
            exact[at + r] = proper or lengths[at + r] < 2
        longest = back(
            kind, segment, edge, lengths, W, at, count, limit, tops, transposed, state, message, begins, ahead,
            inverses, leaves, afters, rare, peaks, weights, edges, exact,
        )  # fmt: skip
        for r in range(count):
            log_z[at + r] = first_starts(lengths[at + r], size, r, ahead, peaks, starts)
        ends[:] = 0
        scales[:] = 1
        extra[:] = 0
        for t in range(longest):
            if t > 0:
                start(
                    kind, edge, lengths, at, count, W, size, t, table[0], columns, state, message, begins, ahead,
                    afters, ends, leaves, rare, starts, scales, edges, extra,
                )  # fmt: skip
            share_widths(lengths, at, count, steps, W, size, t, starts, scales, inverses, weights, ends, folds)
        for r in range(count):
            b, n = at + r, lengths[at + r]
            weights[(b * steps + n) * W * size : (b + 1) * steps * W * size] = 0
            if len(kind) == 0:
                edges[b * places + max(0, n - 1) : (b + 1) * places] = 0
            else:
                total_edges(n, size, leaves[r], ahead[r], table[0], extra[r], edges[b])


@njit(fastmath=FLAGS)
def first_starts(n, size, r, ahead, peaks, starts):
    """ln Z, and the probabilities of the first label into ``starts``."""
    if n == 0:
        return 0.0
    mass = 0.0
    for l in range(size):
        mass += ahead[r, 0, l]
    for l in range(size):
        starts[r, l] = ahead[r, 0, l] / mass if mass > 0 else 0
    return peaks[r] + math.log(mass) if mass > 0 else -math.inf


@njit(fastmath=FLAGS)
def total_edges(n, size, leaves, ahead, table, extra, out):
    """Σ_t of the marginals of edges: ``table`` times a product of matrices, and ``extra``."""
    product, sums = workspace(len(table), table.shape[1], table.dtype), np.zeros((size, size))
    for at in range(1, n, CHUNK):
        until = min(n, at + CHUNK)
        matmul(leaves[at:until], ahead[at:until], product, size, until - at, size)  # type: ignore[call-arg]
        for k in range(size):
            for l in range(size):
                sums[k, l] += product[k, l]
    for k in range(size):
        for l in range(size):
            out[k, l] = sums[k, l] * table[k, l] + extra[k, l]
