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

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address
from lnz.ops.jit.cpu.product import matmul, workspace
from lnz.ops.jit.cpu.rows import clear
from lnz.ops.semi_markov.cpu.backward import backward
from lnz.ops.semi_markov.cpu.forward import share_out
from lnz.ops.semi_markov.cpu.labels import exp_table
from lnz.ops.semi_markov.cpu.sample import walk
from lnz.ops.semi_markov.cpu.tiles import room, room_to_share, room_to_work, tables, tile_of, tile_size
from lnz.ops.semi_markov.cpu.widths import FLAGS

CHUNK = 512  # pairs of segments that are summed in the dtype of the scores


@kernel(fastmath=FLAGS)
def run(first, last, given, out):
    """ln Z of sequences first … last − 1, and their marginals or samples."""
    edge, lengths = given.edge, given.lengths
    _, steps, W, size = given.segment.shape
    rows, as_one, proper = tile_size(given, last - first), len(given.kind) > 0, True
    left, work, lifted = room(given, rows, out), room_to_work(given), tables(given, out.edges)
    forward, choices = room_to_share(given, rows), np.empty(max(W, size))
    for at in range(first, last, rows):
        tile = tile_of(lengths, at, min(rows, last - at))
        if as_one and (at == first or len(edge) > 1):
            proper = exp_table(address(edge, at if len(edge) > 1 else 0), lifted, address(left.ahead, 0), size)
        for r in range(tile.count):
            out.in_range[at + r] = proper or lengths[at + r] < 2
        backward(given, tile, lifted, left, work)
        for r in range(tile.count):
            start = address(forward.starts, r)
            out.log_z[at + r] = first_starts(lengths[at + r], size, address(left.ahead, r), left.peaks[r], start)
            for m in range(len(out.labels)):
                walk(given, at + r, r, left, out.uniform[m, at + r], out.labels[m, at + r], choices)
        if len(out.labels) == 0:
            share_out(given, tile, lifted, left, forward, work)
            for r in range(tile.count):
                b, n = at + r, lengths[at + r]
                clear(address(out.segments, (b, n)), (steps - n) * W * size)
                if as_one:
                    total_edges(n, left.leaves[r], left.ahead[r], lifted.table, forward.extra[r], out.edges[b])
                else:
                    places, used = edge.shape[1], max(0, n - 1)
                    clear(address(out.edges, b * places + used), (places - used) * size * size)


@helper(fastmath=FLAGS)
def first_starts(n, size, ahead, peak, starts):
    """ln Z, and the probabilities of the first label into ``starts``."""
    if n == 0:
        return 0.0
    mass = 0.0
    for l in range(size):
        mass += ahead[l]
    for l in range(size):
        starts[l] = ahead[l] / mass if mass > 0 else 0
    return peak + math.log(mass) if mass > 0 else -math.inf


@helper(fastmath=FLAGS)
def total_edges(n, leaves, ahead, table, extra, out):
    """Σ_t of the marginals of edges: ``table`` times a product of matrices, and ``extra``."""
    size = len(out)
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
