"""exp and log for kernels, of numbers and of vectors, written so that loops over numbers vectorise.

Calls into libm stay scalar. Both functions reduce the argument to a small interval and sum a Taylor series there, in
float32 or float64 as the argument is; the relative error is a few units in the last place. They rely on the order of
rounding: kernels that call them must be compiled without ``reassoc`` and, where −inf may appear, without ``nnan`` and
``ninf``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from lnz.ops.jit.cpu.vectors import Vector, astype, bits_as, select

LN2_TAIL = {np.float32: -2.12194440054690583e-4, np.float64: 1.90821492927058770e-10}
"""ln 2 less its leading bits, which are few enough that their integer multiples are exact."""
LN2_HEAD = {np.float32: 0.693359375, np.float64: 6.93147180369123816e-1}


def exp(x: Any) -> Any:
    """e^x for x up to 88 (float32) or 709 (float64); 0 below −87 or −708, −inf and NaN included."""
    raise TypeError("only for use inside compiled functions")


def log(x: Any) -> Any:
    """ln x for positive normal x; −inf at 0."""
    raise TypeError("only for use inside compiled functions")


def _format(x: Any) -> tuple[Any, Any, int, int] | None:
    """The NumPy real and integer types of a float or a vector of them, its mantissa bits and exponent bias."""
    dtype = x.dtype if isinstance(x, Vector) else x
    if not isinstance(dtype, types.Float):
        return None
    return (np.float32, np.int32, 23, 127) if dtype.bitwidth == 32 else (np.float64, np.int64, 52, 1023)


@overload(exp)
def _exp(x: Any) -> Any:
    form = _format(x)
    if form is None:
        return None
    real, integer, mantissa, bias = form
    head, tail = real(LN2_HEAD[real]), real(LN2_TAIL[real])
    log2e, lowest, zero = real(1.0 / math.log(2.0)), real(-math.log(2.0) * (bias - 1)), real(0.0)
    rounding = real(1.5 * 2.0**mantissa)  # adding it leaves the nearest integer in the low bits
    shift, one = integer(mantissa), integer(bias)
    c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = (real(1.0 / math.factorial(n)) for n in range(1, 14))
    short = real is np.float32

    def implementation(x: Any) -> Any:
        inside = x > lowest
        clamped = select(inside, x, lowest)
        shifted = clamped * log2e + rounding
        n = shifted - rounding
        r = (clamped - n * head) - n * tail
        if short:
            y = r * (r * (r * (r * (r * c7 + c6) + c5) + c4) + c3) + c2
        else:
            y = r * (r * (r * (r * (r * (r * c13 + c12) + c11) + c10) + c9) + c8) + c7
            y = r * (r * (r * (r * (r * y + c6) + c5) + c4) + c3) + c2
        power = bits_as(astype(astype(bits_as(shifted, integer) + one, integer) << shift, integer), real)
        return select(inside, (r * (r * y + c1) + c1) * power, zero)

    return implementation


@overload(log)
def _log(x: Any) -> Any:
    form = _format(x)
    if form is None:
        return None
    real, integer, mantissa, _ = form
    head, tail = real(LN2_HEAD[real]), real(LN2_TAIL[real])
    zero, one, two, minus_infinity = real(0.0), real(1.0), real(2.0), real(-math.inf)
    shift, fraction = integer(mantissa), integer((1 << mantissa) - 1)
    # with m in [√½, √2): take the bits of √½ away, and the exponent field says which power of two to divide by
    pivot = integer(np.asarray(real(math.sqrt(0.5))).view(integer).item())
    s1, s2, s3, s4, s5, s6, s7, s8, s9, s10 = (real(2.0 / (2 * k + 1)) for k in range(1, 11))
    short = real is np.float32

    def implementation(x: Any) -> Any:
        offset = astype(bits_as(x, integer) - pivot, integer)
        n = astype(astype(offset >> shift, integer), real)
        m = bits_as(astype((offset & fraction) + pivot, integer), real)
        s = (m - one) / (m + one)
        z = s * s
        if short:
            y = z * (z * (z * (z * s4 + s3) + s2) + s1)
        else:
            y = z * (z * (z * (z * (z * (z * s10 + s9) + s8) + s7) + s6) + s5)
            y = z * (z * (z * (z * (y + s4) + s3) + s2) + s1)
        y = n * head + (s * (two + y) + n * tail)
        return select(x > zero, y, minus_infinity)

    return implementation
