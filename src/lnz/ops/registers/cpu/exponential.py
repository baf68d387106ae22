"""exp of sixteen neighbouring numbers in registers: :func:`lnz.ops.math.cpu.exp`, the same series, on LLVM vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir

from lnz.ops.math.cpu import LN2_HEAD, LN2_TAIL
from lnz.ops.registers.cpu.lanes import BLOCK, Lanes


def exp(lanes: Lanes, x: Any) -> Any:
    """e^x for x up to 88 (float32) or 709 (float64); 0 below −87 or −708, −inf and NaN included."""
    builder, double = lanes.builder, lanes.size == 8
    real = np.float64 if double else np.float32
    mantissa, bias, terms = (52, 1023, 13) if double else (23, 127, 7)
    whole = ir.VectorType(ir.IntType(8 * lanes.size), BLOCK)

    def integer(value: int) -> Any:
        return ir.Constant(whole, [value] * BLOCK)

    def scaled(a: Any, factor: float, b: Any) -> Any:  # in one rounding, where the machine can
        return builder.fadd(builder.fmul(a, lanes.constant(factor), flags=contract), b, flags=contract)

    contract = ("contract",)
    lowest, rounding = lanes.constant(-math.log(2.0) * (bias - 1)), lanes.constant(1.5 * 2.0**mantissa)
    inside = builder.fcmp_ordered(">", x, lowest)
    clamped = builder.select(inside, x, lowest)
    shifted = scaled(clamped, 1.0 / math.log(2.0), rounding)
    n = builder.fsub(shifted, rounding)
    r = scaled(n, -LN2_TAIL[real], scaled(n, -LN2_HEAD[real], clamped))
    y = lanes.constant(1.0 / math.factorial(terms))
    for k in range(terms - 1, 0, -1):
        y = builder.fadd(builder.fmul(r, y, flags=contract), lanes.constant(1.0 / math.factorial(k)), flags=contract)
    y = builder.fadd(builder.fmul(r, y, flags=contract), lanes.constant(1.0), flags=contract)
    power = builder.shl(builder.add(builder.bitcast(shifted, whole), integer(bias)), integer(mantissa))
    y = builder.fmul(y, builder.bitcast(power, lanes.vector))
    return builder.select(inside, y, lanes.constant(0.0))
