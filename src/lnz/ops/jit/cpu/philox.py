"""Philox4x32-10 for Numba kernels; :mod:`lnz.ops.philox` says what it is.

Every function is inlined and free of branches. Words are 64 bits wide until the end: Numba would widen ``uint32``
arithmetic of plain numbers anyway.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lnz.ops.jit.cpu.vectors import astype
from lnz.ops.philox import MULTIPLIERS, ROUNDS, WEYL

U32, U64 = np.uint32, np.uint64
_M0, _M1 = U64(MULTIPLIERS[0]), U64(MULTIPLIERS[1])
_W0 = tuple(U64(WEYL[0] * r) for r in range(ROUNDS))
_W1 = tuple(U64(WEYL[1] * r) for r in range(ROUNDS))
_LOW, _HALF = U64(0xFFFFFFFF), U64(32)


@njit(inline="always")
def _round(c0, c1, c2, c3, k0, k1):
    """Words in the lower halves of 64 bits; what is in the upper ones does not matter, and is not cleared."""
    p0, p1 = (c0 & _LOW) * _M0, (c2 & _LOW) * _M1
    return (p1 >> _HALF) ^ c1 ^ k0, p1, (p0 >> _HALF) ^ c3 ^ k1, p0


@njit(inline="always")
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Four uint32 at counter (c0 … c3) under key (k0, k1), all uint64 whose upper halves are ignored.

    Counters may be vectors (:mod:`lnz.ops.jit.cpu.vectors`), for as many words at once.
    """
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[1], k1 + _W1[1])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[2], k1 + _W1[2])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[3], k1 + _W1[3])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[4], k1 + _W1[4])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[5], k1 + _W1[5])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[6], k1 + _W1[6])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[7], k1 + _W1[7])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[8], k1 + _W1[8])
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0 + _W0[9], k1 + _W1[9])
    return astype(c0, U32), astype(c1, U32), astype(c2, U32), astype(c3, U32)


@njit
def uniform24(word):
    """float32 in [0, 1) of 24 bits."""
    return astype(astype(word >> U32(8), np.int32), np.float32) * np.float32(2.0**-24)


@njit
def uniform53(high, low):
    """float64 in [0, 1) of 53 bits."""
    upper, lower = astype(high >> U32(5), np.int32), astype(low >> U32(6), np.int32)
    return (astype(upper, np.float64) * 2.0**26 + astype(lower, np.float64)) * 2.0**-53
