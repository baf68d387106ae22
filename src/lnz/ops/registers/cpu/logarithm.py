"""ln of sixteen neighbouring numbers in registers: :func:`lnz.ops.math.cpu.log`, the same series, on LLVM vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir

from lnz.ops.math.cpu import LN2_HEAD, LN2_TAIL
from lnz.ops.registers.cpu.lanes import BLOCK, Lanes


def log(lanes: Lanes, x: Any) -> Any:
    """ln x for positive normal x; −inf at 0."""
    builder, double = lanes.builder, lanes.size == 8
    real = np.float64 if double else np.float32
    mantissa, terms = (52, 10) if double else (23, 4)
    whole = ir.VectorType(ir.IntType(8 * lanes.size), BLOCK)
    contract = ("contract",)

    def integer(value: int) -> Any:
        return ir.Constant(whole, [value] * BLOCK)

    def plus_product(a: Any, b: Any, c: Any) -> Any:  # in one rounding, where the machine can
        return builder.fadd(builder.fmul(a, b, flags=contract), c, flags=contract)

    pivot = integer(np.asarray(real(math.sqrt(0.5))).view(np.int64 if double else np.int32).item())
    offset = builder.sub(builder.bitcast(x, whole), pivot)
    n = builder.sitofp(builder.ashr(offset, integer(mantissa)), lanes.vector)
    m = builder.bitcast(builder.add(builder.and_(offset, integer((1 << mantissa) - 1)), pivot), lanes.vector)
    s = builder.fdiv(builder.fsub(m, lanes.constant(1.0)), builder.fadd(m, lanes.constant(1.0)))
    z = builder.fmul(s, s)
    y = lanes.constant(2.0 / (2 * terms + 1))
    for k in range(terms - 1, 0, -1):
        y = plus_product(z, y, lanes.constant(2.0 / (2 * k + 1)))
    y = plus_product(s, plus_product(z, y, lanes.constant(2.0)), builder.fmul(n, lanes.constant(LN2_TAIL[real])))
    y = plus_product(n, lanes.constant(LN2_HEAD[real]), y)
    return builder.select(builder.fcmp_ordered(">", x, lanes.constant(0.0)), y, lanes.constant(-math.inf))
