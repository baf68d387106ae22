"""Beliefs of nodes and edges at given messages, and the value there: Bethe's ln Z, or the reweighted upper bound."""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.grid_belief.cpu.edges import pair, transfer
from lnz.ops.grid_belief.cpu.lanes import (
    FLAGS,
    combine,
    copy,
    dot,
    fill,
    include,
    invert,
    logarithm,
    scaled_add,
    sum_out,
)
from lnz.ops.grid_belief.cpu.reweighted import excess, log_totals
from lnz.ops.grid_belief.cpu.sweep import COLUMNS, TILE, gather
from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.math import exp


@njit(fastmath=FLAGS)
def account(z, scale, first, n, value):
    """Add ``scale · z`` of each lane to ``value[0]``; ``value[1]`` counts the lanes where nothing is possible."""
    for k in range(first, n):
        if z[k] > -np.inf:
            value[0] += np.float64(scale[k]) * z[k]
        else:
            value[1] += 1


@njit(fastmath=FLAGS)
def node_products(domain, u, M, b, h, w, n, x):
    """Scores and all incoming messages of n nodes."""
    for l in range(u.shape[0]):
        copy(x[l, :n], u[l, w : w + n])
        for direction in range(4):
            include(domain, x[l, :n], M[direction, b, h, l, w : w + n])


@njit(fastmath=FLAGS)
def node_beliefs(domain, x, h, w, n, lanes, beliefs):
    """The products ``x`` of n nodes over their totals ``lanes[0]``, into ``beliefs [H, W, L]``."""
    labels, total, t = beliefs.shape[2], lanes[1, :n], lanes[3, :n]
    copy(total, lanes[0, :n])
    invert(domain, total, x.dtype.type(1))
    for l in range(labels):
        combine(domain, t, x[l, :n], total)
        if len(domain) > 0:
            for k in range(n):
                t[k] = exp(t[k])
        for k in range(n):
            beliefs[h, w + k, l] = t[k]


@njit(fastmath=FLAGS)
def edge_totals(domain, labels, later, first, n, out, lanes):
    """Σ over joint labels, into ``lanes[5]``: of what edges make of their earlier ends, times what ``later`` send."""
    for l in range(labels):
        include(domain, out[0, l, first:n], later[l, first:n])
    sum_out(domain, out[0], labels, n, lanes[5], lanes[1])


@njit(fastmath=FLAGS)
def edge_beliefs(domain, edges, entry, own, row, column, ends, side, first, n, grad, lanes, sums):
    """``grad`` times the beliefs into ``sums``, given their totals in ``lanes[5]``.

    ``sums``: ``counts [L, L]`` summed over edges, each times its ``given [entries, rows, columns]`` weight; ``weights
    [rows, columns]`` times the table, summed over labels; and ``beliefs [entries, rows, columns, L, L]`` themselves;
    ``own`` is the entry of these and of what is given.
    """
    counts, weights, beliefs, given = sums
    labels = edges[1].shape[2]
    a, later = ends[2 * side], ends[2 * side + 1]
    invert(domain, lanes[5, first:n], grad[0] * 0 + 1)
    t, ones = lanes[3, first:n], lanes[4]
    fill(ones, 1)
    if given.size:
        copy(ones[first:n], given[own, row, column + first : column + n])
    if weights.size:
        fill(weights[row, column + first : column + n], 0)
    for i in range(labels):
        for j in range(labels):
            pair(domain, edges, entry, row, column + first, i, j, t)
            include(domain, t, a[i, first:n])
            include(domain, t, later[j, first:n])
            include(domain, t, lanes[5, first:n])
            if len(domain) > 0:
                for k in range(t.size):
                    t[k] = exp(t[k])
            if counts.size:
                counts[i, j] += grad[0] * dot(t, ones[first:n])
            if weights.size and grad[1 + i * labels + j] > -np.inf:
                scaled_add(weights[row, column + first : column + n], t, grad[0] * grad[1 + i * labels + j])
            if beliefs.size:
                for k in range(t.size):
                    beliefs[own, row, column + first + k, i, j] += grad[0] * t[k]


@njit(fastmath=FLAGS)
def collect_rows(domain, node, which, edges, rho, M, b, top, bottom, grad, value, beliefs, sums):
    """What nodes of rows top … bottom − 1 of image b, and the edges to their left and above, add to ln Z and beliefs.

    ``value [2]`` is added to: ln Z, and the number of nodes and edges where nothing is possible; ``beliefs [H, W, L]``
    are written; ``grad`` and ``sums`` are those of :func:`edge_beliefs`, per side.
    """
    labels, width = node.shape[2], node.shape[3]
    height, padded, reweighted = node.shape[1], (labels + 3) // 4 * 4, rho[0].size > 0
    ends = np.zeros((4, padded, COLUMNS), node.dtype)
    out = np.zeros((4, padded, COLUMNS), node.dtype)
    x = np.zeros((padded, COLUMNS), node.dtype)
    lanes = np.zeros((6, COLUMNS), node.dtype)
    across = (width + TILE - 1) // TILE * TILE
    below = np.zeros((labels, across), node.dtype)  # sent down by the row above
    totals = np.zeros((2, across + 1), node.dtype)  # of nodes of a row and of the row above, a column late
    u = node[which[0, b]]
    for h in range(max(top - 1, 0), bottom):  # of the row above, only what it sends down
        here, above = totals[h & 1], totals[1 - (h & 1)]
        for w in range(0, width, TILE):
            n = min(TILE, width - w)
            gather(domain, u[h], M, rho, which[3, b], b, h, w, n, ends, below, x, lanes[2])
            if reweighted:
                sum_out(domain, x, labels, n, lanes[0], lanes[1])
                copy(here[w + 1 : w + 1 + n], lanes[0, :n])
            if h < top:
                continue
            if reweighted:
                log_totals(domain, lanes[1, :n], lanes[0, :n], lanes[2, :n])
                fill(lanes[4], 1)
            else:
                node_products(domain, u[h], M, b, h, w, n, x)
                sum_out(domain, x, labels, n, lanes[0], lanes[1])
                copy(lanes[1, :n], lanes[0, :n])
                logarithm(domain, lanes[1, :n])
                for k in range(n):  # 1 − degree
                    lanes[4, k] = 1 - (h > 0) - (h < height - 1) - (w + k > 0) - (w + k < width - 1)
            account(lanes[1], lanes[4], 0, n, value)
            node_beliefs(domain, x, h, w, n, lanes, beliefs)
            for side in range(2 if h > 0 else 1):
                first = 1 if side == 0 and w == 0 else 0
                row, column = (h - 1, w) if side else (h, w - 1)
                counts, weights, full, _ = sums[side]
                entry, wanted = which[1 + side, b], counts.size + weights.size + full.size > 0
                transfer(domain, edges[side], entry, row, column, ends, side, first, n, out, lanes)
                if reweighted:
                    earlier = above[w + 1 + first : w + 1 + n] if side else here[w + first : w + n]
                    senders = (earlier, here[w + 1 + first : w + 1 + n])
                    excess(domain, M, b, h, w, row, column, side, first, n, ends, out, senders, lanes)
                    times = rho[side][which[3, b], h, w : w + n]
                    account(lanes[5], times, first, n, value)
                if wanted or not reweighted:
                    edge_totals(domain, labels, ends[2 * side + 1], first, n, out, lanes)
                if not reweighted:
                    copy(lanes[1, first:n], lanes[5, first:n])
                    logarithm(domain, lanes[1, first:n])
                    fill(lanes[4], 1)
                    account(lanes[1], lanes[4], first, n, value)
                if wanted:
                    edge_beliefs(
                        domain, edges[side], entry, which[4 + side, b], row, column, ends, side, first, n, grad[side],
                        lanes, sums[side],
                    )  # fmt: skip


@kernel(fastmath=FLAGS)
def collect(domain, node, which, edges, rho, M, first, last, cuts, grad, value, beliefs, sums):
    """ln Z and beliefs, added up band by band: tasks first … last − 1, of which each image has one per band of rows.

    The first arguments are those of :func:`~lnz.ops.grid_belief.cpu.sweep.sweep`; with ``MAX``, max-marginals take the
    place of beliefs.

    Args:
        domain: see there.
        node: see there.
        which: see there.
        edges: see there.
        rho: see there; where it is not empty, ln Z is the upper bound.
        M: see there; not changed.
        first: the first task: image ``first // bands``, band ``first % bands``.
        last: the task after the last.
        cuts: ``int64 [bands + 1]``, the rows at which bands begin and end.
        grad: for the horizontal and the vertical edges ``[B, 1 + L·L]``: what beliefs are multiplied with, then the
            table that weights scale.
        value: float64 ``[B, bands, 2]``, added to: ln Z, and the number of nodes and edges where nothing is possible.
        beliefs: ``[B, H, W, L]``, written.
        sums: for the horizontal and the vertical edges ``(counts [B, bands, L, L], weights [B, rows, columns], beliefs
            [entries, rows, columns, L, L], given [entries, rows, columns])``, added to where not empty; the last are
            the weights that tables were given with.
    """
    (counts0, weights0, full0, given0), (counts1, weights1, full1, given1) = sums
    bands = len(cuts) - 1
    for task in range(first, last):
        b, band = task // bands, task % bands
        collect_rows(
            domain, node, which, edges, rho, M, b, cuts[band], cuts[band + 1], (grad[0][b], grad[1][b]), value[b, band],
            beliefs[b],
            ((counts0[b, band], weights0[b], full0, given0), (counts1[b, band], weights1[b], full1, given1)),
        )  # fmt: skip
