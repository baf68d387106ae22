"""exp and log for Numba kernels, written so that loops over them vectorise (calls into libm stay scalar).

Both reduce the argument to a small interval and sum a Taylor series there, in float32 or float64 as the argument is;
the relative error is a few units in the last place. They rely on the order of rounding: kernels that call them must be
compiled without ``reassoc`` and, where −inf may appear, without ``nnan`` and ``ninf``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

LN2_TAIL = {np.float32: -2.12194440054690583e-4, np.float64: 1.90821492927058770e-10}
"""ln 2 less its leading bits, which are few enough that their integer multiples are exact."""
LN2_HEAD = {np.float32: 0.693359375, np.float64: 6.93147180369123816e-1}


def exp(x: float) -> float:
    """e^x for x up to 88 (float32) or 709 (float64); 0 below −87 or −708, −inf included."""
    raise NotImplementedError("only for use inside compiled functions")


def log(x: float) -> float:
    """ln x for positive normal x; −inf at 0."""
    raise NotImplementedError("only for use inside compiled functions")


def _bitcast(to: types.Type, llvm_type: Any) -> Any:
    @intrinsic
    def cast(typing_context: Any, x: Any) -> Any:
        return to(x), lambda context, builder, signature, arguments: builder.bitcast(arguments[0], llvm_type)

    return cast


def _format(x: Any) -> tuple[Any, Any, Any, Any, int, int]:
    """The NumPy real and integer types of a Numba float, casts between their bits, mantissa bits, exponent bias."""
    if x == types.float32:
        casts = _bitcast(types.int32, ir.IntType(32)), _bitcast(types.float32, ir.FloatType())
        return np.float32, np.int32, *casts, 23, 127
    casts = _bitcast(types.int64, ir.IntType(64)), _bitcast(types.float64, ir.DoubleType())
    return np.float64, np.int64, *casts, 52, 1023


@overload(exp)
def _exp(x: Any) -> Any:
    if not isinstance(x, types.Float):
        return None
    real, integer, bits, from_bits, mantissa, bias = _format(x)
    head, tail = real(LN2_HEAD[real]), real(LN2_TAIL[real])
    log2e, lowest, zero = real(1.0 / math.log(2.0)), real(-math.log(2.0) * (bias - 1)), real(0.0)
    rounding = real(1.5 * 2.0**mantissa)  # adding it leaves the nearest integer in the low bits
    shift, one = integer(mantissa), integer(bias)
    if real is np.float32:
        c7, c6, c5, c4, c3, c2, c1 = (real(1.0 / math.factorial(n)) for n in range(7, 0, -1))

        def implementation(x: Any) -> Any:
            clamped = x if x > lowest else lowest
            shifted = clamped * log2e + rounding
            n = shifted - rounding
            r = (clamped - n * head) - n * tail
            y = c1 + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7)))))
            y = (c1 + r * y) * from_bits(integer((bits(shifted) + one) << shift))
            return y if x > lowest else zero

        return implementation
    d13, d12, d11, d10, d9, d8, d7, d6, d5, d4, d3, d2, d1 = (real(1.0 / math.factorial(n)) for n in range(13, 0, -1))

    def implementation64(x: Any) -> Any:
        clamped = x if x > lowest else lowest
        shifted = clamped * log2e + rounding
        n = shifted - rounding
        r = (clamped - n * head) - n * tail
        y = d7 + r * (d8 + r * (d9 + r * (d10 + r * (d11 + r * (d12 + r * d13)))))
        y = d1 + r * (d2 + r * (d3 + r * (d4 + r * (d5 + r * (d6 + r * y)))))
        y = (d1 + r * y) * from_bits(integer((bits(shifted) + one) << shift))
        return y if x > lowest else zero

    return implementation64


@overload(log)
def _log(x: Any) -> Any:
    if not isinstance(x, types.Float):
        return None
    real, integer, bits, from_bits, mantissa, _bias = _format(x)
    head, tail = real(LN2_HEAD[real]), real(LN2_TAIL[real])
    zero, one, two, minus_infinity = real(0.0), real(1.0), real(2.0), real(-math.inf)
    shift = integer(mantissa)
    # with m in [√½, √2): take the bits of √½ away, and the exponent field says which power of two to divide by
    pivot = integer(np.asarray(real(math.sqrt(0.5))).view(integer).item())
    fraction = integer((1 << mantissa) - 1)
    series = [real(2.0 / (2 * k + 1)) for k in range(11)]
    s1, s2, s3, s4, s5, s6, s7, s8, s9, s10 = series[1:]
    short = real is np.float32

    def implementation(x: Any) -> Any:
        offset = integer(bits(x) - pivot)
        exponent = integer(offset >> shift)
        m = from_bits(integer((offset & fraction) + pivot))
        s = (m - one) / (m + one)
        z = s * s
        if short:
            y = z * (s1 + z * (s2 + z * (s3 + z * s4)))
        else:
            tail_of_series = s5 + z * (s6 + z * (s7 + z * (s8 + z * (s9 + z * s10))))
            y = z * (s1 + z * (s2 + z * (s3 + z * (s4 + z * tail_of_series))))
        n = real(exponent)
        y = n * head + (s * (two + y) + n * tail)
        return y if x > zero else minus_infinity

    return implementation
