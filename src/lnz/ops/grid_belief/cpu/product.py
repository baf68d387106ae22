"""The matrix product of an edge table with the pixels of a row, four labels by sixteen pixels in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 16  # pixels in the registers


@intrinsic
def _product_block(typing_context: Any, table: Any, x: Any, out: Any, row: Any, at: Any, inner: Any) -> Any:
    """``out[row:row+4, at:at+16] = table[:inner, row:row+4].T @ x[:inner, at:at+16]``, sums in registers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        types_ = dict(zip(("table", "x", "out"), (signature.args[i] for i in (0, 1, 2)), strict=True))
        values = dict(zip(("table", "x", "out"), (arguments[i] for i in (0, 1, 2)), strict=True))
        row, at, inner = arguments[3:]
        scalar = context.get_value_type(types_["table"].dtype)
        size = types_["table"].dtype.bitwidth // 8
        vector = ir.VectorType(scalar, BLOCK)
        arrays = {name: context.make_array(types_[name])(context, builder, values[name]) for name in values}
        pitch = {
            name: builder.sdiv(cgutils.unpack_tuple(builder, array.strides)[-2], ir.Constant(at.type, size))
            for name, array in arrays.items()
        }

        def address(name: str, line: Any, column: Any) -> Any:
            return builder.gep(arrays[name].data, [builder.add(builder.mul(line, pitch[name]), column)])

        sums = [cgutils.alloca_once(builder, vector) for _ in range(4)]
        for total in sums:
            builder.store(ir.Constant(vector, [0.0] * BLOCK), total)
        with cgutils.for_range(builder, inner) as loop:
            source = builder.bitcast(address("x", loop.index, at), vector.as_pointer())
            values_ = builder.load(source, align=size)
            for r, total in enumerate(sums):
                weight = builder.load(builder.gep(address("table", loop.index, row), [ir.Constant(row.type, r)]))
                single = builder.insert_element(
                    ir.Constant(vector, ir.Undefined), weight, ir.Constant(ir.IntType(32), 0)
                )
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
                spread = builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), zeros)
                product = builder.fmul(spread, values_, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for r, total in enumerate(sums):
            target = address("out", builder.add(row, ir.Constant(row.type, r)), at)
            builder.store(builder.load(total), builder.bitcast(target, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(table, x, out, types.intp, types.intp, types.intp), generate


@njit(fastmath={"contract"})
def matmul(table, x, out, labels, n):
    for at in range(0, n, BLOCK):
        for row in range(0, labels, 4):
            _product_block(table, x, out, row, at, labels)  # type: ignore[call-arg]
