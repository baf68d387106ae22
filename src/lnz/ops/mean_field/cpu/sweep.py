"""Updates of q on a grid, row by row; what q and scores look like is said in :mod:`lnz.ops.mean_field.layout`.

Pixels of one colour only look at the other colour. ``coordinate`` updates the one in place and then the other,
``parallel`` writes both to a second copy of q. Bands of rows can be updated side by side within a colour.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.math import exp, log
from lnz.ops.jit.cpu.memory import lane_numbers, load, store
from lnz.ops.jit.cpu.product import matmul
from lnz.ops.jit.cpu.vectors import LANES, astype, broadcast, select, sum_lanes

FLAGS = {"contract"}
TILE = 128  # pixels worked on at a time
COLUMNS = TILE + LANES  # room for what spills over a tile


@njit(fastmath=FLAGS)
def pixels(width, parity, k):
    """How many pixels of a row to work on from the k-th of a parity of columns."""
    return min(TILE, (width + 1 - parity) // 2 - k)


@njit(fastmath=FLAGS)
def add_weighted(q, h, p, at, n, weight, entry, row, parity, start, x, first_row, add):
    """Put into rows of ``x``, or add, ``weight · q`` of n pixels of row h and parity p; no weights are ones."""
    one, zero, labels = q.dtype.type(1), q.dtype.type(0), q.shape[2]
    for j in range(0, n, LANES):
        m, scale = n - j, broadcast(one)
        if weight.size:
            scale = load(weight, (entry, row, parity, start + j), m, zero)
        for l in range(labels):
            value = scale * load(q, (h, p, l, at + j), m, zero)
            if add:
                value += load(x, (first_row + l, j))
            store(value, x, (first_row + l, j))


@njit(fastmath=FLAGS)
def add_product(q, h, p, at, n, full, entry, row, parity, start, x, first_row, end):
    """Add the product of q with the own table of each edge, which the pixels of q are at one end of."""
    zero, labels = q.dtype.type(0), q.shape[2]
    for j in range(0, n, LANES):
        m = n - j
        for receiver in range(labels):
            value = load(x, (first_row + receiver, j))
            for sender in range(labels):
                first, second = (sender, receiver) if end == 0 else (receiver, sender)
                table = load(full, (entry, row, parity, first, second, start + j), m, zero)
                value += table * load(q, (h, p, sender, at + j), m, zero)
            store(value, x, (first_row + receiver, j))


@njit(fastmath=FLAGS)
def expected(q, model, b, h, p, k, n, x, out):
    """The expected scores of n pixels' edges by label: into ``out``, and added to rows S · L … of ``x``, S being their
    number of stacked tables; the sum of both is wanted. The pixels are row h's of column parity p, from the k-th on.
    """
    which, _, stack, ((slots, weight, full), (down_slots, down_weight, down_full)) = model
    labels = q.shape[2]
    shared = stack.shape[1] // labels
    begun = 0  # slots of x with something in them, as bits; a call per edge would count references to its arrays
    for end in range(2):  # the neighbour is the earlier or the later end of the edge
        slot, entry, at = slots[end], which[1, b], k + p + end
        parity, start = (p, k + 1) if end else (1 - p, k + p)
        if full.size:
            add_product(q, h + 1, 1 - p, at, n, full, entry, h + 1, parity, start, x, slot * labels, end)
        else:
            add = slot == shared or begun >> slot & 1
            add_weighted(q, h + 1, 1 - p, at, n, weight, entry, h + 1, parity, start, x, slot * labels, add)
            begun |= 1 << slot
    for end in range(2):
        slot, entry, at = down_slots[end], which[2, b], k + 1
        if down_full.size:
            add_product(q, h + 2 * end, p, at, n, down_full, entry, h + end, p, at, x, slot * labels, end)
        else:
            add = slot == shared or begun >> slot & 1
            add_weighted(q, h + 2 * end, p, at, n, down_weight, entry, h + end, p, at, x, slot * labels, add)
            begun |= 1 << slot
    if shared:
        matmul(stack[which[3, b]], x, out, labels, shared * labels, n)
    else:
        out[:, :n] = 0


@njit(fastmath=FLAGS)
def settle(out, own, q, to, h, p, k, n, damping, change):
    """The softmax of the fields ``out + own``, damped, into row h of ``to``; largest changes into ``change [16]``.

    Where all labels of a pixel are impossible they are equally probable; where damping leaves none, there is none.
    """
    labels, dtype = q.shape[2], q.dtype.type
    zero, keep = dtype(0), dtype(1 - damping)
    for j in range(0, n, LANES):
        at, m = k + 1 + j, n - j
        top = broadcast(dtype(-np.inf))
        for l in range(labels):
            field = load(out, (l, j)) + load(own, (l, j))
            store(field, out, (l, j))
            top = select(field > top, field, top)
        if damping > 0:
            damped = broadcast(dtype(-np.inf))
            for l in range(labels):
                mixed = keep * load(out, (l, j)) + damping * log(load(q, (h + 1, p, l, at), m, zero))
                store(mixed, own, (l, j))
                damped = select(mixed > damped, mixed, damped)
            some = damped > dtype(-np.inf)
            for l in range(labels):
                store(select(some, load(own, (l, j)), load(out, (l, j))), out, (l, j))
            top = select(some, damped, top)
        mass = broadcast(zero)
        for l in range(labels):
            value = exp(load(out, (l, j)) - top)  # 0 for −inf less itself
            store(value, out, (l, j))
            mass += value
        possible = mass > zero
        scale = select(possible, 1 / mass, zero)
        rest = select(possible, zero, broadcast(dtype(1 / labels)))
        most, there = load(change, (0,)), lane_numbers() < m
        for l in range(labels):
            value = load(out, (l, j)) * scale + rest
            size = value - load(q, (h + 1, p, l, at), m, zero)
            size = select(size < zero, zero - size, size)
            most = select(there, select(size > most, size, most), most)
            store(value, to, (h + 1, p, l, at), m)
        store(most, change, (0,))


@njit(fastmath=FLAGS)
def workspace(model):
    """``x`` and ``out`` as the functions here want them."""
    _, unary, stack, _ = model
    labels = unary.shape[3]
    padded = (labels + 3) // 4 * 4
    x = np.zeros((stack.shape[1] + labels, COLUMNS), unary.dtype)
    return x, np.zeros((padded, COLUMNS), unary.dtype)


@kernel(fastmath=FLAGS)
def sweep(model, b, width, q, to, colours, top, bottom, damping):
    """Update rows top … bottom − 1 of image b, one colour after the other; the largest change of a probability.

    Args:
        model: ``(which, unary, stack, sides)``, see :class:`~lnz.ops.mean_field.layout.Layout`.
        b: the image.
        width: its columns.
        q: ``[H + 2, 2, L, K]``, read.
        to: likewise, written; may be ``q`` itself.
        colours: which, ``(first, after the last)`` of (0, 2); 0 has the upper left pixel.
        top: the first row.
        bottom: the row after the last.
        damping: of the dtype of q.
    """
    which, unary, stack, _ = model
    labels = q.shape[2]
    base = stack.shape[1]
    x, out = workspace(model)
    own, change, u = x[base:], np.zeros(LANES, q.dtype), unary[which[0, b]]
    for colour in range(colours[0], colours[1]):
        for h in range(top, bottom):
            p = (h + colour) & 1
            for k in range(0, (width + 1 - p) // 2, TILE):
                n = pixels(width, p, k)
                for l in range(labels):
                    for k_ in range(n):
                        x[base + l, k_] = u[h + 1, p, l, k + 1 + k_]
                expected(q, model, b, h, p, k, n, x, out)
                settle(out, own, q, to, h, p, k, n, damping, change)
    return change.max()


@kernel(fastmath=FLAGS)
def sweep_images(model, width, q, parallel, first, last, damping, tolerance, limit, iterations, residual):
    """Iterate images first … last − 1, each until no probability changes by more than ``tolerance`` (if that is not 0).

    ``q [B, H + 2, 2, L, K]``, ``iterations`` and ``residual [B]`` are written.
    """
    spare = np.zeros_like(q[0]) if parallel else q[0]
    height = q.shape[1] - 2
    for b in range(first, last):
        at, to = q[b], spare if parallel else q[b]
        for step in range(limit):
            residual[b] = sweep(model, b, width, at, to, (0, 2), 0, height, damping)
            iterations[b] = step + 1
            at, to = to, at
            if tolerance > 0 and residual[b] <= tolerance:
                break
        if parallel and iterations[b] % 2:
            q[b] = at


@kernel(fastmath=FLAGS)
def bound(model, b, width, q, top, bottom):
    """What rows top … bottom − 1 of image b add to the lower bound: every edge is counted at its end of colour 0."""
    which, unary, stack, _ = model
    labels = q.shape[2]
    x, out = workspace(model)
    own, u = x[stack.shape[1] :], unary[which[0, b]]
    zero, sums = q.dtype.type(0), broadcast(0.0)
    for h in range(top, bottom):
        for p in range(2):
            for k in range(0, (width + 1 - p) // 2, TILE):
                n = pixels(width, p, k)
                own[:], out[:] = 0, 0
                if p == h & 1:
                    expected(q, model, b, h, p, k, n, x, out)
                for j in range(0, n, LANES):
                    at, m, gained = k + 1 + j, n - j, broadcast(zero)
                    for l in range(labels):
                        probability = load(q, (h + 1, p, l, at), m, zero)
                        score = load(u, (h + 1, p, l, at), m, zero) + (load(out, (l, j)) + load(own, (l, j)))
                        gain = probability * (score - log(probability))
                        gained += select(probability > zero, gain, zero)
                    sums += astype(gained, np.float64)
    return sum_lanes(sums)
