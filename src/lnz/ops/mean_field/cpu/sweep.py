"""Updates of q on a grid, row by row; what q and scores look like is said in :mod:`lnz.ops.mean_field.cpu.layout`.

Pixels of one colour only look at the other colour. ``coordinate`` updates the one in place and then the other,
``parallel`` writes both to a second copy of q. Bands of rows can be updated side by side within a colour.
"""

from __future__ import annotations

import numpy as np

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import address, full_like, lane_numbers, load, store
from lnz.ops.jit.cpu.product import matmul
from lnz.ops.jit.cpu.rows import clear, copy, top_of
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, select, sum_lanes
from lnz.ops.mean_field.cpu.arguments import Band, Pixels

FLAGS = {"contract"}
TILE = 128  # pixels worked on at a time
COLUMNS = TILE + LANES  # room for what spills over a tile


@helper(fastmath=FLAGS)
def pixels(width, parity, k):
    """How many pixels of a row to work on from the k-th of a parity of columns."""
    return min(TILE, (width + 1 - parity) // 2 - k)


@helper(fastmath=FLAGS)
def add_weighted(q, labels, line, n, weight, weighted, x, add):
    """Put into rows of ``x``, or add, ``weight · q`` of n pixels; pointers, of which q has a label every ``line``."""
    for j in range(0, n, LANES):
        m, scale = n - j, full_like(q, 1)
        if weighted:
            scale = load(weight, j, m, 0)
        for l in range(labels):
            value = scale * load(q, l * line + j, m, 0)
            if add:
                value += load(x, l * COLUMNS + j)
            store(value, x, l * COLUMNS + j)


@helper(fastmath=FLAGS)
def add_product(q, labels, line, n, full, end, x):
    """Add the product of q with the own table of each edge, which the pixels of q are at one end of; pointers."""
    for j in range(0, n, LANES):
        m = n - j
        for receiver in range(labels):
            value = load(x, receiver * COLUMNS + j)
            for sender in range(labels):
                entry = sender * labels + receiver if end == 0 else receiver * labels + sender
                value += load(full, entry * line + j, m, 0) * load(q, sender * line + j, m, 0)
            store(value, x, receiver * COLUMNS + j)


@helper(fastmath=FLAGS)
def expected(q, grids, b, at, x, out):
    """The expected scores of some pixels' edges by label: into ``out``, and added to rows S · L … of ``x``, S being
    their number of stacked tables; the sum of both is wanted.
    """
    across, down, which, stack = grids.across, grids.down, grids.which, grids.stack
    labels, line = q.shape[2], q.shape[3]
    h, p, k, n = at
    shared = stack.shape[1] // labels
    begun = 0  # slots of x with something in them, as bits
    for end in range(2):  # the neighbour is the earlier or the later end of the edge
        slot, entry, sent = across.slots[end], which[1, b], address(q, (h + 1, 1 - p, 0, k + p + end))
        parity, start = (p, k + 1) if end else (1 - p, k + p)
        to = address(x, slot * labels)
        if across.full.size:
            add_product(sent, labels, line, n, address(across.full, (entry, h + 1, parity, 0, 0, start)), end, to)
        else:
            weight, weighted = address(across.weight, (entry, h + 1, parity, start)), across.weight.size > 0
            add_weighted(sent, labels, line, n, weight, weighted, to, slot == shared or begun >> slot & 1)
            begun |= 1 << slot
    for end in range(2):
        slot, entry, sent = down.slots[end], which[2, b], address(q, (h + 2 * end, p, 0, k + 1))
        to = address(x, slot * labels)
        if down.full.size:
            add_product(sent, labels, line, n, address(down.full, (entry, h + end, p, 0, 0, k + 1)), end, to)
        else:
            weight, weighted = address(down.weight, (entry, h + end, p, k + 1)), down.weight.size > 0
            add_weighted(sent, labels, line, n, weight, weighted, to, slot == shared or begun >> slot & 1)
            begun |= 1 << slot
    if shared:
        matmul(stack[which[3, b]], x, out, labels, shared * labels, n)
    else:
        for l in range(labels):
            clear(address(out, l), n)


@helper(fastmath=FLAGS)
def update(out, own, labels, line, n, q, to, damping, change):
    """The softmax of the fields ``out + own`` of n pixels, damped, into ``to``; largest changes into ``change [16]``.

    All pointers; q and ``to`` have a label every ``line``. Where all labels of a pixel are impossible they are equally
    probable; where damping leaves none, there is none.
    """
    zero, minus, keep = full_like(q, 0), full_like(q, -np.inf), 1 - damping
    for j in range(0, n, LANES):
        m, top = n - j, minus
        for l in range(labels):
            field = load(out, l * COLUMNS + j) + load(own, l * COLUMNS + j)
            store(field, out, l * COLUMNS + j)
            top = select(field > top, field, top)
        if damping > 0:
            damped = minus
            for l in range(labels):
                mixed = load(out, l * COLUMNS + j) * keep + log(load(q, l * line + j, m, 0)) * damping
                store(mixed, own, l * COLUMNS + j)
                damped = select(mixed > damped, mixed, damped)
            some = damped > minus
            for l in range(labels):
                store(select(some, load(own, l * COLUMNS + j), load(out, l * COLUMNS + j)), out, l * COLUMNS + j)
            top = select(some, damped, top)
        mass = zero
        for l in range(labels):
            value = exp(load(out, l * COLUMNS + j) - top)  # 0 for −inf less itself
            store(value, out, l * COLUMNS + j)
            mass += value
        possible = mass > zero
        scale = select(possible, 1 / mass, zero)
        rest = select(possible, zero, full_like(q, 1) / labels)
        most, there = load(change, 0), lane_numbers() < m
        for l in range(labels):
            value = load(out, l * COLUMNS + j) * scale + rest
            size = value - load(q, l * line + j, m, 0)
            size = select(size < zero, zero - size, size)
            most = select(there, select(size > most, size, most), most)
            store(value, to, l * line + j, m)
        store(most, change, 0)


@helper(fastmath=FLAGS)
def workspace(grids):
    """``x`` and ``out`` as the functions here want them."""
    labels, dtype = grids.unary.shape[3], grids.unary.dtype
    x = np.zeros((grids.stack.shape[1] + labels, COLUMNS), dtype)
    return x, np.zeros(((labels + 3) // 4 * 4, COLUMNS), dtype)


@kernel(fastmath=FLAGS)
def sweep(grids, band, q, to, damping):
    """Update a band of rows, one colour after the other; the largest change of a probability.

    Args:
        grids: the scores.
        band: of one image.
        q: ``[H + 2, 2, L, K]``, read.
        to: likewise, written; may be ``q`` itself.
        damping: of the dtype of q.
    """
    width, unary, entry = grids.width, grids.unary, grids.which[0, band.b]
    labels, line, base = q.shape[2], q.shape[3], grids.stack.shape[1]
    x, out = workspace(grids)
    change = np.zeros(LANES, q.dtype)
    for colour in range(band.first, band.last):
        for h in range(band.top, band.bottom):
            p = (h + colour) & 1
            for k in range(0, (width + 1 - p) // 2, TILE):
                n, place = pixels(width, p, k), (h + 1, p, 0, k + 1)
                scores = address(unary, (entry, h + 1, p, 0, k + 1))
                for l in range(labels):
                    for i in range(n):
                        x[base + l, i] = scores[l * line + i]
                expected(q, grids, band.b, Pixels(h, p, k, n), x, out)
                own, old, new = address(x, base), address(q, place), address(to, place)
                update(address(out, 0), own, labels, line, n, old, new, damping, address(change, 0))
    return top_of(change)


@helper(fastmath=FLAGS)
def keep(q, to):
    """``to = q [H + 2, 2, L, K]``."""
    rows, _, labels, _ = q.shape
    for h in range(rows):
        for p in range(2):
            for l in range(labels):
                copy(to[h, p, l], q[h, p, l])


@kernel(fastmath=FLAGS)
def sweep_images(grids, q, first, last, until, iterations, residual):
    """Iterate images first … last − 1, each until it changes no more.

    ``q [B, H + 2, 2, L, K]``, ``iterations`` and ``residual [B]`` are written.
    """
    spare = np.zeros_like(q[0]) if until.parallel else q[0]
    height = q.shape[1] - 2
    for b in range(first, last):
        at, to = q[b], spare if until.parallel else q[b]
        for step in range(until.limit):
            residual[b] = sweep(grids, Band(b, 0, height, 0, 2), at, to, until.damping)
            iterations[b] = step + 1
            at, to = to, at
            if until.tolerance > 0 and residual[b] <= until.tolerance:
                break
        if until.parallel and iterations[b] % 2:
            keep(at, q[b])


@kernel(fastmath=FLAGS)
def bound(grids, band, q):
    """What a band of rows adds to the lower bound: every edge is counted at its end of colour 0."""
    width, unary, entry = grids.width, grids.unary, grids.which[0, band.b]
    labels, line, base = q.shape[2], q.shape[3], grids.stack.shape[1]
    x, out = workspace(grids)
    own, other, zero, sums = address(x, base), address(out, 0), q.dtype.type(0), broadcast(0.0)
    for h in range(band.top, band.bottom):
        for p in range(2):
            for k in range(0, (width + 1 - p) // 2, TILE):
                n = pixels(width, p, k)
                clear(own, labels * COLUMNS)
                clear(other, out.size)
                if p == h & 1:
                    expected(q, grids, band.b, Pixels(h, p, k, n), x, out)
                mine, scores = address(q, (h + 1, p, 0, k + 1)), address(unary, (entry, h + 1, p, 0, k + 1))
                for j in range(0, n, LANES):
                    m, gained = n - j, broadcast(zero)
                    for l in range(labels):
                        probability, edges = load(mine, l * line + j, m, 0), l * COLUMNS + j
                        score = load(scores, l * line + j, m, 0) + (load(other, edges) + load(own, edges))
                        gain = probability * (score - log(probability))
                        gained += select(probability > zero, gain, zero)
                    sums += astype(gained, np.float64)
    return sum_lanes(sums)
