"""Numbers with an exponent each, eight side by side: m · 2^e, m and e in float64.

A sum of paths may pass e^±100 000 while its neighbour in the lattice stays at 1; no common scale holds both. Here every
number has its own: e is a whole number (exact up to 2⁵³), m is positive, and zero is e = −∞. A sum takes the larger
exponent and shifts the other summand, by a power of two that is put together from bits, so that it costs neither exp
nor log. What is lost is below 2^−800 of the sum itself, whatever the scores are: no range needs to be guarded.

m is only brought back to [1, 2) every :data:`RENORMALISED` frames (:func:`renormalise`): a step multiplies it by
something in [0.7, 4.3].
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.memory import load, store
from lnz.ops.jit.cpu.vectors import bits_as, maximum, select

WIDE = 8
RENORMALISED = 64
FLAGS = {"contract"}

_MANTISSA, _BIAS = 52, 1023
_ROUNDING = 1.5 * 2.0**_MANTISSA  # adding it leaves the integer in the low bits
_INTEGER = 2.0**_MANTISSA  # whose low bits are 0: or-ing an integer into them adds it
_SHIFT, _FIELD = np.uint64(_MANTISSA), np.uint64(0x433 << _MANTISSA)
_FRACTION, _ONE = np.uint64((1 << _MANTISSA) - 1), np.uint64(_BIAS << _MANTISSA)

_LOG2E, _LN2_HEAD, _LN2_TAIL = 1.0 / math.log(2.0), 6.93147180369123816e-1, 1.90821492927058770e-10
c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12 = (1.0 / math.factorial(n) for n in range(1, 13))


@njit
def number(rows, at, line):
    """Mantissas from ``rows[at]`` on, and exponents a line further."""
    return load(rows, at, width=WIDE), load(rows, at + line, width=WIDE)


@njit
def store_number(x, rows, at, line):
    """The inverse of :func:`number`."""
    store(x[0], rows, at)
    store(x[1], rows, at + line)


@njit(fastmath=FLAGS)
def power(e):
    """2^e for e < 1024; 0 for e ≤ −1023, and where e is −∞ − (−∞)."""
    return bits_as(bits_as(maximum(e, -1023.0) + (_ROUNDING + _BIAS), np.uint64) << _SHIFT, np.float64)


@njit
def choose(where, x, y):
    return select(where, x[0], y[0]), select(where, x[1], y[1])


@njit(fastmath=FLAGS)
def plus(x, y):
    less = x[1] < y[1]
    (high, top), (low, bottom) = choose(less, y, x), choose(less, x, y)
    return high + low * power(bottom - top), top


@njit(fastmath=FLAGS)
def times(x, y):
    return x[0] * y[0], x[1] + y[1]


@njit(fastmath=FLAGS)
def shares(x, y):
    """x / (x + y) and y / (x + y), plain numbers; of zeros, something finite."""
    less = x[1] < y[1]
    (high, top), (low, bottom) = choose(less, y, x), choose(less, x, y)
    low = low * power(bottom - top)
    inverse = 1.0 / (high + low)
    high, low = high * inverse, low * inverse
    return select(less, low, high), select(less, high, low)


@njit(fastmath=FLAGS)
def renormalise(rows, at, line):
    """Bring the numbers of :func:`number` back to m in [1, 2)."""
    m, e = number(rows, at, line)
    bits = bits_as(m, np.uint64)
    exponent = bits_as((bits >> _SHIFT) | _FIELD, np.float64) - (_INTEGER + _BIAS)
    store_number((bits_as((bits & _FRACTION) | _ONE, np.float64), e + exponent), rows, at, line)


@njit
def whole(m, e):
    """ln (m · 2^e)."""
    return math.log(m) + e * math.log(2.0)


@njit(fastmath={"contract"})
def exponential(m, e, x):
    """e^x as m in [√½, √2] and a whole e, at any x; 0 for −∞, and for NaN."""
    for k in range(x.size):
        alive = x[k] > -math.inf
        finite = x[k] if alive else 0.0
        n = (finite * _LOG2E + _ROUNDING) - _ROUNDING
        r = (finite - n * _LN2_HEAD) - n * _LN2_TAIL
        r = r if r < 0.5 else 0.5  # only where x has no digits behind its point left
        r = r if r > -0.5 else -0.5
        low = c1 + r * (c1 + r * (c2 + r * c3))
        middle = c4 + r * (c5 + r * (c6 + r * c7))
        high = c8 + r * (c9 + r * (c10 + r * (c11 + r * c12)))
        r4 = (r * r) * (r * r)
        m[k] = low + r4 * (middle + r4 * high)
        e[k] = n if alive else -math.inf
