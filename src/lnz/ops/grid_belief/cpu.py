"""Flooding belief propagation on a grid, in Numba.

Messages are stored where they arrive, label-major, ``M[direction, b, row, label, column]``, so that every inner loop
runs along a row of pixels. A sweep updates them in place: row by row, tile by tile, the four products "all incoming
but one" are formed, and an edge is served as soon as both of its ends are; what a finished row sends down waits one
row. Bands of rows run in parallel; the edges between bands are served last. The result does not depend on the bands.

Three domains: ``EXP`` keeps probabilities (normalised to mean one, so that products of a few stay in range), ``LOG``
their logarithms (sum-product), ``MAX`` max-marginals in logarithms. Tables and node scores come in the same domain.
Four kinds of edge tables: ``TABLE`` one per image, ``POTTS`` equal-or-not scores scaled per edge, ``WEIGHTED`` one
table scaled per edge, ``FULL`` one per edge.

Shapes: H rows, W columns, L labels; ``which [3, B]`` says which node, horizontal and vertical entry each image reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, set_num_threads, types
from numba.core import cgutils, config
from numba.extending import intrinsic

from lnz.ops.math.cpu import exp, log

EXP: tuple[()] = ()  # a domain is the length of a tuple, which the compiler knows: each gets a kernel of its own
LOG, MAX = (0,), (0, 0)
TABLE, POTTS, WEIGHTED, FULL = 0, 1, 2, 3
LEFT, RIGHT, UP, DOWN = 0, 1, 2, 3  # where a message comes from; 2 · (is the edge vertical) + end that sends
TILE, BLOCK = 64, 16  # pixels worked on at a time; pixels in the registers of the matrix product
FLAGS = {"contract"}


def use_threads(wanted: int) -> int:
    """Let kernels called from this thread run on as many threads as torch's do, and say how many there are."""
    threads = min(wanted, config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    set_num_threads(threads)
    return threads


@intrinsic
def _product_block(typing_context: Any, table: Any, x: Any, out: Any, row: Any, at: Any, inner: Any) -> Any:
    """``out[row:row+4, at:at+16] = table[:inner, row:row+4].T @ x[:inner, at:at+16]``, sums in registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        types_ = dict(zip(("table", "x", "out"), (signature.args[i] for i in (0, 1, 2)), strict=True))
        values = dict(zip(("table", "x", "out"), (arguments[i] for i in (0, 1, 2)), strict=True))
        row, at, inner = arguments[3:]
        scalar = context.get_value_type(types_["table"].dtype)
        size = types_["table"].dtype.bitwidth // 8
        vector = ir.VectorType(scalar, BLOCK)
        arrays = {name: context.make_array(types_[name])(context, builder, values[name]) for name in values}
        pitch = {
            name: builder.sdiv(cgutils.unpack_tuple(builder, array.strides)[-2], ir.Constant(at.type, size))
            for name, array in arrays.items()
        }

        def address(name: str, line: Any, column: Any) -> Any:
            return builder.gep(arrays[name].data, [builder.add(builder.mul(line, pitch[name]), column)])

        sums = [cgutils.alloca_once(builder, vector) for _ in range(4)]
        for total in sums:
            builder.store(ir.Constant(vector, [0.0] * BLOCK), total)
        with cgutils.for_range(builder, inner) as loop:
            source = builder.bitcast(address("x", loop.index, at), vector.as_pointer())
            values_ = builder.load(source, align=size)
            for r, total in enumerate(sums):
                weight = builder.load(builder.gep(address("table", loop.index, row), [ir.Constant(row.type, r)]))
                single = builder.insert_element(
                    ir.Constant(vector, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0)
                )
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
                spread = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)
                product = builder.fmul(spread, values_, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for r, total in enumerate(sums):
            target = address("out", builder.add(row, ir.Constant(row.type, r)), at)
            builder.store(builder.load(total), builder.bitcast(target, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(table, x, out, types.intp, types.intp, types.intp), generate


@njit(fastmath=FLAGS)
def _matmul(table, x, out, labels, n):
    for at in range(0, n, BLOCK):
        for row in range(0, labels, 4):
            _product_block(table, x, out, row, at, labels)  # type: ignore[call-arg]


@njit(fastmath=FLAGS)
def _fill(out, value):
    for k in range(out.size):
        out[k] = value


@njit(fastmath=FLAGS)
def _copy(out, a):
    for k in range(out.size):
        out[k] = a[k]


@njit(fastmath=FLAGS)
def _add(out, a):
    for k in range(out.size):
        out[k] += a[k]


@njit(fastmath=FLAGS)
def _include(domain, out, a):
    if len(domain) == 0:
        for k in range(out.size):
            out[k] *= a[k]
    else:
        for k in range(out.size):
            out[k] += a[k]


@njit(fastmath=FLAGS)
def _combine(domain, out, a, b):
    if len(domain) == 0:
        for k in range(out.size):
            out[k] = a[k] * b[k]
    else:
        for k in range(out.size):
            out[k] = a[k] + b[k]


@njit(fastmath=FLAGS)
def _gather(domain, u, M, b, h, w, n, ends):
    """All incoming but one, at n pixels of a row, into ``ends``: what goes right (a lane late), left, down and up."""
    for l in range(u.shape[0]):
        scores = u[l, w : w + n]
        from_left, from_right = M[LEFT, b, h, l, w : w + n], M[RIGHT, b, h, l, w : w + n]
        from_up, from_down = M[UP, b, h, l, w : w + n], M[DOWN, b, h, l, w : w + n]
        left, up = ends[1, l, :n], ends[3, l, :n]
        _combine(domain, up, scores, from_left)
        _include(domain, up, from_right)
        _combine(domain, left, scores, from_up)
        _include(domain, left, from_down)
        _combine(domain, ends[0, l, 1 : n + 1], left, from_left)
        _combine(domain, ends[4, l, :n], up, from_up)
        _include(domain, left, from_right)
        _include(domain, up, from_down)


# From one end of an edge to the other ---------------------------------------------------------------------------------


@njit(fastmath=FLAGS)
def _multiply_add(out, a, b):
    for k in range(out.size):
        out[k] += a[k] * b[k]


@njit(fastmath=FLAGS)
def _larger(out, a):
    for k in range(out.size):
        out[k] = a[k] if a[k] > out[k] else out[k]


@njit(fastmath=FLAGS)
def _larger_sum(out, a, b):
    for k in range(out.size):
        total = a[k] + b[k]
        out[k] = total if total > out[k] else out[k]


@njit(fastmath=FLAGS)
def _add_exp(out, a, b, top):
    """Add exp(a + b − top); nothing where top is −inf (exp of NaN is 0)."""
    for k in range(out.size):
        out[k] += exp(a[k] + b[k] - top[k])


@njit(fastmath=FLAGS)
def _add_exp_difference(out, a, top):
    for k in range(out.size):
        out[k] += exp(a[k] - top[k])


@njit(fastmath=FLAGS)
def _add_log(out, total):
    for k in range(out.size):
        out[k] += log(total[k])


@njit(fastmath=FLAGS)
def _scaled(domain, out, weight, score, low, high):
    """A score of the table at consecutive edges, shifted so that the largest of each edge's table is 0."""
    for k in range(out.size):
        w = weight[k]
        out[k] = w * score - (w * high if w > 0 else w * low)
    if len(domain) == 0:
        for k in range(out.size):
            out[k] = exp(out[k])


@njit(fastmath=FLAGS)
def _pair(domain, edges, entry, row, column, i, j, out):
    """The table's entry (i, j) at consecutive edges."""
    kind, square, weight, full, extent = edges
    if kind == TABLE:
        _fill(out, square[entry, 0, i, j])
    elif kind == FULL:
        _copy(out, full[entry, row, i, j, column : column + out.size])
    else:
        score = square[0, 0, i, j]
        _scaled(domain, out, weight[entry, row, column : column + out.size], score, extent[0], extent[1])


@njit(fastmath=FLAGS)
def _potts(out, x, total, same, other):
    for k in range(out.size):
        out[k] = other[k] * total[k] + (same[k] - other[k]) * x[k]


@njit(fastmath=FLAGS)
def _transfer(domain, edges, entry, row, column, ends, side, first, n, out, lanes):
    """What edges ``first … n − 1`` from (row, column) on make of their ends: ``out[0]`` onwards, ``out[1]`` back."""
    kind, square, _, _, _ = edges
    labels = square.shape[2]
    t = lanes[3, first:n]
    if len(domain) == 0 and kind == TABLE:
        for end in range(2):
            _matmul(square[entry, end], ends[2 * side + end], out[end], labels, n)
        return
    if len(domain) == 0 and kind == POTTS:
        for j in range(2):
            _pair(domain, edges, entry, row, column + first, 0, j, lanes[3 + j, first:n])
        for end in range(2):
            _fill(lanes[0], 0)
            for l in range(labels):
                _add(lanes[0, first:n], ends[2 * side + end, l, first:n])
            for l in range(labels):
                _potts(out[end, l, first:n], ends[2 * side + end, l, first:n], lanes[0, first:n], t, lanes[4, first:n])
        return
    for pass_ in range(2 if len(domain) == 1 else 1):
        for end in range(2):
            for l in range(labels):
                _fill(out[end + 2 * pass_, l], 0 if len(domain) == 0 or pass_ else -np.inf)
        for i in range(labels):
            for j in range(labels):
                _pair(domain, edges, entry, row, column + first, i, j, t)
                for end in range(2):
                    source, target = (i, j) if end == 0 else (j, i)
                    x = ends[2 * side + end, source, first:n]
                    y = out[end, target, first:n]
                    if len(domain) == 0:
                        _multiply_add(y, x, t)
                    elif pass_ == 0:
                        _larger_sum(y, x, t)
                    else:
                        _add_exp(out[end + 2, target, first:n], x, t, y)
    if len(domain) == 1:
        for end in range(2):
            for l in range(labels):
                _add_log(out[end, l, first:n], out[end + 2, l, first:n])


# Messages -------------------------------------------------------------------------------------------------------------


@njit(fastmath=FLAGS)
def _total(domain, x, labels, n, total, work):
    """Over the labels: Σ (``EXP``), ln Σ exp (``LOG``) or max (``MAX``), per lane, into ``total``."""
    _copy(total[:n], x[0, :n])
    for l in range(1, labels):
        if len(domain) == 0:
            _add(total[:n], x[l, :n])
        else:
            _larger(total[:n], x[l, :n])
    if len(domain) == 1:
        _fill(work[:n], 0)
        for l in range(labels):
            _add_exp_difference(work[:n], x[l, :n], total[:n])
        _add_log(total[:n], work[:n])


@njit(fastmath=FLAGS)
def _invert(domain, total, count):
    """What normalises: count / total, or −ln; neutral where nothing is possible."""
    if len(domain) == 0:
        for k in range(total.size):
            total[k] = count / total[k] if total[k] > 0 else total[k]
    else:
        for k in range(total.size):
            total[k] = -total[k] if total[k] > -np.inf else count - count


@njit(fastmath=FLAGS)
def _normalise(domain, x, labels, n, count, lanes):
    """To mean one (``EXP``), sum one (``LOG``) or maximum one (``MAX``)."""
    _total(domain, x, labels, n, lanes[0], lanes[1])
    _invert(domain, lanes[0, :n], count)
    for l in range(labels):
        _include(domain, x[l, :n], lanes[0, :n])


@njit(fastmath=FLAGS)
def _mix(domain, new, old, keep, take):
    """new^take · old^keep."""
    if len(domain) == 0:
        for k in range(new.size):
            new[k] = exp(take * log(new[k]) + keep * log(old[k]))
    else:
        for k in range(new.size):
            new[k] = take * new[k] + keep * old[k]


@njit(fastmath=FLAGS)
def _compare(domain, old, new, change):
    if len(domain) == 0:
        for k in range(new.size):
            d = abs(new[k] - old[k])
            change[k] = d if d > change[k] else change[k]
    else:
        for k in range(new.size):
            d = abs(exp(new[k]) - exp(old[k]))
            change[k] = d if d > change[k] else change[k]


@njit(fastmath=FLAGS)
def _commit(domain, x, first, n, M, direction, b, h, w, settings, lanes, check):
    """Normalise, damp and store messages that arrive at row h, lane 0 of them at column w."""
    labels = M.shape[3]
    for damp in range(2 if settings[1] > 0 else 1):
        if damp:
            for l in range(labels):
                _mix(domain, x[l, first:n], M[direction, b, h, l, w + first : w + n], settings[1], settings[2])
        _normalise(domain, x, labels, n, settings[0], lanes)
    for l in range(labels):
        old = M[direction, b, h, l, w + first : w + n]
        if check:
            _compare(domain, old, x[l, first:n], lanes[2, first:n])
        _copy(old, x[l, first:n])


# Beliefs --------------------------------------------------------------------------------------------------------------


@njit(fastmath={"contract", "reassoc"})
def _dot(a, b):
    total = a[0] * 0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@njit(fastmath=FLAGS)
def _account(z, first, n, sign, bethe):
    """Add ``sign · ln Z`` of each lane to ``bethe[0]``; ``bethe[1]`` counts the lanes where nothing is possible."""
    for k in range(first, n):
        if z[k] > -np.inf:
            bethe[0] += sign * z[k]
        else:
            bethe[1] += 1


@njit(fastmath=FLAGS)
def _logarithm(domain, total):
    if len(domain) == 0:
        for k in range(total.size):
            total[k] = log(total[k])


@njit(fastmath=FLAGS)
def _node_beliefs(domain, u, M, b, h, w, n, out, lanes, bethe, beliefs):
    """Beliefs of n nodes into ``beliefs [H, W, L]``, and their (1 − degree) ln Z_i into ``bethe``."""
    labels, height, width = u.shape[0], beliefs.shape[0], beliefs.shape[1]
    x = out[0]
    for l in range(labels):
        _copy(x[l, :n], u[l, w : w + n])
        for direction in range(4):
            _include(domain, x[l, :n], M[direction, b, h, l, w : w + n])
    _total(domain, x, labels, n, lanes[0], lanes[1])
    _copy(lanes[1, :n], lanes[0, :n])
    _logarithm(domain, lanes[1, :n])
    for k in range(n):
        degree = (h > 0) + (h < height - 1) + (w + k > 0) + (w + k < width - 1)
        _account(lanes[1], k, k + 1, 1.0 - degree, bethe)
    _invert(domain, lanes[0, :n], u.dtype.type(1))
    for l in range(labels):
        _include(domain, x[l, :n], lanes[0, :n])
        if len(domain) > 0:
            for k in range(n):
                x[l, k] = exp(x[l, k])
        for k in range(n):
            beliefs[h, w + k, l] = x[l, k]


@njit(fastmath=FLAGS)
def _edge_beliefs(domain, edges, entry, row, column, ends, side, first, n, grad, out, lanes, bethe, sums):
    """ln Z_e into ``bethe``; where the tables of ``sums`` are not empty, ``grad`` times the beliefs into them.

    ``sums``: ``counts [L, L]`` summed over edges, ``weights [rows, columns]`` times the table, summed over labels, and
    ``beliefs [entries, rows, columns, L, L]`` themselves.
    """
    counts, weights, beliefs = sums
    _kind, square, weight, _, _ = edges
    labels = square.shape[2]
    a, later, x, z = ends[2 * side], ends[2 * side + 1], out[0], lanes[1]
    for l in range(labels):
        _include(domain, x[l, first:n], later[l, first:n])
    _total(domain, x, labels, n, lanes[5], z)
    _copy(z[:n], lanes[5, :n])
    _logarithm(domain, z[first:n])
    _account(z, first, n, 1.0, bethe)
    if counts.size == 0 and weights.size == 0 and beliefs.size == 0:
        return
    _invert(domain, lanes[5, first:n], grad[0] * 0 + 1)
    t, ones = lanes[3, first:n], lanes[4]
    _fill(ones, 1)
    if weights.size:
        _copy(ones[first:n], weight[entry, row, column + first : column + n])
        _fill(weights[row, column + first : column + n], 0)
    for i in range(labels):
        for j in range(labels):
            _pair(domain, edges, entry, row, column + first, i, j, t)
            _include(domain, t, a[i, first:n])
            _include(domain, t, later[j, first:n])
            _include(domain, t, lanes[5, first:n])
            if len(domain) > 0:
                for k in range(t.size):
                    t[k] = exp(t[k])
            if counts.size:
                counts[i, j] += grad[0] * _dot(t, ones[first:n])
            if weights.size and grad[1 + i * labels + j] > -np.inf:
                _scaled_add(weights[row, column + first : column + n], t, grad[0] * grad[1 + i * labels + j])
            if beliefs.size:
                for k in range(t.size):
                    beliefs[entry, row, column + first + k, i, j] += grad[0] * t[k]


@njit(fastmath=FLAGS)
def _scaled_add(out, a, scale):
    for k in range(out.size):
        out[k] += scale * a[k]


# Sweeps ---------------------------------------------------------------------------------------------------------------


@njit(fastmath=FLAGS)
def _sweep(
    domain, node, which, edges, M, b, top, bottom, settings, check, above, below, collect, grad, bethe, beliefs, sums
):
    """One flooding iteration of rows top … bottom − 1 of image b; the residual.

    The edges into row ``top`` wait: what it sends up is left in ``above [L, columns]``, and what row ``bottom − 1``
    sends down in ``below``. With ``top == bottom`` it is those edges that are served, and nothing else. With
    ``collect`` the messages stay as they are, and beliefs are collected.
    """
    labels, width = node.shape[2], node.shape[3]
    padded = (labels + 3) // 4 * 4
    ends = np.zeros((5, padded, TILE + BLOCK), node.dtype)  # sent right, left, down (by the row above), up, down
    out = np.zeros((4, padded, TILE + BLOCK), node.dtype)
    lanes = np.zeros((6, TILE + BLOCK), node.dtype)
    joins = top == bottom
    u = node[which[0, b]]
    for h in range(top, bottom + joins):
        for w in range(0, width, TILE):
            n = min(TILE, width - w)
            if joins:
                for l in range(labels):
                    _copy(ends[3, l, :n], above[l, w : w + n])
            else:
                for l in range(labels):
                    ends[0, l, 0] = ends[0, l, TILE]
                _gather(domain, u[h], M, b, h, w, n, ends)
                if collect:
                    _node_beliefs(domain, u[h], M, b, h, w, n, out, lanes, bethe, beliefs[b])
            for l in range(labels):
                _copy(ends[2, l, :n], below[l, w : w + n])
                if not joins:
                    _copy(below[l, w : w + n], ends[4, l, :n])
                    if h == top:
                        _copy(above[l, w : w + n], ends[3, l, :n])
            for side in range(1 if joins else 0, 2 if joins or h > top else 1):
                first = 1 if side == 0 and w == 0 else 0
                row, column = (h - 1, w) if side else (h, w - 1)
                entry = which[1 + side, b]
                _transfer(domain, edges[side], entry, row, column, ends, side, first, n, out, lanes)
                if collect:
                    _edge_beliefs(
                        domain,
                        edges[side],
                        entry,
                        row,
                        column,
                        ends,
                        side,
                        first,
                        n,
                        grad[side],
                        out,
                        lanes,
                        bethe,
                        sums[side],
                    )
                else:
                    for end in range(2):
                        at_row, at_column = (row, column) if end else (h, w)
                        _commit(
                            domain, out[end], first, n, M, 2 * side + end, b, at_row, at_column, settings, lanes, check
                        )
    return lanes[2].max()


@njit(fastmath=FLAGS)
def _settle(b, step, limit, settings, changes, iterations, residual, active):
    """Note an iteration of image b, and whether it was the last one it needs."""
    iterations[b] = step + 1
    if settings[3] > 0 or step == limit - 1:
        residual[b] = changes[b, 0]
        for part in range(1, changes.shape[1]):
            residual[b] = max(residual[b], changes[b, part])
        residual[b] /= settings[0]
        active[b] = settings[3] == 0 or residual[b] > settings[3]


@njit(parallel=True, cache=True, fastmath=FLAGS)
def run(
    domain, node, which, across, down, M, settings, limit, bands, iterations, residual,
    collect, grad_across, grad_down, bethe, beliefs, sums_across, sums_down,
):  # fmt: skip
    """Iterate each image until its residual is within the tolerance or its ``limit`` is reached; then collect.

    Args:
        domain: ``EXP``, ``LOG`` or ``MAX``.
        node: ``[entries, H, L, W]``, largest of each pixel 1 (in logarithms 0), in the domain.
        which: ``int64 [3, B]``.
        across: the horizontal edges, ``(kind, square [entries, 2, L, L rounded up to 4] (transposed the second time),
            weight [entries, rows, columns], full [entries, rows, L, L, columns], (least, greatest))``.
        down: the vertical edges likewise.
        M: messages ``[4, B, H, L, W]``, updated.
        settings: the number of labels (1 in logarithms), damping, 1 − damping, tolerance.
        limit: iterations per image, ``int64 [B]``.
        bands: how many bands of rows to cut an image into.
        iterations: ``int64 [B]``, written.
        residual: ``[B]``, written.
        collect: whether to compute what follows.
        grad_across: ``[B, 1 + L·L]``: what beliefs are multiplied with, then the table that weights scale.
        grad_down: likewise.
        bethe: float64 ``[B, 2 bands, 2]``, added to.
        beliefs: ``[B, H, W, L]``, written.
        sums_across: counts ``[B, 2 bands, L, L]``, weights ``[B, rows, columns]`` and beliefs
            ``[entries, rows, columns, L, L]``, added to where not empty.
        sums_down: likewise.
    """
    images, height, labels = which.shape[1], node.shape[1], node.shape[2]
    columns = (node.shape[3] + TILE - 1) // TILE * TILE + BLOCK
    waiting = np.zeros((2, images, bands, labels, columns), node.dtype)
    changes = np.zeros((images, 2 * bands), node.dtype)
    active = np.ones(images, np.bool_)
    # with one band an image never waits for another: it runs through all its iterations in one task
    rounds = (1 if bands == 1 else limit.max()) if limit.max() > 0 else 0
    for turn in range(rounds + collect):
        last = turn == rounds
        for phase in range(1 if bands == 1 else 2):
            for task in prange(images * bands):
                b, band = task // bands, task % bands
                part, top, bottom = 2 * band + phase, band * height // bands, (band + 1) * height // bands
                for repeat in range(limit[b] if bands == 1 and not last else 1):
                    step = turn + repeat
                    if (last or (active[b] and step < limit[b])) and (phase == 0 or band > 0):
                        changes[b, part] = _sweep(
                            domain, node, which, (across, down), M, b, top, top if phase else bottom, settings,
                            settings[3] > 0 or step == limit[b] - 1, waiting[0, b, band], waiting[1, b, band - phase],
                            last, (grad_across[b], grad_down[b]), bethe[b, part], beliefs,
                            ((sums_across[0][b, part], sums_across[1][b], sums_across[2]),
                             (sums_down[0][b, part], sums_down[1][b], sums_down[2])),
                        )  # fmt: skip
                        if bands == 1 and not last:
                            _settle(b, step, limit[b], settings, changes, iterations, residual, active)
        if bands > 1 and not last:
            for b in range(images):
                if active[b] and turn < limit[b]:
                    _settle(b, turn, limit[b], settings, changes, iterations, residual, active)
