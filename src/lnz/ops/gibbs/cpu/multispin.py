"""Binary 4-neighbour grids whose edges all score alike: 32 nodes per word (multi-spin coding, Jacobs and Rebbi 1981).

The checkerboard colour c of row r is the nodes of columns 2k + s, s = (r + c) mod 2; bit k mod 32 of word k div 32 is
node k of that row. Words are stored ``[colour, r mod 2, 1 + word, 1 + r div 2]`` with a margin of zeros all around, so
that a run of rows lies in successive words and all four neighbours of a word's nodes are whole words, or words shifted
by one bit. A node's probability of label 1 depends on how many neighbours it has and how many of them have label 1,
which bitwise additions count; "uniform number < probability" is decided bit by bit from the top, for the nodes of
sixteen words in registers, until it is decided for each: about 12 random bits per node.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lnz.ops.jit.cpu import helper, kernel
from lnz.ops.jit.cpu.memory import lane_numbers, load, store
from lnz.ops.jit.cpu.philox import U32, U64, philox4x32
from lnz.ops.jit.cpu.vectors import LANES, all_lanes, astype, broadcast

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


@helper(inline="always")
def _polynomial(c, c1, c2, c12, one, two):
    """c + c1 · one + c2 · two + c12 · one · two over {0, 1}, bit by bit."""
    return c ^ (one & c1) ^ (two & (c2 ^ (one & c12)))


@helper(inline="always")
def _merge(a, b, where):
    """Bits of ``b`` where ``where`` has ones, of ``a`` elsewhere."""
    return a ^ (where & (a ^ b))


# Functions that take the array have no branches: Numba would count references to it in each.
@helper()
def _inside(c, digit, one, two, four):
    """A binary digit of the probability of label 1, of nodes with 4 neighbours."""
    return _polynomial(c[digit, 0], c[digit, 1], c[digit, 2], c[digit, 3], one, two) ^ (four & c[digit, 4])


@helper()
def _at_border(c, digit, one, two, four, lacks_one, lacks_two):
    """The same where nodes may have 3 neighbours, or 2."""
    bits = _inside(c, digit, one, two, four)
    bits = _merge(bits, _polynomial(c[digit, 5], c[digit, 6], c[digit, 7], c[digit, 8], one, two), lacks_one)
    return _merge(bits, _polynomial(c[digit, 9], c[digit, 10], c[digit, 11], _0, one, two), lacks_two)


@helper(inline="always")
def _decide(bits, random, open_, less):
    """One more digit of "random < probability" where that is open; what is open then, and what is less."""
    differ = bits ^ random
    return open_ & (differ ^ _ALL), less | (open_ & bits & differ)


class Spins(NamedTuple):
    """What one batch entry is about, in words ``uint32``.

    Attributes:
        free: ``[2, 2, 2 + W', 2 + H']``; the nodes that may change.
        missing: ``[2, 2, 2, 2 + W', 2 + H']``; the nodes that lack one neighbour, and those that lack two.
        digits: ``[32, 12]``, all ones or zero: for the binary digits of the probability of label 1, from the top, the
            coefficients of a polynomial in the digits of the number of neighbours with label 1. Of nodes with 4
            neighbours 1, ones, twos, ones · twos, fours; with 3 the same but the last; with 2 but the last two.
    """

    free: Any
    missing: Any
    digits: Any


@kernel()
def sweep(spins, states, key, band):
    """Redraw one colour after the other in a band of rows.

    Args:
        spins: of the batch entry.
        states: ``uint32 [images, 2, 2, 2 + W', 2 + H']``.
        key: ``uint64 [2]``, 32 bits each.
        band: of rows.
    """
    free, missing, c = spins.free, spins.missing, spins.digits
    begin, end, stride, first, steps, low, high, up, down = band
    k0, k1 = key[0], key[1]
    columns, height = states.shape[3] - 2, states.shape[4]
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
                        n = bottom - q
                        same = load(row, (v, q), n, _0)
                        if s == 0:
                            side = (same << _1) | (load(row, (v - 1, q), n, _0) >> _31)
                        else:
                            side = (same >> _1) | (load(row, (v + 1, q), n, _0) << _31)
                        over = load(other, (v, q + above), n, _0)
                        under = load(other, (v, q + above + 1), n, _0)
                        # the number of neighbours of label 1 in binary: a full adder
                        ones_a, twos_a, ones_b, twos_b = side ^ same, side & same, over ^ under, over & under
                        one, two, four = ones_a ^ ones_b, (twos_a ^ twos_b) | (ones_a & ones_b), twos_a & twos_b
                        lacks_one = load(missing, (0, colour, parity, v, q), n, _0)
                        lacks_two = load(missing, (1, colour, parity, v, q), n, _0)
                        border = not all_lanes((lacks_one | lacks_two) == _0)
                        change = load(may, (v, q), n, _0)
                        open_, less, digit = change, change & _0, 0
                        number = astype(lane_numbers() + (v * height + q), U64)
                        while digit < 32 and not all_lanes(open_ == _0):
                            place, chain, step = (
                                broadcast(U64(digit + parity)),
                                broadcast(U64(image)),
                                broadcast(U64(first + t)),
                            )
                            w0, w1, w2, w3 = philox4x32(number, place, chain, step, k0, k1)
                            if border:
                                b0 = _at_border(c, digit, one, two, four, lacks_one, lacks_two)
                                b1 = _at_border(c, digit + 1, one, two, four, lacks_one, lacks_two)
                                b2 = _at_border(c, digit + 2, one, two, four, lacks_one, lacks_two)
                                b3 = _at_border(c, digit + 3, one, two, four, lacks_one, lacks_two)
                            else:
                                b0 = _inside(c, digit, one, two, four)
                                b1 = _inside(c, digit + 1, one, two, four)
                                b2 = _inside(c, digit + 2, one, two, four)
                                b3 = _inside(c, digit + 3, one, two, four)
                            open_, less = _decide(b0, w0, open_, less)
                            open_, less = _decide(b1, w1, open_, less)
                            open_, less = _decide(b2, w2, open_, less)
                            open_, less = _decide(b3, w3, open_, less)
                            digit += 4
                        store(_merge(load(own, (v, q), n, _0), less, change), own, (v, q), n)
