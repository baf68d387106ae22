"""What a step does to its rows of eight sequences side by side, in registers.

The rows of one step lie behind one another, in scratch arrays ``[T, 8, labels rounded up to 16]`` that hold zeros
beyond the labels, so that nothing there is masked. Sums and maxima of eight rows are taken together, by halves of
registers that are merged, and what follows from them is done for eight sequences in one register. Where a row is
padding, its scores count as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.chain.cpu.rows import LARGE, SMALL
from lnz.ops.registers.cpu import exponential
from lnz.ops.registers.cpu.lanes import BLOCK, INT, Lanes, along, arrays, running

EIGHT = 8


class _Eight:
    """A number for each of eight sequences, in one register."""

    def __init__(self, context: Any, builder: Any, scalar: Any) -> None:
        self.context, self.builder = context, builder
        self.kind = ir.VectorType(scalar, EIGHT)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.kind, [value] * EIGHT)

    def _place(self, array: tuple[Any, Any], index: tuple[Any, ...]) -> Any:
        at = (*index, ir.Constant(INT, 0))
        pointer = cgutils.get_item_pointer(self.context, self.builder, *array, at, wraparound=False)
        return self.builder.bitcast(pointer, self.kind.as_pointer())

    def load(self, array: tuple[Any, Any], *index: Any) -> Any:
        return self.builder.load(self._place(array, index), align=4)

    def store(self, value: Any, array: tuple[Any, Any], *index: Any) -> None:
        self.builder.store(value, self._place(array, index), align=4)

    def inside(self, lengths: tuple[Any, Any], t: Any) -> Any:
        """Whether step t is before the length of each sequence."""
        steps = _Eight(self.context, self.builder, INT)
        now = self.builder.insert_element(ir.Constant(steps.kind, ir.Undefined), t, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), EIGHT), [0] * EIGHT)
        now = self.builder.shuffle_vector(now, ir.Constant(steps.kind, ir.Undefined), zeros)
        return self.builder.icmp_signed("<", now, steps.load(lengths))

    def every(self, flags: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(1), [flags.type])
        name = f"llvm.vector.reduce.and.v{flags.type.count}i1"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [flags])

    def inverse(self, values: Any) -> Any:
        """1 / x; 0 where x is not positive."""
        positive = self.builder.fcmp_ordered(">", values, self.constant(0.0))
        return self.builder.select(positive, self.builder.fdiv(self.constant(1.0), values), self.constant(0.0))


def _merged(builder: Any, rows: list[Any], operation: Callable[[Any, Any], Any]) -> Any:
    """Eight rows of sixteen lanes, each reduced by ``operation``, as one row of eight."""

    def merge(a: Any, b: Any, places: list[int]) -> Any:
        index = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
        return builder.shuffle_vector(a, b, index)

    length = BLOCK
    while len(rows) > 1:
        length //= 2
        lower = [lane for lane in range(2 * BLOCK) if lane % (2 * length) < length]
        upper = [lane + length for lane in lower]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [operation(merge(a, b, lower), merge(a, b, upper)) for a, b in pairs]
    even = list(range(0, BLOCK, 2))
    return operation(merge(rows[0], rows[0], even), merge(rows[0], rows[0], [lane + 1 for lane in even]))


def _blocks(builder: Any, size: Any, generate: Callable[[Any], None]) -> None:
    """``generate(at)`` for every block of lanes in a row of scratch that holds ``size`` labels."""
    count = builder.sdiv(builder.add(size, ir.Constant(INT, BLOCK - 1)), ir.Constant(INT, BLOCK))
    with cgutils.for_range(builder, count) as loop:
        generate(builder.mul(loop.index, ir.Constant(INT, BLOCK)))


def _number(context: Any, builder: Any, array: tuple[Any, Any], *index: Any) -> Any:
    return builder.load(cgutils.get_item_pointer(context, builder, *array, index, wraparound=False))


_ROWS = [ir.Constant(INT, r) for r in range(EIGHT)]


@intrinsic
def lift(typing_context: Any, x: Any, at: Any, lengths: Any, t: Any, local: Any, tops: Any, shifts: Any) -> Any:
    """``tops = max x[at, t]`` and ``local[t] = exp(x[at, t] − tops)``; whether all of x is a number.

    ``shifts`` (float64) grow by ``tops``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        x, at, lengths, local, tops, shifts = (
            (kinds[i], context.make_array(kinds[i])(context, builder, arguments[i])) for i in (0, 1, 2, 4, 5, 6)
        )
        t, dtype = arguments[3], kinds[0].dtype
        whole, eight = Lanes(context, builder, dtype), _Eight(context, builder, context.get_value_type(dtype))
        size = builder.extract_value(x[1].shape, 2)
        sequences = [_number(context, builder, at, r) for r in _ROWS]
        inside = [builder.icmp_signed("<", t, _number(context, builder, lengths, r)) for r in _ROWS]
        highest = [running(builder, whole, -math.inf) for _ in _ROWS]

        def scores(lanes: Any, r: int, column: Any) -> Any:
            values = lanes.load(x, sequences[r], t, column, other=-math.inf)
            return builder.select(inside[r], values, whole.constant(0.0))

        def climb(lanes: Any, column: Any) -> None:
            for r, top in enumerate(highest):
                builder.store(whole.larger(scores(lanes, r, column), builder.load(top)), top)

        along(context, builder, dtype, size, climb)
        top = _merged(builder, [builder.load(top) for top in highest], whole.larger)
        nothing = builder.fcmp_ordered("==", top, eight.constant(-math.inf))
        top = builder.select(nothing, eight.constant(0.0), top)
        eight.store(top, tops)
        double = _Eight(context, builder, ir.DoubleType())
        wide = top if dtype.bitwidth == 64 else builder.fpext(top, double.kind)
        double.store(builder.fadd(double.load(shifts), wide), shifts)
        flags = ir.Constant(ir.VectorType(ir.IntType(1), BLOCK), [1] * BLOCK)
        proper = cgutils.alloca_once_value(builder, flags)

        def shift(lanes: Any, column: Any) -> None:
            for r, row in enumerate(_ROWS):
                values, high = scores(lanes, r, column), whole.spread(_number(context, builder, tops, row))
                numbers = builder.fcmp_ordered("<=", values, high)
                builder.store(builder.and_(builder.load(proper), numbers), proper)
                whole.store(exponential.exp(whole, builder.fsub(values, high)), local, t, row, column)

        along(context, builder, dtype, size, shift)
        finite = eight.every(builder.fcmp_ordered("<", top, eight.constant(math.inf)))
        return builder.and_(finite, eight.every(builder.load(proper)))

    return types.boolean(x, at, lengths, types.intp, local, tops, shifts), generate


@intrinsic
def arrive(
    typing_context: Any,
    message: Any,
    factors: Any,
    local: Any,
    before: Any,
    state: Any,
    t: Any,
    lengths: Any,
    masses: Any,
    size: Any,
) -> Any:
    """``before[t] = message · factors`` and ``state = before[t] · local[t]``.

    ``factors`` become 1 / Σ state, 0 over padding; ``masses`` (float64) are multiplied by these sums. Whether they are
    far from the ends of their range.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        message, factors, local, before, state = arrays(context, builder, signature, arguments, 5)
        t = arguments[5]
        lengths, masses = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i])) for i in (6, 7)
        )
        dtype = signature.args[0].dtype
        lanes, eight = Lanes(context, builder, dtype), _Eight(context, builder, context.get_value_type(dtype))
        double = _Eight(context, builder, ir.DoubleType())
        totals = [running(builder, lanes, 0.0) for _ in _ROWS]

        def step(column: Any) -> None:
            for r, total in zip(_ROWS, totals, strict=True):
                factor = lanes.spread(_number(context, builder, factors, r))
                arrived = lanes.product(lanes.load(message, r, column), factor)
                lanes.store(arrived, before, t, r, column)
                product = lanes.product(arrived, lanes.load(local, t, r, column))
                lanes.store(product, state, r, column)
                builder.store(builder.fadd(builder.load(total), product), total)

        _blocks(builder, arguments[-1], step)
        total = _merged(builder, [builder.load(total) for total in totals], builder.fadd)
        inside = eight.inside(lengths, t)
        eight.store(builder.select(inside, eight.inverse(total), eight.constant(0.0)), factors)
        wide = total if dtype.bitwidth == 64 else builder.fpext(total, double.kind)
        wide = builder.select(inside, wide, double.constant(1.0))
        mass = builder.fmul(double.load(masses), wide)
        double.store(mass, masses)
        large = builder.fcmp_ordered(">", mass, double.constant(SMALL))
        return double.every(builder.and_(large, builder.fcmp_ordered("<", mass, double.constant(LARGE))))

    return types.boolean(message, factors, local, before, state, types.intp, lengths, masses, types.intp), generate


@intrinsic
def meet(
    typing_context: Any,
    message: Any,
    factors: Any,
    local: Any,
    before: Any,
    state: Any,
    t: Any,
    lengths: Any,
    joints: Any,
    shares: Any,
    size: Any,
) -> Any:
    """``state = message · factors · local[t]``; ``factors`` become 1 / Σ state, ``shares`` 1 / Σ before[t] · state.

    Over padding ``shares`` are 0. ``joints`` become the smallest of these sums so far.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        message, factors, local, before, state = arrays(context, builder, signature, arguments, 5)
        t = arguments[5]
        lengths, joints, shares = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i]))
            for i in (6, 7, 8)
        )
        dtype = signature.args[0].dtype
        lanes, eight = Lanes(context, builder, dtype), _Eight(context, builder, context.get_value_type(dtype))
        totals, overlaps = ([running(builder, lanes, 0.0) for _ in _ROWS] for _ in range(2))

        def step(column: Any) -> None:
            for r, total, overlap in zip(_ROWS, totals, overlaps, strict=True):
                factor = lanes.spread(_number(context, builder, factors, r))
                own = lanes.product(lanes.load(message, r, column), factor)
                own = lanes.product(own, lanes.load(local, t, r, column))
                lanes.store(own, state, r, column)
                builder.store(builder.fadd(builder.load(total), own), total)
                both = lanes.product(own, lanes.load(before, t, r, column))
                builder.store(builder.fadd(builder.load(overlap), both), overlap)

        _blocks(builder, arguments[-1], step)
        total, joint = (
            _merged(builder, [builder.load(place) for place in places], builder.fadd) for places in (totals, overlaps)
        )
        eight.store(eight.inverse(total), factors)
        inside = eight.inside(lengths, t)
        eight.store(builder.select(inside, eight.inverse(joint), eight.constant(0.0)), shares)
        lowest = eight.load(joints)
        kept = builder.or_(builder.not_(inside), builder.fcmp_ordered(">=", joint, lowest))
        eight.store(builder.select(kept, lowest, joint), joints)
        return context.get_dummy_value()

    return types.void(message, factors, local, before, state, types.intp, lengths, joints, shares, types.intp), generate


@intrinsic
def part(
    typing_context: Any,
    local: Any,
    before: Any,
    state: Any,
    t: Any,
    alphas: Any,
    nodes: Any,
    edges: Any,
    at: Any,
    count: Any,
    at_node: Any,
    size: Any,
) -> Any:
    """``at_node[at, t] = before[t] · state · nodes`` for ``count`` sequences, if there is room for it; then, in place,
    ``local[t]`` becomes ``before[t] · local[t] · alphas[t]``, and ``before[t]`` becomes ``state · edges``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        local, before, state = arrays(context, builder, signature, arguments, 3)
        t, count = arguments[3], arguments[8]
        alphas, nodes, edges, at, at_node = (
            (signature.args[i], context.make_array(signature.args[i])(context, builder, arguments[i]))
            for i in (4, 5, 6, 7, 9)
        )
        dtype = signature.args[0].dtype
        whole = Lanes(context, builder, dtype)

        def step(column: Any, to_nodes: Any) -> None:
            for r in _ROWS:
                message, own = whole.load(before, t, r, column), whole.load(state, r, column)
                if to_nodes is not None:
                    share = whole.spread(_number(context, builder, nodes, r))
                    with builder.if_then(builder.icmp_signed("<", r, count), likely=True):
                        both = whole.product(whole.product(message, own), share)
                        to_nodes.store(both, at_node, _number(context, builder, at, r), t, column)
                gain = whole.spread(_number(context, builder, alphas, t, r))
                alpha = whole.product(whole.product(message, whole.load(local, t, r, column)), gain)
                whole.store(alpha, local, t, r, column)
                share = whole.spread(_number(context, builder, edges, r))
                whole.store(whole.product(own, share), before, t, r, column)

        size = arguments[-1]
        wanted = builder.icmp_signed(">", builder.extract_value(at_node[1].shape, 2), ir.Constant(INT, 0))
        with builder.if_else(wanted) as (with_nodes, without):
            with with_nodes:
                along(context, builder, dtype, size, lambda lanes, column: step(column, lanes))
            with without:
                _blocks(builder, size, lambda column: step(column, None))
        return context.get_dummy_value()

    return types.void(
        local, before, state, types.intp, alphas, nodes, edges, at, types.intp, at_node, types.intp
    ), generate
