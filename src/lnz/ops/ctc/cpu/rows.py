"""Arithmetic along one row: the classes of a frame, or the states of a lattice.

Each loop is a function of slices, for only then does it vectorise. Sums may be reordered, so they are kept apart from
the polynomials of :mod:`lnz.ops.math.cpu`, which must not be.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit, types
from numba.extending import intrinsic

from lnz.ops.math.cpu import exp
from lnz.ops.registers.cpu.lanes import Lanes, along, arrays, running

FLAGS = {"contract"}
REORDERED = {"contract", "reassoc", "nsz"}


@intrinsic
def highest(typing_context: Any, x: Any, row: Any) -> Any:
    """The largest entry of ``x[row]``, +inf where any is NaN or +inf (a loop would have to keep the order of NaNs)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arrays(context, builder, signature, arguments, 1)
        dtype = signature.args[0].dtype
        whole = Lanes(context, builder, dtype)
        top = running(builder, whole, -math.inf)

        def step(lanes: Any, at: Any) -> None:
            values = lanes.load(x, arguments[1], at, other=-math.inf)
            finite = builder.fcmp_ordered("<", values, lanes.constant(math.inf))
            values = builder.select(finite, values, lanes.constant(math.inf))
            builder.store(lanes.larger(values, builder.load(top)), top)

        along(context, builder, dtype, builder.extract_value(x[1].shape, 1), step)
        return whole.reduced(builder.load(top), "fmax")

    return x.dtype(x, types.intp), generate


@njit(fastmath=FLAGS)
def exponentials(out, row, top):
    for c in range(out.size):
        out[c] = exp(row[c] - top)


@njit(fastmath=FLAGS)
def scaled_exponentials(out, row, top, factor):
    for c in range(out.size):
        out[c] = factor * exp(row[c] - top)


@njit(fastmath=REORDERED)
def total(row):
    s = row.dtype.type(0.0)
    for c in range(row.size):
        s += row[c]
    return s


@njit(fastmath=FLAGS)
def fill(row, value):
    for k in range(row.size):
        row[k] = value
