"""Beliefs of nodes and edges at given messages, and the Bethe ln Z."""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.grid_belief.cpu.edges import pair, transfer
from lnz.ops.grid_belief.cpu.lanes import FLAGS, copy, dot, fill, include, invert, logarithm, scaled_add, sum_out
from lnz.ops.grid_belief.cpu.sweep import COLUMNS, TILE, gather
from lnz.ops.jit.cpu import kernel
from lnz.ops.math.cpu import exp


@njit(fastmath=FLAGS)
def account(z, first, n, sign, bethe):
    """Add ``sign · ln Z`` of each lane to ``bethe[0]``; ``bethe[1]`` counts the lanes where nothing is possible."""
    for k in range(first, n):
        if z[k] > -np.inf:
            bethe[0] += sign * z[k]
        else:
            bethe[1] += 1


@njit(fastmath=FLAGS)
def node_beliefs(domain, u, M, b, h, w, n, out, lanes, bethe, beliefs):
    """Beliefs of n nodes into ``beliefs [H, W, L]``, and their (1 − degree) ln Z_i into ``bethe``."""
    labels, height, width = u.shape[0], beliefs.shape[0], beliefs.shape[1]
    x = out[0]
    for l in range(labels):
        copy(x[l, :n], u[l, w : w + n])
        for direction in range(4):
            include(domain, x[l, :n], M[direction, b, h, l, w : w + n])
    sum_out(domain, x, labels, n, lanes[0], lanes[1])
    copy(lanes[1, :n], lanes[0, :n])
    logarithm(domain, lanes[1, :n])
    for k in range(n):
        degree = (h > 0) + (h < height - 1) + (w + k > 0) + (w + k < width - 1)
        account(lanes[1], k, k + 1, 1.0 - degree, bethe)
    invert(domain, lanes[0, :n], u.dtype.type(1))
    for l in range(labels):
        include(domain, x[l, :n], lanes[0, :n])
        if len(domain) > 0:
            for k in range(n):
                x[l, k] = exp(x[l, k])
        for k in range(n):
            beliefs[h, w + k, l] = x[l, k]


@njit(fastmath=FLAGS)
def edge_beliefs(domain, edges, entry, row, column, ends, side, first, n, grad, out, lanes, bethe, sums):
    """ln Z_e into ``bethe``; where the tables of ``sums`` are not empty, ``grad`` times the beliefs into them.

    ``sums``: ``counts [L, L]`` summed over edges, ``weights [rows, columns]`` times the table, summed over labels, and
    ``beliefs [entries, rows, columns, L, L]`` themselves.
    """
    counts, weights, beliefs = sums
    _kind, square, weight, _, _ = edges
    labels = square.shape[2]
    a, later, x, z = ends[2 * side], ends[2 * side + 1], out[0], lanes[1]
    for l in range(labels):
        include(domain, x[l, first:n], later[l, first:n])
    sum_out(domain, x, labels, n, lanes[5], z)
    copy(z[:n], lanes[5, :n])
    logarithm(domain, z[first:n])
    account(z, first, n, 1.0, bethe)
    if counts.size == 0 and weights.size == 0 and beliefs.size == 0:
        return
    invert(domain, lanes[5, first:n], grad[0] * 0 + 1)
    t, ones = lanes[3, first:n], lanes[4]
    fill(ones, 1)
    if weights.size:
        copy(ones[first:n], weight[entry, row, column + first : column + n])
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
                    beliefs[entry, row, column + first + k, i, j] += grad[0] * t[k]


@njit(fastmath=FLAGS)
def collect_rows(domain, node, which, edges, rho, M, b, top, bottom, grad, bethe, beliefs, sums):
    """What nodes of rows top … bottom − 1 of image b, and the edges to their left and above, add to ln Z and beliefs.

    ``bethe [2]`` is added to: ln Z, and the number of nodes and edges where nothing is possible; ``beliefs [H, W, L]``
    are written; ``grad`` and ``sums`` are those of :func:`edge_beliefs`, per side.
    """
    labels, width = node.shape[2], node.shape[3]
    padded = (labels + 3) // 4 * 4
    ends = np.zeros((4, padded, COLUMNS), node.dtype)
    out = np.zeros((4, padded, COLUMNS), node.dtype)
    lanes = np.zeros((6, COLUMNS), node.dtype)
    below = np.zeros((labels, (width + TILE - 1) // TILE * TILE), node.dtype)  # sent down by the row above
    u = node[which[0, b]]
    for h in range(max(top - 1, 0), bottom):  # of the row above, only what it sends down
        for w in range(0, width, TILE):
            n = min(TILE, width - w)
            gather(domain, u[h], M, rho, which[3, b], b, h, w, n, ends, below, lanes[0])
            if h < top:
                continue
            node_beliefs(domain, u[h], M, b, h, w, n, out, lanes, bethe, beliefs)
            for side in range(2 if h > 0 else 1):
                first = 1 if side == 0 and w == 0 else 0
                row, column = (h - 1, w) if side else (h, w - 1)
                entry = which[1 + side, b]
                transfer(domain, edges[side], entry, row, column, ends, side, first, n, out, lanes)
                edge_beliefs(
                    domain, edges[side], entry, row, column, ends, side, first, n, grad[side], out, lanes, bethe,
                    sums[side],
                )  # fmt: skip


@kernel(fastmath=FLAGS)
def collect(domain, stored, node, which, edges, rho, M, first, last, cuts, grad, bethe, beliefs, sums):
    """ln Z and beliefs, added up band by band: tasks first … last − 1, of which each image has one per band of rows.

    The first arguments are those of :func:`~lnz.ops.grid_belief.cpu.sweep.sweep`; with ``MAX``, max-marginals take the
    place of beliefs.

    Args:
        domain: see there.
        stored: see there; here it must be ``domain``.
        node: see there.
        which: see there.
        edges: see there.
        rho: see there; here it must be empty.
        M: see there; not changed.
        first: the first task: image ``first // bands``, band ``first % bands``.
        last: the task after the last.
        cuts: ``int64 [bands + 1]``, the rows at which bands begin and end.
        grad: for the horizontal and the vertical edges ``[B, 1 + L·L]``: what beliefs are multiplied with, then the
            table that weights scale.
        bethe: float64 ``[B, bands, 2]``, added to: ln Z, and the number of nodes and edges where nothing is possible.
        beliefs: ``[B, H, W, L]``, written.
        sums: for the horizontal and the vertical edges ``(counts [B, bands, L, L], weights [B, rows, columns], beliefs
            [entries, rows, columns, L, L])``, added to where not empty.
    """
    (counts0, weights0, full0), (counts1, weights1, full1) = sums
    bands = len(cuts) - 1
    for task in range(first, last):
        b, band = task // bands, task % bands
        collect_rows(
            domain, node, which, edges, rho, M, b, cuts[band], cuts[band + 1], (grad[0][b], grad[1][b]), bethe[b, band],
            beliefs[b], ((counts0[b, band], weights0[b], full0), (counts1[b, band], weights1[b], full1)),
        )  # fmt: skip
