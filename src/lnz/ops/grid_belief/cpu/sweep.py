"""Flooding belief propagation on a grid, row by row.

Messages are stored where they arrive, label-major, ``M[direction, b, row, label, column]``, so that every inner loop
runs along a row of pixels. A sweep updates them in place: tile by tile, the four products "all incoming but one" are
formed, and an edge is served as soon as both of its ends are; what a finished row sends down waits one row. Bands of
rows can be swept side by side; the edges between bands are served last. The result does not depend on the bands.
"""

from __future__ import annotations

import numpy as np

from lnz.ops.grid_belief.cpu.blocks import Received, Sent, commit_block, gather_block, measure_block
from lnz.ops.grid_belief.cpu.edges import transfer
from lnz.ops.grid_belief.cpu.lanes import (
    FLAGS,
    combine,
    compare,
    include,
    invert,
    mix,
    raise_to,
    sum_out,
)
from lnz.ops.grid_belief.cpu.reweighted import gather_reweighted
from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import address, for_blocks
from lnz.ops.jit.cpu.rows import copy, top_of
from lnz.ops.jit.cpu.vectors import LANES

LEFT, RIGHT, UP, DOWN = 0, 1, 2, 3  # where a message comes from; 2 · (is the edge vertical) + end that sends
TILE = 64  # pixels worked on at a time
COLUMNS = TILE + LANES  # room for what spills over a tile


@helper(fastmath=FLAGS)
def gather(domain, u, M, rho, entry, b, h, w, n, ends, below, x, top):
    """All incoming but one, at n pixels of a row, into ``ends``: what goes right (a lane late), left, and up.

    What goes down is left in ``below``, and what the row above left there taken into ``ends``. Where messages are
    reweighted by ``rho``, all incoming are left in ``x`` and ``top``, see :func:`.reweighted.gather_reweighted`.
    """
    for l in range(u.shape[0]):
        ends[0, l, 0] = ends[0, l, TILE]
    if rho[0].size:
        gather_reweighted(domain, u, M, rho[0][entry], rho[1][entry], b, h, w, n, ends, below, x, top)
        return
    if len(domain) == 0:
        messages = (
            address(M, (LEFT, b, h, 0, w)), address(M, (RIGHT, b, h, 0, w)),
            address(M, (UP, b, h, 0, w)), address(M, (DOWN, b, h, 0, w)),
        )  # fmt: skip
        received = Received(len(u), address(u, (0, w)), messages, M.shape[4])
        to = address(ends, 0), address(ends, 1), address(ends, 2), address(ends, 3)
        sent = Sent(to, ends.shape[2], address(below, (0, w)), below.shape[1])
        for_blocks(gather_block, n, received, sent)
        return
    for l in range(u.shape[0]):
        scores = u[l, w : w + n]
        from_left, from_right = M[LEFT, b, h, l, w : w + n], M[RIGHT, b, h, l, w : w + n]
        from_up, from_down = M[UP, b, h, l, w : w + n], M[DOWN, b, h, l, w : w + n]
        left, up = ends[1, l, :n], ends[3, l, :n]
        combine(domain, up, scores, from_left)
        include(domain, up, from_right)
        combine(domain, left, scores, from_up)
        include(domain, left, from_down)
        combine(domain, ends[0, l, 1 : n + 1], left, from_left)
        copy(ends[2, l, :n], below[l, w : w + n])
        combine(domain, below[l, w : w + n], up, from_up)
        include(domain, left, from_right)
        include(domain, up, from_down)


@helper(fastmath=FLAGS)
def normalise(domain, x, labels, n, count, lanes):
    """To mean one (``EXP``), sum one (``LOG``) or maximum one (``MAX``)."""
    sum_out(domain, x, labels, n, lanes[0], lanes[1])
    invert(domain, lanes[0, :n], count)
    for l in range(labels):
        include(domain, x[l, :n], lanes[0, :n])


@helper(fastmath=FLAGS)
def commit(domain, x, first, n, M, direction, b, h, w, settings, lanes, check):
    """Normalise, damp and store messages that arrive at row h, lane 0 of them at column w."""
    labels = M.shape[3]
    if len(domain) == 0 and settings[1] == 0:
        produced, received = address(x, (0, first)), address(M, (direction, b, h, 0, w + first))
        room, line, count = x.shape[1], M.shape[4], settings[0]
        if check:
            change = address(lanes, (2, first))
            for_blocks(measure_block, n - first, produced, room, received, line, labels, count, change)
        else:
            for_blocks(commit_block, n - first, produced, room, received, line, labels, count)
        return
    for damp in range(2 if settings[1] > 0 else 1):
        if damp:
            for l in range(labels):
                mix(domain, x[l, first:n], M[direction, b, h, l, w + first : w + n], settings[1], settings[2])
        normalise(domain, x, labels, n, settings[0], lanes)
        if len(domain) > 0 and not damp:
            for l in range(labels):
                raise_to(x[l, first:n], settings[4])
    for l in range(labels):
        old = M[direction, b, h, l, w + first : w + n]
        if check:
            compare(domain, old, x[l, first:n], lanes[2, first:n])
        copy(old, x[l, first:n])


@kernel(fastmath=FLAGS)
def sweep(grid, part, settings, limit, measured, waiting, iterations, residual):
    """Iterate rows of images up to ``limit`` times.

    The edges into the first row wait: what it sends up is left in ``above``, and what the last row sends down in
    ``below``. Where the first row is the row after the last, it is those edges that are served, and nothing else.

    Args:
        grid: a :class:`~lnz.ops.grid_belief.forms.Grid`, whose messages are updated.
        part: a :class:`~lnz.ops.grid_belief.forms.Part`.
        settings: ``[B, 5]``: the number of labels (1 in logarithms), damping, 1 − damping, the residual to stop at, or
            0, and, in logarithms, the least that a message says of a possible label.
        limit: how many iterations at most.
        measured: whether to measure the residual of the last iteration although there is none to stop at.
        waiting: ``above`` and ``below``, each ``[L, columns]``, the columns rounded up to tiles.
        iterations: ``int64 [B]``, written.
        residual: float64 ``[B]``, written: that of the last iteration.
    """
    domain, node, which, edges, rho, M = grid
    first_image, last_image, top, bottom = part
    above, below = waiting
    labels, width = node.shape[2], node.shape[3]
    padded = (labels + 3) // 4 * 4
    ends = np.zeros((4, padded, COLUMNS), node.dtype)  # sent right, left, down (by the row above), up
    out = np.zeros((4, padded, COLUMNS), node.dtype)
    x = np.zeros((padded, COLUMNS), node.dtype)
    lanes = np.zeros((6, COLUMNS), node.dtype)
    joins = top == bottom
    for b in range(first_image, last_image):
        u, own = node[which[0, b]], settings[b]
        iterations[b], residual[b] = 0, 0
        for step in range(limit):
            check = own[3] > 0 or (measured and step == limit - 1)
            lanes[2] = 0
            for h in range(top, bottom + joins):
                for w in range(0, width, TILE):
                    n = min(TILE, width - w)
                    if joins:
                        for l in range(labels):
                            copy(ends[2, l, :n], below[l, w : w + n])
                            copy(ends[3, l, :n], above[l, w : w + n])
                    else:
                        gather(domain, u[h], M, rho, which[3, b], b, h, w, n, ends, below, x, lanes[0])
                    if not joins and h == top:
                        for l in range(labels):
                            copy(above[l, w : w + n], ends[3, l, :n])
                    for side in range(1 if joins else 0, 2 if joins or h > top else 1):
                        first = 1 if side == 0 and w == 0 else 0
                        row, column = (h - 1, w) if side else (h, w - 1)
                        transfer(domain, edges[side], which[1 + side, b], row, column, ends, side, first, n, out, lanes)
                        for end in range(2):
                            at_row, at_column = (row, column) if end else (h, w)
                            commit(
                                domain, out[end], first, n, M, 2 * side + end, b, at_row, at_column, own, lanes, check
                            )
            iterations[b], residual[b] = step + 1, top_of(lanes[2]) / own[0]
            if own[3] > 0 and residual[b] <= own[3]:
                break
