"""The matrix product of small tables with long rows, four rows by one cache line of columns in registers.

Also in the (max, +) semiring, where it is the step of Viterbi.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4  # of which the sums are in registers at a time
_LINE = 64  # bytes of each


def _block(maximise: bool) -> Any:
    @intrinsic
    def block(typing_context: Any, table: Any, x: Any, out: Any, row: Any, at: Any, inner: Any) -> Any:
        """``out[row:row+4, at:at+n] = table[:inner, row:row+4].T @ x[:inner, at:at+n]``, n as many as 64 bytes hold."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            types_ = dict(zip(("table", "x", "out"), (signature.args[i] for i in (0, 1, 2)), strict=True))
            values = dict(zip(("table", "x", "out"), (arguments[i] for i in (0, 1, 2)), strict=True))
            row, at, inner = arguments[3:]
            scalar = context.get_value_type(types_["table"].dtype)
            size = types_["table"].dtype.bitwidth // 8
            lanes = _LINE // size
            vector = ir.VectorType(scalar, lanes)
            arrays = {name: context.make_array(types_[name])(context, builder, values[name]) for name in values}
            strides = {
                name: [
                    builder.sdiv(stride, ir.Constant(at.type, size))
                    for stride in cgutils.unpack_tuple(builder, array.strides)[-2:]
                ]
                for name, array in arrays.items()
            }

            def address(name: str, line: Any, column: Any) -> Any:
                # columns of x and out are neighbours; those of table need not be
                step = builder.mul(column, strides[name][1]) if name == "table" else column
                return builder.gep(arrays[name].data, [builder.add(builder.mul(line, strides[name][0]), step)])

            sums = [cgutils.alloca_once(builder, vector) for _ in range(ROWS)]
            for total in sums:
                builder.store(ir.Constant(vector, [-math.inf if maximise else 0.0] * lanes), total)
            with cgutils.for_range(builder, inner) as loop:
                source = builder.bitcast(address("x", loop.index, at), vector.as_pointer())
                values_ = builder.load(source, align=size)
                for r, total in enumerate(sums):
                    weight = builder.load(address("table", loop.index, builder.add(row, ir.Constant(row.type, r))))
                    single = builder.insert_element(
                        ir.Constant(vector, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0)
                    )
                    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
                    spread = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)
                    so_far = builder.load(total)
                    if maximise:
                        term = builder.fadd(spread, values_)
                        builder.store(builder.select(builder.fcmp_ordered(">", term, so_far), term, so_far), total)
                    else:
                        product = builder.fmul(spread, values_, flags=("contract",))
                        builder.store(builder.fadd(so_far, product, flags=("contract",)), total)
            for r, total in enumerate(sums):
                target = address("out", builder.add(row, ir.Constant(row.type, r)), at)
                builder.store(builder.load(total), builder.bitcast(target, vector.as_pointer()), align=size)
            return context.get_dummy_value()

        return types.void(table, x, out, types.intp, types.intp, types.intp), generate

    return block


_product_block, _best_block = _block(False), _block(True)


@njit(fastmath={"contract"})
def matmul(table, x, out, rows, inner, n):
    """``out [rows, n] = table[:inner, :rows].T @ x[:inner, :n]``; rows rounded up to 4, n to 64 bytes, must exist."""
    for at in range(0, n, _LINE // x.itemsize):
        for row in range(0, rows, ROWS):
            _product_block(table, x, out, row, at, inner)  # type: ignore[call-arg]


@njit
def best(table, x, out, rows, inner, n):
    """:func:`matmul` with + for × and max for +."""
    for at in range(0, n, _LINE // x.itemsize):
        for row in range(0, rows, ROWS):
            _best_block(table, x, out, row, at, inner)  # type: ignore[call-arg]
