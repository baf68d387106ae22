"""Binary 4-neighbour grids whose edges all score alike: 32 nodes per word (multi-spin coding, Jacobs and Rebbi 1981).

The checkerboard colour c of row r is the nodes of columns 2k + s, s = (r + c) mod 2; bit k mod 32 of word k div 32 is
node k of that row. Words are stored ``[colour, r mod 2, 1 + word, 1 + r div 2]`` with a margin of zeros all around, so
that a run of rows lies in successive words and all four neighbours of a word's nodes are whole words, or words shifted
by one bit. A node's probability of label 1 depends on how many neighbours it has and how many of them have label 1,
which bitwise additions count; "uniform number < probability" is decided bit by bit from the top, for all nodes of many
words together, until it is decided for each: about 12 random bits per node.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu import kernel
from lnz.ops.philox.cpu import U32, U64, fill_row

LANES = 64  # words worked on at a time
CLASSES = 12  # 4 neighbours, none to 4 of them with label 1; then 3 neighbours; then 2
_0, _1, _31, _ALL = U32(0), U32(1), U32(31), U32(0xFFFFFFFF)


@kernel()
def pack(labels, words):
    """The bits of ``labels [H, W]`` (0 or not) into ``words [2, 2, 2 + W', 2 + H']``, all zero before."""
    for r in range(labels.shape[0]):
        for colour in range(2):
            s = (r + colour) & 1
            line = words[colour, r & 1, :, 1 + (r >> 1)]
            own = labels[r, s::2]
            for first in range(0, own.size, 32):
                word = _0
                for bit in range(min(32, own.size - first)):
                    word = U32(word | U32(U32(own[first + bit] != 0) << U32(bit)))
                line[1 + (first >> 5)] = word


@kernel()
def unpack(words, labels):
    """The inverse of :func:`pack`."""
    for r in range(labels.shape[0]):
        for colour in range(2):
            s = (r + colour) & 1
            line = words[colour, r & 1, :, 1 + (r >> 1)]
            for k in range((labels.shape[1] + 1 - s) // 2):
                labels[r, 2 * k + s] = U32(line[1 + (k >> 5)] >> U32(k & 31)) & _1


@njit
def _left_of(out, same, before):
    for j in range(out.size):
        out[j] = U32(U32(same[j] << _1) | U32(before[j] >> _31))


@njit
def _right_of(out, same, after):
    for j in range(out.size):
        out[j] = U32(U32(same[j] >> _1) | U32(after[j] << _31))


@njit
def _count(side, same, up, down, ones, twos, fours):
    """The number of neighbours of label 1 in binary, one bit per word: a full adder."""
    for j in range(side.size):
        ones_a, twos_a = U32(side[j] ^ same[j]), U32(side[j] & same[j])
        ones_b, twos_b = U32(up[j] ^ down[j]), U32(up[j] & down[j])
        ones[j], fours[j] = U32(ones_a ^ ones_b), U32(twos_a & twos_b)
        twos[j] = U32(U32(twos_a ^ twos_b) | U32(ones_a & ones_b))


@njit
def _any(missing_one, missing_two):
    some = _0
    for j in range(missing_one.size):
        some = U32(some | U32(missing_one[j] | missing_two[j]))
    return some != _0


@njit(inline="always")
def _select(a, b, where):
    """Bits of ``b`` where ``where`` has ones, of ``a`` elsewhere."""
    return U32(a ^ U32(where & U32(a ^ b)))


@njit
def _decide(ones, twos, fours, chance, random, open_, less):
    """Four more bits of "random < chance" where that is still open; what is open then. Every node has 4 neighbours."""
    left = _0
    for j in range(LANES):
        one, two, four, undecided, below = ones[j], twos[j], fours[j], open_[j], less[j]
        for p in range(4):
            few, more = _select(chance[p, 0], chance[p, 1], one), _select(chance[p, 2], chance[p, 3], one)
            bit = _select(_select(few, more, two), chance[p, 4], four)
            below = U32(below | U32(undecided & U32(bit & ~random[p, j])))
            undecided = U32(undecided & ~U32(bit ^ random[p, j]))
        less[j], open_[j] = below, undecided
        left = U32(left | undecided)
    return left


@njit
def _decide_at_border(ones, twos, fours, missing_one, missing_two, chance, random, open_, less):
    """The same where nodes may have 3 neighbours, or 2."""
    left = _0
    for j in range(missing_one.size):
        one, two, undecided, below = ones[j], twos[j], open_[j], less[j]
        for p in range(4):
            few, more = _select(chance[p, 0], chance[p, 1], one), _select(chance[p, 2], chance[p, 3], one)
            bit = _select(_select(few, more, two), chance[p, 4], fours[j])
            few, more = _select(chance[p, 5], chance[p, 6], one), _select(chance[p, 7], chance[p, 8], one)
            bit = _select(bit, _select(few, more, two), missing_one[j])
            few = _select(chance[p, 9], chance[p, 10], one)
            bit = _select(bit, _select(few, chance[p, 11], two), missing_two[j])
            below = U32(below | U32(undecided & U32(bit & ~random[p, j])))
            undecided = U32(undecided & ~U32(bit ^ random[p, j]))
        less[j], open_[j] = below, undecided
        left = U32(left | undecided)
    return left


@njit
def _store(own, less, free):
    for j in range(own.size):
        own[j] = U32(U32(own[j] & ~free[j]) | U32(less[j] & free[j]))


@njit
def _begin(open_, less, free):
    for j in range(LANES):
        open_[j] = less[j] = _0
    for j in range(free.size):
        open_[j] = free[j]


@kernel()
def sweep(states, free, missing, chances, key, begin, end, stride, first, steps, low, high, up, down):
    """Redraw one colour after the other in a band of rows.

    Args:
        states: ``uint32 [images, 2, 2, 2 + W', 2 + H']``.
        free: ``uint32 [2, …]``; the nodes that may change.
        missing: ``uint32 [2, …]``; the nodes that lack one neighbour, and those that lack two.
        chances: ``uint32 [12]``, 2³² times the probability of label 1, by class.
        key: ``uint64 [2]``, 32 bits each.
        begin: the first image; the number of an image is also that of its random numbers.
        end: where images end.
        stride: how many images lie from one to the next.
        first: the number of the first half-sweep; even ones draw colour 0.
        steps: how many half-sweeps.
        low: the first row.
        high: the row after the last.
        up: how many rows ``low`` moves per half-sweep.
        down: likewise for ``high``.
    """
    k0, k1 = key[0], key[1]
    columns, height = states.shape[3] - 2, states.shape[4]
    bits = np.empty((32, CLASSES), np.uint32)
    for plane in range(32):
        for c in range(CLASSES):
            bits[plane, c] = _ALL if U32(chances[c] >> U32(31 - plane)) & _1 else _0
    random = np.zeros((4, LANES), np.uint32)
    work = np.zeros((6, LANES), np.uint32)
    side, ones, twos, fours, open_, less = work[0], work[1], work[2], work[3], work[4], work[5]
    for image in range(begin, end, stride):
        words = states[image]
        for t in range(steps):
            colour = (first + t) & 1
            for parity in range(2):
                s = (colour + parity) & 1
                top = 1 + (low + t * up + 1 - parity) // 2
                bottom = 1 + (high + t * down + 1 - parity) // 2
                own, may = words[colour, parity], free[colour, parity]
                row, other = words[1 - colour, parity], words[1 - colour, 1 - parity]
                above = parity - 1  # where the row above lies among those of the other parity, less where this one lies
                for v in range(1, columns + 1):
                    for q in range(top, bottom, LANES):
                        n = min(LANES, bottom - q)
                        if s == 0:
                            _left_of(side[:n], row[v, q : q + n], row[v - 1, q : q + n])
                        else:
                            _right_of(side[:n], row[v, q : q + n], row[v + 1, q : q + n])
                        _count(
                            side[:n], row[v, q : q + n], other[v, q + above : q + above + n],
                            other[v, q + above + 1 : q + above + 1 + n], ones[:n], twos[:n], fours[:n],
                        )  # fmt: skip
                        one, two = missing[0, colour, parity, v, q : q + n], missing[1, colour, parity, v, q : q + n]
                        border = _any(one, two)
                        _begin(open_, less, may[v, q : q + n])
                        plane, left = 0, _1
                        while left != _0 and plane < 32:
                            fill_row(
                                random, U64(v * height + q), U64(plane + parity), U64(image), U64(first + t), k0, k1
                            )
                            chance = bits[plane : plane + 4]
                            if border:
                                left = _decide_at_border(ones, twos, fours, one, two, chance, random, open_, less)
                            else:
                                left = _decide(ones, twos, fours, chance, random, open_, less)
                            plane += 4
                        _store(own[v, q : q + n], less, may[v, q : q + n])
