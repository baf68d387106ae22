"""Updates of q on a grid, row by row; what q and scores look like is said in :mod:`lnz.ops.mean_field.layout`.

Pixels of one colour only look at the other colour. ``coordinate`` updates the one in place and then the other,
``parallel`` writes both to a second copy of q. Bands of rows can be updated side by side within a colour.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.math.cpu import exp, log
from lnz.ops.registers.cpu.lanes import BLOCK
from lnz.ops.registers.cpu.product import matmul

FLAGS = {"contract"}
TILE = 128  # pixels worked on at a time
COLUMNS = TILE + BLOCK  # room for what spills over a tile


@njit(fastmath=FLAGS)
def pixels(width, parity, k):
    """How many pixels of a row to work on from the k-th of a parity of columns."""
    return min(TILE, (width + 1 - parity) // 2 - k)


@njit(fastmath=FLAGS)
def add_weighted(x, source, weight, first):
    """Put (``first``) or add ``weight · source [L, n]``; no weights are ones."""
    labels, n = source.shape
    for l in range(labels):
        if weight.size == 0 and first:
            for k in range(n):
                x[l, k] = source[l, k]
        elif weight.size == 0:
            for k in range(n):
                x[l, k] += source[l, k]
        elif first:
            for k in range(n):
                x[l, k] = weight[k] * source[l, k]
        else:
            for k in range(n):
                x[l, k] += weight[k] * source[l, k]


@njit(fastmath=FLAGS)
def add_product(x, source, table, end):
    """Add the product of ``source [L, n]``, sent by one end of each edge, with its own ``table [L, L, n]``."""
    labels, n = source.shape
    for i in range(labels):
        for j in range(labels):
            sender, receiver = (i, j) if end == 0 else (j, i)
            for k in range(n):
                x[receiver, k] += table[i, j, k] * source[sender, k]


@njit(fastmath=FLAGS)
def expected(q, model, b, h, p, k, n, x, out):
    """The expected scores of n pixels' edges by label: into ``out``, and added to rows S · L … of ``x``, S being their
    number of stacked tables; the sum of both is wanted. The pixels are row h's of column parity p, from the k-th on.
    """
    which, _, stack, sides = model
    labels = q.shape[2]
    shared = stack.shape[1] // labels
    begun = 0  # slots of x with something in them, as bits
    for side in range(2):
        slots, weight, full = sides[side]
        entry = which[1 + side, b]
        for end in range(2):  # the neighbour is the earlier or the later end of the edge
            if side == 0:
                source = q[h + 1, 1 - p, :, k + p + end : k + p + end + n]
                row, parity, start = h + 1, p if end else 1 - p, k + 1 if end else k + p
            else:
                source = q[h + 2 * end, p, :, k + 1 : k + 1 + n]
                row, parity, start = h + end, p, k + 1
            slot = slots[end]
            if full.size:
                add_product(x[slot * labels :], source, full[entry, row, parity, :, :, start : start + n], end)
                continue
            scale = weight[entry, row, parity, start : start + n]  # empty where there are no weights
            add_weighted(x[slot * labels :], source, scale, slot < shared and not begun >> slot & 1)
            begun |= 1 << slot
    if shared:
        matmul(stack[which[3, b]], x, out, labels, shared * labels, n)
    else:
        out[:, :n] = 0


@njit(fastmath=FLAGS)
def settle(out, own, q, to, h, p, k, n, damping, lanes):
    """The softmax of the fields ``out + own``, damped, into row h of ``to``; ``lanes[0]`` becomes the largest change.

    Where all labels of a pixel are impossible they are equally probable; where damping leaves none, there is none.
    """
    labels = q.shape[2]
    change, top, damped, total = lanes[0, :n], lanes[1, :n], lanes[2, :n], lanes[3, :n]
    for k_ in range(n):
        top[k_], damped[k_], total[k_] = -np.inf, -np.inf, 0
    for l in range(labels):
        field, addend = out[l, :n], own[l, :n]
        for k_ in range(n):
            value, most = field[k_] + addend[k_], top[k_]
            field[k_] = value
            top[k_] = value if value > most else most
    if damping > 0:
        keep = 1 - damping
        for l in range(labels):
            field, mixed, old = out[l, :n], own[l, :n], q[h + 1, p, l, k + 1 : k + 1 + n]
            for k_ in range(n):
                value, most = keep * field[k_] + damping * log(old[k_]), damped[k_]
                mixed[k_] = value
                damped[k_] = value if value > most else most
        for l in range(labels):
            field, mixed = out[l, :n], own[l, :n]
            for k_ in range(n):
                field[k_] = mixed[k_] if damped[k_] > -np.inf else field[k_]
        for k_ in range(n):
            top[k_] = damped[k_] if damped[k_] > -np.inf else top[k_]
    for l in range(labels):
        field = out[l, :n]
        for k_ in range(n):
            value = exp(field[k_] - top[k_])  # 0 for −inf less itself
            field[k_] = value
            total[k_] += value
    rest = damped
    for k_ in range(n):
        possible = total[k_] > 0
        rest[k_] = 0 if possible else damping * 0 + 1 / q.dtype.type(labels)
        total[k_] = 1 / total[k_] if possible else 0
    for l in range(labels):
        field, old, new = out[l, :n], q[h + 1, p, l, k + 1 : k + 1 + n], to[h + 1, p, l, k + 1 : k + 1 + n]
        for k_ in range(n):
            value, most = field[k_] * total[k_] + rest[k_], change[k_]
            size = abs(value - old[k_])
            change[k_] = size if size > most else most
            new[k_] = value


@njit(fastmath=FLAGS)
def workspace(model):
    """``x``, ``out`` and ``lanes`` as the functions here want them."""
    _, unary, stack, _ = model
    labels = unary.shape[3]
    padded = (labels + 3) // 4 * 4
    x = np.zeros((stack.shape[1] + labels, COLUMNS), unary.dtype)
    return x, np.zeros((padded, COLUMNS), unary.dtype), np.zeros((4, COLUMNS), unary.dtype)


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
    x, out, lanes = workspace(model)
    u = unary[which[0, b]]
    for colour in range(colours[0], colours[1]):
        for h in range(top, bottom):
            p = (h + colour) & 1
            for k in range(0, (width + 1 - p) // 2, TILE):
                n = pixels(width, p, k)
                for l in range(labels):
                    for k_ in range(n):
                        x[base + l, k_] = u[h + 1, p, l, k + 1 + k_]
                expected(q, model, b, h, p, k, n, x, out)
                settle(out, x[base:], q, to, h, p, k, n, damping, lanes)
    return lanes[0].max()


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
    base = stack.shape[1]
    x, out, lanes = workspace(model)
    u, total = unary[which[0, b]], 0.0
    for h in range(top, bottom):
        for p in range(2):
            for k in range(0, (width + 1 - p) // 2, TILE):
                n = pixels(width, p, k)
                x[base:], out[:], lanes[0] = 0, 0, 0
                if p == h & 1:
                    expected(q, model, b, h, p, k, n, x, out)
                for l in range(labels):
                    score, added, own = u[h + 1, p, l, k + 1 : k + 1 + n], out[l, :n], x[base + l, :n]
                    probability = q[h + 1, p, l, k + 1 : k + 1 + n]
                    for k_ in range(n):
                        gain = score[k_] + (added[k_] + own[k_]) - log(probability[k_])
                        lanes[0, k_] += probability[k_] * gain if probability[k_] > 0 else 0
                for k_ in range(n):
                    total += lanes[0, k_]
    return total
