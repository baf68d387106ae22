"""What a node takes from a factor of two nodes and gives back, sixteen labels at a time in registers.

Every function reads and writes ``card`` numbers from a position in a flat array on, and nothing beside them.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.registers.cpu.lanes import BLOCK, Lanes, along, arrays

_FLAGS = ("nnan", "nsz", "contract")


@intrinsic
def _receive(
    typing_context: Any,
    belief: Any,
    choice: Any,
    tables: Any,
    lent: Any,
    table: Any,
    shown: Any,
    begin: Any,
    inner: Any,
    mine: Any,
    card: Any,
    weight: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        belief, choice, tables, lent = arrays(context, builder, signature, arguments, 4)
        table, shown, begin, inner, mine, card, weight = arguments[4:]

        def block(lanes: Lanes, at: Any) -> None:
            factor = lanes.spread(weight)
            none = lanes.constant(-math.inf)
            most = cgutils.alloca_once_value(builder, none)
            row = cgutils.alloca_once_value(builder, builder.add(table, at))
            with cgutils.for_range(builder, inner) as loop:
                source = builder.load(row)
                kind, value = lent
                start = builder.add(begin, loop.index)
                offered = lanes.spread(
                    builder.load(cgutils.get_item_pointer(context, builder, kind, value, (start,), wraparound=False))
                )
                scores = builder.fmul(factor, lanes.load(tables, source), flags=_FLAGS)
                total = builder.fadd(offered, scores, flags=_FLAGS)
                builder.store(lanes.larger(total, builder.load(most)), most)
                builder.store(builder.add(source, card), row)
            found = builder.load(most)
            gained = builder.fadd(lanes.load(belief, at), found, flags=("nnan", "nsz"))
            lanes.store(gained, belief, at)
            possible = builder.fcmp_ordered(">", found, none)
            lanes.store(builder.select(possible, builder.fneg(found), none), lent, builder.add(mine, at))
            scores = builder.fmul(factor, lanes.load(tables, builder.add(shown, at)), flags=_FLAGS)
            lanes.store(builder.fadd(lanes.load(choice, at), scores, flags=_FLAGS), choice, at)

        along(context, builder, signature.args[0].dtype, card, block)
        return context.get_dummy_value()

    places = (types.intp,) * 6
    return types.void(belief, choice, tables, lent, *places, types.float64), generate


@intrinsic
def _give(typing_context: Any, lent: Any, belief: Any, mine: Any, card: Any, share: Any, top: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lent, belief = arrays(context, builder, signature, arguments, 2)
        mine, card, share, top = arguments[2:]

        def block(lanes: Lanes, at: Any) -> None:
            place = builder.add(mine, at)
            surplus = builder.fsub(lanes.load(belief, at), lanes.spread(top), flags=_FLAGS)
            part = builder.fmul(lanes.spread(share), surplus, flags=_FLAGS)
            lanes.store(builder.fadd(lanes.load(lent, place), part, flags=_FLAGS), lent, place)

        along(context, builder, signature.args[0].dtype, card, block)
        return context.get_dummy_value()

    return types.void(lent, belief, types.intp, types.intp, types.float64, types.float64), generate


@intrinsic
def _top_of(typing_context: Any, values: Any, card: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (values,) = arrays(context, builder, signature, arguments, 1)
        none = ir.Constant(ir.VectorType(ir.DoubleType(), BLOCK), [-math.inf] * BLOCK)
        most = cgutils.alloca_once_value(builder, none)

        def block(lanes: Lanes, at: Any) -> None:
            builder.store(lanes.larger(lanes.load(values, at, other=-math.inf), builder.load(most)), most)

        along(context, builder, signature.args[0].dtype, arguments[1], block)
        return Lanes(context, builder, signature.args[0].dtype).reduced(builder.load(most), "fmax")

    return types.float64(values, types.intp), generate


@njit
def receive(belief, choice, tables, lent, table, shown, begin, inner, mine, card, weight):
    """Take what a factor offers, ``found[x] = max_y lent[begin + y] + weight · tables[table + y · card + x]``.

    ``belief`` gains it and ``lent[mine:]`` becomes what is owed, −found (−inf where found is); ``choice`` gains the
    weighted row of the table that starts at ``shown``.
    """
    _receive(belief, choice, tables, lent, table, shown, begin, inner, mine, card, weight)  # type: ignore[call-arg]


@njit
def give(lent, belief, mine, card, share, top):
    """``lent[mine + x] += share · (belief[x] − top)``."""
    _give(lent, belief, mine, card, share, top)  # type: ignore[call-arg]


@njit
def top_of(values, card):
    """The largest of ``values[:card]``."""
    return _top_of(values, card)  # type: ignore[call-arg]
