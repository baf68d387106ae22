"""Flooding belief propagation on a grid, row by row.

Messages are stored where they arrive, label-major, ``M[direction, b, row, label, column]``, so that every inner loop
runs along a row of pixels. A sweep updates them in place: tile by tile, the four products "all incoming but one" are
formed, and an edge is served as soon as both of its ends are; what a finished row sends down waits one row. Bands of
rows can be swept side by side; the edges between bands are served last. The result does not depend on the bands.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.grid_belief.cpu.blocks import commit_block, gather_block
from lnz.ops.grid_belief.cpu.edges import transfer
from lnz.ops.grid_belief.cpu.lanes import (
    FLAGS,
    combine,
    compare,
    copy,
    exp_difference,
    fill,
    include,
    invert,
    larger,
    logarithm,
    mix,
    multiply_add,
    sum_out,
)
from lnz.ops.jit.cpu import kernel
from lnz.ops.registers.cpu.lanes import BLOCK

LEFT, RIGHT, UP, DOWN = 0, 1, 2, 3  # where a message comes from; 2 · (is the edge vertical) + end that sends
TILE = 64  # pixels worked on at a time
COLUMNS = TILE + BLOCK  # room for what spills over a tile


@njit(fastmath=FLAGS)
def send_but(out, total, received):
    """What is left of a sum without a part of it: −inf stays, whatever the part."""
    for k in range(out.size):
        out[k] = total[k] - received[k] if total[k] > -np.inf else total[k]


@njit(fastmath=FLAGS)
def gather_reweighted(u, M, across, down, b, h, w, n, ends, below, total):
    """:func:`gather` in logarithms where incoming messages count ``across [H, W + 1]`` and ``down [H + 1, W]`` times,
    by the edges before and after each pixel, and then one is taken away in full.
    """
    for l in range(u.shape[0]):
        from_left, from_right = M[LEFT, b, h, l, w : w + n], M[RIGHT, b, h, l, w : w + n]
        from_up, from_down = M[UP, b, h, l, w : w + n], M[DOWN, b, h, l, w : w + n]
        copy(total, u[l, w : w + n])
        multiply_add(total, across[h, w : w + n], from_left)
        multiply_add(total, across[h, w + 1 : w + 1 + n], from_right)
        multiply_add(total, down[h, w : w + n], from_up)
        multiply_add(total, down[h + 1, w : w + n], from_down)
        send_but(ends[0, l, 1 : n + 1], total, from_right)
        send_but(ends[1, l, :n], total, from_left)
        copy(ends[2, l, :n], below[l, w : w + n])
        send_but(below[l, w : w + n], total, from_down)
        send_but(ends[3, l, :n], total, from_up)


@njit(fastmath=FLAGS)
def exponentiate(x, labels, first, n, top):
    """Logarithms to probabilities of maximum one, in place."""
    fill(top[first:n], -np.inf)
    for l in range(labels):
        larger(top[first:n], x[l, first:n])
    for l in range(labels):
        exp_difference(x[l, first:n], top[first:n])


@njit(fastmath=FLAGS)
def gather(domain, u, M, rho, entry, b, h, w, n, ends, below, total):
    """All incoming but one, at n pixels of a row, into ``ends``: what goes right (a lane late), left, and up.

    What goes down is left in ``below``, and what the row above left there taken into ``ends``.
    """
    for l in range(u.shape[0]):
        ends[0, l, 0] = ends[0, l, TILE]
    if len(domain) == 0:
        for at in range(0, n, BLOCK):
            gather_block(u, M, ends, below, b, h, w, at, n - at)  # type: ignore[call-arg]
        return
    if rho[0].size:
        gather_reweighted(u, M, rho[0][entry], rho[1][entry], b, h, w, n, ends, below, total[:n])
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


@njit(fastmath=FLAGS)
def normalise(domain, x, labels, n, count, lanes):
    """To mean one (``EXP``), sum one (``LOG``) or maximum one (``MAX``)."""
    sum_out(domain, x, labels, n, lanes[0], lanes[1])
    invert(domain, lanes[0, :n], count)
    for l in range(labels):
        include(domain, x[l, :n], lanes[0, :n])


@njit(fastmath=FLAGS)
def commit(domain, x, first, n, M, direction, b, h, w, settings, lanes, check):
    """Normalise, damp and store messages that arrive at row h, lane 0 of them at column w."""
    labels = M.shape[3]
    if len(domain) == 0 and settings[1] == 0:
        for at in range(first, n, BLOCK):
            commit_block(x, M, lanes[2], direction, b, h, w, at, n - at, settings[0], check)  # type: ignore[call-arg]
        return
    for damp in range(2 if settings[1] > 0 else 1):
        if damp:
            for l in range(labels):
                mix(domain, x[l, first:n], M[direction, b, h, l, w + first : w + n], settings[1], settings[2])
        normalise(domain, x, labels, n, settings[0], lanes)
    for l in range(labels):
        old = M[direction, b, h, l, w + first : w + n]
        if check:
            compare(domain, old, x[l, first:n], lanes[2, first:n])
        copy(old, x[l, first:n])


@kernel(fastmath=FLAGS)
def sweep(domain, stored, node, which, edges, rho, M, b, top, bottom, settings, limit, measured, above, below):
    """Iterate rows top … bottom − 1 of image b up to ``limit`` times; the number of iterations and the last residual.

    The edges into row ``top`` wait: what it sends up is left in ``above``, and what row ``bottom − 1`` sends down in
    ``below``. With ``top == bottom`` it is those edges that are served, and nothing else.

    Args:
        domain: ``EXP``, ``LOG`` or ``MAX``; tables come in it.
        stored: what messages and node scores come in: ``domain``, or ``LOG`` where that is ``EXP``; what ends of edges
            send is then brought to maximum one and exponentiated.
        node: ``[entries, H, L, W]``, largest of each pixel 1 (in logarithms 0).
        which: ``int64 [4, B]``: the node, horizontal, vertical and ``rho`` entry that each image reads.
        edges: of the horizontal and of the vertical edges ``(kind, square [entries, 2, L, L rounded up to 4]
            (transposed the second time), weight [entries, rows, columns], full [entries, rows, L, L, columns],
            (least, greatest))``.
        rho: how much messages count at nodes where that is not once: ``across [entries, H, W + 1]`` and ``down
            [entries, H + 1, W]``, by the edges before and after each pixel, 0 on the border; in logarithms only.
            Empty otherwise.
        M: messages ``[4, B, H, L, W]``, updated.
        b: the image.
        top: the first row.
        bottom: the row after the last.
        settings: the number of labels (1 in logarithms), damping, 1 − damping, and the residual to stop at, or 0.
        limit: how many iterations at most.
        measured: whether to measure the residual of the last iteration although there is none to stop at.
        above: ``[L, columns]``, the columns rounded up to tiles.
        below: likewise.
    """
    labels, width = node.shape[2], node.shape[3]
    padded = (labels + 3) // 4 * 4
    ends = np.zeros((4, padded, COLUMNS), node.dtype)  # sent right, left, down (by the row above), up
    out = np.zeros((4, padded, COLUMNS), node.dtype)
    lanes = np.zeros((6, COLUMNS), node.dtype)
    joins = top == bottom
    u = node[which[0, b]]
    residual = node.dtype.type(0)
    for step in range(limit):
        check = settings[3] > 0 or (measured and step == limit - 1)
        lanes[2] = 0
        for h in range(top, bottom + joins):
            for w in range(0, width, TILE):
                n = min(TILE, width - w)
                if joins:
                    for l in range(labels):
                        copy(ends[2, l, :n], below[l, w : w + n])
                        copy(ends[3, l, :n], above[l, w : w + n])
                else:
                    gather(stored, u[h], M, rho, which[3, b], b, h, w, n, ends, below, lanes[0])
                if not joins and h == top:
                    for l in range(labels):
                        copy(above[l, w : w + n], ends[3, l, :n])
                if len(stored) > len(domain):
                    for end in range(2 if joins else 0, 4):
                        late = 1 if end == 0 else 0
                        exponentiate(ends[end], labels, late, n + late, lanes[0])
                for side in range(1 if joins else 0, 2 if joins or h > top else 1):
                    first = 1 if side == 0 and w == 0 else 0
                    row, column = (h - 1, w) if side else (h, w - 1)
                    transfer(domain, edges[side], which[1 + side, b], row, column, ends, side, first, n, out, lanes)
                    for end in range(2):
                        at_row, at_column = (row, column) if end else (h, w)
                        if len(stored) > len(domain):
                            for l in range(labels):
                                logarithm(domain, out[end, l, first:n])
                        commit(
                            stored, out[end], first, n, M, 2 * side + end, b, at_row, at_column, settings, lanes, check
                        )
        residual = lanes[2].max() / settings[0]
        if settings[3] > 0 and residual <= settings[3]:
            return step + 1, residual
    return limit, residual


@kernel(fastmath=FLAGS)
def sweep_images(domain, stored, node, which, edges, rho, M, first, last, settings, limit, iterations, residual):
    """:func:`sweep` of whole images first … last − 1; ``iterations`` and ``residual [B]`` are written."""
    height, labels, width = node.shape[1:]
    lines = np.zeros((2, labels, (width + TILE - 1) // TILE * TILE), node.dtype)
    for b in range(first, last):
        iterations[b], residual[b] = sweep(
            domain, stored, node, which, edges, rho, M, b, 0, height, settings, limit, True, lines[0], lines[1]
        )
