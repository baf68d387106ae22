"""The matrix product of small tables with long rows: a few rows by a few cache lines of columns in registers.

Also in the (max, +) semiring, where it is the step of Viterbi. A block keeps 16 sums where there are 32 registers of a
cache line each (AVX-512), so that the arithmetic hides the loads; 8 registers of half a line elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4  # the rows of a product are rounded up to that many
WIDE = bool(binding.get_host_cpu_features().get("avx512f"))
SPLITS = 4  # partial sums of a single row, so that one addition need not wait for the one before
_LINE = 64  # bytes of each


@njit
def workspace(rows, columns, dtype):
    """Zeros ``[rows, columns]`` from a multiple of a line on: loads across two lines take twice as long."""
    memory = np.zeros(rows * columns + _LINE, dtype)
    skipped = -memory.ctypes.data % _LINE // memory.itemsize
    return memory[skipped : skipped + rows * columns].reshape(rows, columns)


class _Block:
    """Blocks of ``rows`` × ``lines`` sums in registers, in one semiring."""

    def __init__(self, context: Any, builder: Any, kinds: tuple[Any, ...], values: tuple[Any, ...], maximise: bool):
        self.builder, self.maximise = builder, maximise
        self.kinds = kinds
        self.arrays = [context.make_array(k)(context, builder, v) for k, v in zip(kinds, values, strict=True)]
        self.size = kinds[0].dtype.bitwidth // 8
        self.lanes = _LINE // self.size
        self.vector = ir.VectorType(context.get_value_type(kinds[0].dtype), self.lanes)
        self.index = ir.IntType(64)
        self.strides = [
            [builder.sdiv(stride, self.number(self.size)) for stride in cgutils.unpack_tuple(builder, array.strides)]
            for array in self.arrays
        ]

    def number(self, value: int) -> Any:
        return ir.Constant(self.index, value)

    def place(self, array: int, line: Any, column: Any) -> Any:
        """The address of an entry; columns of the others than the first are neighbours."""
        at = column if array else self.builder.mul(column, self.strides[array][1])
        at = self.builder.add(self.builder.mul(line, self.strides[array][0]), at)
        return self.builder.gep(self.arrays[array].data, [at])

    def line(self, address: Any) -> Any:
        return self.builder.bitcast(address, self.vector.as_pointer())

    def spread(self, address: Any) -> Any:
        """The number at an address, in all lanes."""
        undefined, zero = ir.Constant(self.vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        single = self.builder.insert_element(undefined, self.builder.load(address), zero)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, zeros)

    def zero(self) -> Any:
        start = ir.Constant(self.vector, [-math.inf if self.maximise else 0.0] * self.lanes)
        return cgutils.alloca_once_value(self.builder, start)

    def plus(self, a: Any, b: Any) -> Any:
        if self.maximise:
            return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)
        return self.builder.fadd(a, b, flags=("contract",))

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        term = self.builder.fadd(a, b) if self.maximise else self.builder.fmul(a, b, flags=("contract",))
        self.builder.store(self.plus(term, self.builder.load(total)), total)


def _block(maximise: bool, rows: int, lines: int, add: bool = False) -> Any:
    @intrinsic
    def block(typing_context: Any, table: Any, x: Any, out: Any, row: Any, at: Any, inner: Any) -> Any:
        """``out[row:row+rows, at:at+n] (+)= table[:inner, row:row+rows].T @ x[:inner, at:at+n]``, n of ``lines``."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            b = _Block(context, builder, signature.args[:3], arguments[:3], maximise)
            row, at, inner = arguments[3:]
            lines_at = [builder.add(at, b.number(j * b.lanes)) for j in range(lines)]
            rows_at = [builder.add(row, b.number(r)) for r in range(rows)]
            sums = [[b.zero() for _ in lines_at] for _ in rows_at]
            if add:
                for r, line in zip(rows_at, sums, strict=True):
                    for column, total in zip(lines_at, line, strict=True):
                        builder.store(builder.load(b.line(b.place(2, r, column)), align=b.size), total)
            with cgutils.for_range(builder, inner) as loop:
                values = [builder.load(b.line(b.place(1, loop.index, column)), align=b.size) for column in lines_at]
                for r, line in zip(rows_at, sums, strict=True):
                    weight = b.spread(b.place(0, loop.index, r))
                    for value, total in zip(values, line, strict=True):
                        b.add_product(total, weight, value)
            for r, line in zip(rows_at, sums, strict=True):
                for column, total in zip(lines_at, line, strict=True):
                    builder.store(builder.load(total), b.line(b.place(2, r, column)), align=b.size)
            return context.get_dummy_value()

        return types.void(table, x, out, types.intp, types.intp, types.intp), generate

    return block


def _row(maximise: bool, lines: int) -> Any:
    @intrinsic
    def row(typing_context: Any, weights: Any, x: Any, out: Any, at: Any, inner: Any) -> Any:
        """``out[0, at:at+n] = weights[:inner, 0] @ x[:inner, at:at+n]``, n of ``lines``; inner in ``SPLITS``."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            b = _Block(context, builder, signature.args[:3], arguments[:3], maximise)
            at, inner = arguments[3:]
            lines_at = [builder.add(at, b.number(j * b.lanes)) for j in range(lines)]
            sums = [[b.zero() for _ in lines_at] for _ in range(SPLITS)]
            with cgutils.for_range(builder, builder.udiv(inner, b.number(SPLITS))) as loop:
                first = builder.mul(loop.index, b.number(SPLITS))
                for split, line in enumerate(sums):
                    k = builder.add(first, b.number(split))
                    weight = b.spread(b.place(0, k, b.number(0)))
                    for column, total in zip(lines_at, line, strict=True):
                        b.add_product(total, weight, builder.load(b.line(b.place(1, k, column)), align=b.size))
            for j, column in enumerate(lines_at):
                parts = [builder.load(line[j]) for line in sums]
                while len(parts) > 1:
                    parts = [b.plus(*parts[k : k + 2]) for k in range(0, len(parts), 2)]
                builder.store(parts[0], b.line(b.place(2, b.number(0), column)), align=b.size)
            return context.get_dummy_value()

        return types.void(weights, x, out, types.intp, types.intp), generate

    return row


def _product(maximise: bool, add: bool = False) -> Any:
    small, tall, long, large = (_block(maximise, r, n, add) for r, n in ((4, 1), (8, 1), (4, 2), (8, 2)))
    flags: Any = {"contract"} if not maximise else False

    @njit(fastmath=flags)
    def product(table, x, out, rows, inner, n):
        line = _LINE // x.itemsize
        at = 0
        while at < n:
            lines = 2 if WIDE and at + line < n else 1
            row = 0
            while row < rows:
                if WIDE and row + ROWS < rows:
                    if lines == 2:
                        large(table, x, out, row, at, inner)
                    else:
                        tall(table, x, out, row, at, inner)
                    row += 2 * ROWS
                else:
                    if lines == 2:
                        long(table, x, out, row, at, inner)
                    else:
                        small(table, x, out, row, at, inner)
                    row += ROWS
            at += lines * line

    return product


def _row_product(maximise: bool) -> Any:
    short, long = _row(maximise, 1), _row(maximise, 2)
    flags: Any = {"contract"} if not maximise else False

    @njit(fastmath=flags)
    def product(weights, x, out, inner, n):
        line = _LINE // x.itemsize
        at = 0
        while at < n:
            if WIDE and at + line < n:
                long(weights, x, out, at, inner)
                at += 2 * line
            else:
                short(weights, x, out, at, inner)
                at += line

    return product


matmul = _product(False)
"""``out [rows, n] = table[:inner, :rows].T @ x[:inner, :n]``; rows rounded up to 4, n to 64 bytes, must exist."""

add_matmul = _product(False, add=True)
""":func:`matmul`, added to ``out``."""

best = _product(True)
""":func:`matmul` with + for × and max for +."""

vecmat = _row_product(False)
"""``out [0, :n] = weights[:inner, 0] @ x[:inner, :n]``; inner a multiple of 4, and n up to 64 bytes must exist."""

best_of_row = _row_product(True)
""":func:`vecmat` with + for × and max for +."""
