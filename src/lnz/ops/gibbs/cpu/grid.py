"""4-neighbour grids with any number of labels, one checkerboard colour of a row at a time, label-major.

All loops run along the nodes of a tile: the weight of label l given the neighbours, sums of weights up to each label,
and how many of these sums a uniform number times the last one passes. In the domain ``EXP`` scores come as their
exponentials and are multiplied, in ``LOG`` they are added, and exponentials taken below the largest.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.extending import overload

from lnz.ops.jit.cpu import kernel
from lnz.ops.math.cpu import exp
from lnz.ops.philox.cpu import U64, philox4x32, uniform24, uniform53

TILE = 128  # nodes worked on at a time
STEP = 16  # loops run over multiples of this, so that no scalar tail is left
FLAGS = {"contract"}
EXP: tuple[()] = ()  # a domain is the length of a tuple, which the compiler knows
LOG = (0,)


def uniforms(out, first, row, chain, step, k0, k1):
    """A uniform number per node of the tile: one word each in float32, two in float64."""
    raise NotImplementedError("only for use inside compiled functions")


@overload(uniforms)
def _uniforms(out, first, row, chain, step, k0, k1):
    if out.dtype.bitwidth == 32:

        def of_24_bits(out, first, row, chain, step, k0, k1):
            quarter = TILE // 4
            for j in range(quarter):
                w0, w1, w2, w3 = philox4x32(first + U64(j), row, chain, step, k0, k1)
                out[j], out[quarter + j] = uniform24(w0), uniform24(w1)
                out[2 * quarter + j], out[3 * quarter + j] = uniform24(w2), uniform24(w3)

        return of_24_bits

    def of_53_bits(out, first, row, chain, step, k0, k1):
        half = TILE // 2
        for j in range(half):
            w0, w1, w2, w3 = philox4x32(first + U64(j), row, chain, step, k0, k1)
            out[j], out[half + j] = uniform53(w0, w1), uniform53(w2, w3)

    return of_53_bits


@njit(fastmath=FLAGS)
def _copy(out, a):
    for k in range(out.size):
        out[k] = a[k]


@njit(fastmath=FLAGS)
def _equal(domain, out, label, before, after, gain_before, gain_after):
    """Include what is gained where the neighbour before, and the one after, have this label."""
    if len(domain) == 0:
        one = out.dtype.type(1)
        for k in range(out.size):
            gain = gain_before[k] if before[k] == label else one
            out[k] *= gain * (gain_after[k] if after[k] == label else one)
    else:
        zero = out.dtype.type(0)
        for k in range(out.size):
            gain = gain_before[k] if before[k] == label else zero
            out[k] += gain + (gain_after[k] if after[k] == label else zero)


@njit(fastmath=FLAGS)
def _larger(out, a):
    for k in range(out.size):
        out[k] = max(a[k], out[k])


@njit(fastmath=FLAGS)
def _accumulate(domain, scores, top, beta, total):
    if len(domain) == 0:
        for k in range(total.size):
            total[k] += scores[k]
            scores[k] = total[k]
    else:
        for k in range(total.size):
            total[k] += exp((scores[k] - top[k]) * beta)
            scores[k] = total[k]


@njit(fastmath=FLAGS)
def _draw(uniform, total):
    for k in range(total.size):
        uniform[k] *= total[k]


@njit(fastmath=FLAGS)
def _pass(count, sums, mark):
    for k in range(count.size):
        count[k] += np.int32(1) if sums[k] <= mark[k] else np.int32(0)


@njit(fastmath=FLAGS)
def _table(domain, out, labels, n, weight, table, edge, ahead):
    """Include the scores of one edge per node: of that to the next node if ``ahead``, to the one before if not."""
    several = table.shape[0] > 1
    for k in range(n):
        other = labels[k]
        if other >= 0:
            f = edge + 2 * k if several else 0
            for l in range(table.shape[1]):
                score = table[f, l, other] if ahead else table[f, other, l]
                if len(domain) == 0:
                    out[l, k] *= score
                else:
                    out[l, k] += weight[k] * score


@njit(fastmath=FLAGS)
def _neighbours(labels, weights, X, r, s, first, n, m, across, down, width):
    """The four neighbours' labels (−1 beyond the border) and the weights of the edges to them."""
    one = weights.dtype.type(1)
    for k in range(n):
        w = s + 2 * (first + k)
        labels[0, k], labels[1, k] = X[r + 1, w], X[r + 1, w + 2]
        labels[2, k], labels[3, k] = X[r, w + 1], X[r + 2, w + 1]
    for k in range(n, m):
        for d in range(4):
            labels[d, k] = -1
    for d in range(4):
        scale = across if d < 2 else down
        if scale.size == 1:
            for k in range(m):
                weights[d, k] = scale[0]
        else:
            for k in range(n):
                w = s + 2 * (first + k)
                edge = r * (width - 1) + w - 1 + d if d < 2 else (r - 3 + d) * width + w
                weights[d, k] = scale[edge] if labels[d, k] >= 0 else one


@kernel(fastmath=FLAGS)
def sweep(
    domain, states, free, node, across, down, beta, key, begin, end, stride, first_step, steps, low, high, up, down_by
):
    """Redraw one colour after the other in a band of rows; rows as in :func:`lnz.ops.gibbs.cpu.spins.sweep`.

    Args:
        domain: ``EXP`` or ``LOG``.
        states: ``int8 or int32 [images, H + 2, W + 2]``, the labels with −1 around.
        free: ``bool [H, W]``, the nodes that may change, or ``[0, 0]`` where all may.
        node: ``[H or 1, 2, L, K]``: the scores of row r's columns of either parity, K a multiple of ``STEP``.
        across: of the horizontal edges ``(whether labels only matter by being equal, weight [E or 1],
            table [E or 1, L, L])``; in the first case the weight is what equal labels gain, and the table is not read;
            otherwise it scales the table, in ``LOG``, and ``EXP`` has none.
        down: of the vertical edges.
        beta: ``[1]``, one over the temperature; not read in ``EXP``.
        key: ``uint64 [2]``.
        begin: the first image; the number of an image is also that of its random numbers.
        end: where images end.
        stride: how many images lie from one to the next.
        first_step: the number of the first half-sweep.
        steps: how many half-sweeps.
        low: the first row.
        high: the row after the last.
        up: how many rows ``low`` moves per half-sweep.
        down_by: likewise for ``high``.
    """
    labels, width = node.shape[2], states.shape[2] - 2
    k0, k1, b = key[0], key[1], beta[0]
    scores = np.zeros((labels, TILE), node.dtype)
    weights = np.zeros((4, TILE), node.dtype)
    lanes = np.zeros((3, TILE), node.dtype)
    others = np.zeros((4, TILE), np.int32)
    count = np.zeros(TILE, np.int32)
    top, total, uniform = lanes[0], lanes[1], lanes[2]
    for image in range(begin, end, stride):
        X = states[image]
        for t in range(steps):
            for r in range(low + t * up, high + t * down_by):
                s = (r + first_step + t) & 1
                u = node[r if node.shape[0] > 1 else 0, s]
                for first in range(0, (width + 1 - s) // 2, TILE):
                    n = min(TILE, (width + 1 - s) // 2 - first)
                    m = (n + STEP - 1) // STEP * STEP
                    _neighbours(others, weights, X, r, s, first, n, m, across[1], down[1], width)
                    for l in range(labels):
                        _copy(scores[l, :m], u[l, first : first + m])
                    for side in range(2):
                        equal, _, table = across if side == 0 else down
                        if equal:
                            for l in range(labels):
                                _equal(
                                    domain, scores[l, :m], np.int32(l), others[2 * side, :m], others[2 * side + 1, :m],
                                    weights[2 * side, :m], weights[2 * side + 1, :m],
                                )  # fmt: skip
                        else:
                            w = s + 2 * first
                            before = r * (width - 1) + w - 1 if side == 0 else (r - 1) * width + w
                            after = r * (width - 1) + w if side == 0 else r * width + w
                            _table(domain, scores, others[2 * side], n, weights[2 * side], table, before, False)
                            _table(domain, scores, others[2 * side + 1], n, weights[2 * side + 1], table, after, True)
                    if len(domain):
                        _copy(top[:m], scores[0, :m])
                        for l in range(1, labels):
                            _larger(top[:m], scores[l, :m])
                    total[:m] = 0
                    for l in range(labels):
                        _accumulate(domain, scores[l, :m], top[:m], b, total[:m])
                    uniforms(uniform, U64(first), U64(r), U64(image), U64(first_step + t), k0, k1)
                    _draw(uniform[:m], total[:m])
                    count[:m] = 0
                    for l in range(labels):
                        _pass(count[:m], scores[l, :m], uniform[:m])
                    for k in range(n):
                        w = s + 2 * (first + k)
                        if count[k] < labels and (free.size == 0 or free[r, w]):
                            X[r + 1, w + 1] = count[k]
