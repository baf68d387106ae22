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
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = 8
RENORMALISED = 64

_INT, _REAL = ir.IntType(64), ir.DoubleType()
_INTS, _REALS = ir.VectorType(_INT, WIDE), ir.VectorType(_REAL, WIDE)
_MANTISSA, _BIAS = 52, 1023
_ROUNDING = 1.5 * 2.0**_MANTISSA  # adding it leaves the integer in the low bits
_INTEGER = 2.0**_MANTISSA  # whose low bits are 0: or-ing an integer into them adds it

_LOG2E, _LN2_HEAD, _LN2_TAIL = 1.0 / math.log(2.0), 6.93147180369123816e-1, 1.90821492927058770e-10
c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12 = (1.0 / math.factorial(n) for n in range(1, 13))

Number = tuple[Any, Any]
"""m and e, LLVM vectors."""


class Eight:
    """Eight neighbours of arrays, and arithmetic over them; made from the arguments of an intrinsic."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.arguments = [
            (kind, context.make_array(kind)(context, builder, value)) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

    def constant(self, value: float) -> Any:
        return ir.Constant(_REALS, [value] * WIDE)

    def integer(self, value: int) -> Any:
        return ir.Constant(_INTS, [value] * WIDE)

    def spread(self, value: Any) -> Any:
        """One number in every lane."""
        nothing = ir.Constant(ir.VectorType(value.type, WIDE), ir.Undefined)
        zero = ir.Constant(ir.IntType(32), 0)
        single = self.builder.insert_element(nothing, value, zero)
        return self.builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(zero.type, WIDE), [0] * WIDE))

    def after(self, at: Any, steps: int = 1) -> Any:
        return self.builder.add(at, ir.Constant(_INT, steps))

    def _pointer(self, array: Number, row: int, at: Any) -> Any:
        kind, value = array
        index = (ir.Constant(_INT, row), at)[-kind.ndim :]
        pointer = cgutils.get_item_pointer(self.context, self.builder, kind, value, index, wraparound=False)
        return self.builder.bitcast(pointer, _REALS.as_pointer())

    def load(self, array: Number, at: Any, row: int = 0) -> Any:
        return self.builder.load(self._pointer(array, row, at), align=8)

    def integers(self, array: Number, at: Any) -> Any:
        return self.builder.bitcast(self.load(array, at), _INTS)

    def store(self, value: Any, array: Number, at: Any, row: int = 0) -> None:
        self.builder.store(value, self._pointer(array, row, at), align=8)

    def number(self, array: Number, at: Any, row: int = 0) -> Number:
        """Mantissas of ``row``, exponents of the row below."""
        return self.load(array, at, row), self.load(array, at, row + 1)

    def store_number(self, x: Number, array: Number, at: Any, row: int = 0) -> None:
        self.store(x[0], array, at, row)
        self.store(x[1], array, at, row + 1)

    def power(self, e: Any) -> Any:
        """2^e for e < 1024; 0 for e ≤ −1023, and where e is −∞ − (−∞)."""
        lowest = self.constant(-float(_BIAS))
        e = self.builder.select(self.builder.fcmp_ordered(">", e, lowest), e, lowest)
        bits = self.builder.bitcast(self.builder.fadd(e, self.constant(_ROUNDING + _BIAS)), _INTS)
        return self.builder.bitcast(self.builder.shl(bits, self.integer(_MANTISSA)), _REALS)

    def plus(self, x: Number, y: Number) -> Number:
        builder = self.builder
        less = builder.fcmp_ordered("<", x[1], y[1])
        (high, top), (low, bottom) = self.choose(less, y, x), self.choose(less, x, y)
        shifted = builder.fmul(low, self.power(builder.fsub(bottom, top)), flags=("contract",))
        return builder.fadd(high, shifted, flags=("contract",)), top

    def shares(self, x: Number, y: Number) -> tuple[Any, Any]:
        """x / (x + y) and y / (x + y), plain numbers; of zeros, something finite."""
        builder = self.builder
        less = builder.fcmp_ordered("<", x[1], y[1])
        (high, top), (low, bottom) = self.choose(less, y, x), self.choose(less, x, y)
        low = builder.fmul(low, self.power(builder.fsub(bottom, top)))
        inverse = builder.fdiv(self.constant(1.0), builder.fadd(high, low))
        high, low = builder.fmul(high, inverse), builder.fmul(low, inverse)
        return builder.select(less, low, high), builder.select(less, high, low)

    def times(self, x: Number, y: Number) -> Number:
        return self.builder.fmul(x[0], y[0]), self.builder.fadd(x[1], y[1])

    def choose(self, where: Any, x: Number, y: Number) -> Number:
        return self.builder.select(where, x[0], y[0]), self.builder.select(where, x[1], y[1])

    def positive(self, x: Any) -> Any:
        return self.builder.fcmp_ordered(">", x, self.constant(0.0))

    def with_exponent(self, x: Number, added: Any) -> Number:
        return x[0], self.builder.fadd(x[1], added)

    def renormalised(self, x: Number) -> Number:
        """The same numbers with m in [1, 2)."""
        builder = self.builder
        bits = builder.bitcast(x[0], _INTS)
        field = builder.or_(builder.lshr(bits, self.integer(_MANTISSA)), self.integer(0x433 << _MANTISSA))
        exponent = builder.fsub(builder.bitcast(field, _REALS), self.constant(_INTEGER + _BIAS))
        fraction = builder.and_(bits, self.integer((1 << _MANTISSA) - 1))
        mantissa = builder.bitcast(builder.or_(fraction, self.integer(_BIAS << _MANTISSA)), _REALS)
        return mantissa, builder.fadd(x[1], exponent)


@intrinsic
def renormalise(typing_context: Any, rows: Any, at: Any) -> Any:
    """Bring the numbers of ``rows`` 0, 1 and of 2, 3 at ``at`` … ``at`` + 7 back to m in [1, 2)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        eight = Eight(context, builder, signature, arguments)
        rows, at = eight.arguments
        for row in (0, 2):
            eight.store_number(eight.renormalised(eight.number(rows, at, row)), rows, at, row)
        return context.get_dummy_value()

    return types.void(rows, at), generate


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
