"""The matrix product of small tables with long rows: a few rows by a few cache lines of columns in registers.

A matrix is an array, or a pair: a pointer to its first number, and how far apart rows begin. Products are there in the
(max, +) semiring too, where they are the step of Viterbi. A block keeps 16 sums where there are 32 registers of a cache
line each (AVX-512), so that the arithmetic hides the loads; 8 registers of half a line elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from lnz.ops.jit.cpu import helper

ROWS = 4  # the rows of a product are rounded up to that many
WIDE = bool(binding.get_host_cpu_features().get("avx512f"))
SPLITS = 4  # partial sums of a single row, so that one addition need not wait for the one before
_LINE = 64  # bytes of each


@helper()
def workspace(rows, columns, dtype):
    """Zeros ``[rows, columns]`` from a multiple of a line on: loads across two lines take twice as long."""
    memory = np.zeros(rows * columns + _LINE, dtype)
    skipped = -memory.ctypes.data % _LINE // memory.itemsize
    return memory[skipped : skipped + rows * columns].reshape(rows, columns)


def _numbers_of(kind: Any) -> Any:
    """The type of the array or pointer that a matrix is."""
    return kind[0] if isinstance(kind, types.Tuple) else kind


class _Block:
    """Blocks of ``rows`` × ``lines`` sums in registers, in one semiring."""

    def __init__(self, context: Any, builder: Any, kinds: tuple[Any, ...], values: tuple[Any, ...], maximise: bool):
        self.builder, self.maximise = builder, maximise
        dtype = _numbers_of(kinds[0]).dtype
        self.size = dtype.bitwidth // 8
        self.lanes = _LINE // self.size
        self.vector = ir.VectorType(context.get_value_type(dtype), self.lanes)
        self.index = ir.IntType(64)
        self.start = ir.Constant(self.vector, [-math.inf if maximise else 0.0] * self.lanes)
        self.matrices = [self.matrix(context, kind, value) for kind, value in zip(kinds, values, strict=True)]

    def matrix(self, context: Any, kind: Any, value: Any) -> tuple[Any, Any, Any]:
        """The address of the first number, and how many numbers rows and columns lie apart."""
        if isinstance(kind, types.Tuple):
            pointer, line = cgutils.unpack_tuple(self.builder, value)
            return pointer, context.cast(self.builder, line, kind.types[1], types.intp), self.number(1)
        array = context.make_array(kind)(context, self.builder, value)
        strides = cgutils.unpack_tuple(self.builder, array.strides)
        return array.data, *(self.builder.sdiv(stride, self.number(self.size)) for stride in strides)

    def number(self, value: int) -> Any:
        return ir.Constant(self.index, value)

    def place(self, matrix: int, line: Any, column: Any) -> Any:
        """The address of an entry; columns of the others than the first are neighbours."""
        first, between_rows, between_columns = self.matrices[matrix]
        at = column if matrix else self.builder.mul(column, between_columns)
        return self.builder.gep(first, [self.builder.add(self.builder.mul(line, between_rows), at)])

    def line(self, address: Any) -> Any:
        return self.builder.bitcast(address, self.vector.as_pointer())

    def spread(self, address: Any) -> Any:
        """The number at an address, in all lanes."""
        undefined, zero = ir.Constant(self.vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        single = self.builder.insert_element(undefined, self.builder.load(address), zero)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, zeros)

    def sums(self) -> Any:
        """A place in registers for a line of sums."""
        return cgutils.alloca_once(self.builder, self.vector)

    def plus(self, a: Any, b: Any) -> Any:
        if self.maximise:
            return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)
        return self.builder.fadd(a, b, flags=("contract",))

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        term = self.builder.fadd(a, b) if self.maximise else self.builder.fmul(a, b, flags=("contract",))
        self.builder.store(self.plus(term, self.builder.load(total)), total)

    def block(self, row: Any, at: Any, inner: Any, rows: int, lines: int, add: bool) -> None:
        """``out[row:row+rows, at:at+n] (+)= table[:inner, row:row+rows].T @ x[:inner, at:at+n]``, n of ``lines``."""
        builder = self.builder
        lines_at = [builder.add(at, self.number(j * self.lanes)) for j in range(lines)]
        rows_at = [builder.add(row, self.number(r)) for r in range(rows)]
        places = [[self.line(self.place(2, r, column)) for column in lines_at] for r in rows_at]
        sums = [[self.sums() for _ in lines_at] for _ in rows_at]
        for line, targets in zip(sums, places, strict=True):
            for total, target in zip(line, targets, strict=True):
                start = builder.load(target, align=self.size) if add else self.start
                builder.store(start, total)
        with cgutils.for_range(builder, inner) as loop:
            values = [builder.load(self.line(self.place(1, loop.index, c)), align=self.size) for c in lines_at]
            for r, line in zip(rows_at, sums, strict=True):
                weight = self.spread(self.place(0, loop.index, r))
                for value, total in zip(values, line, strict=True):
                    self.add_product(total, weight, value)
        for line, targets in zip(sums, places, strict=True):
            for total, target in zip(line, targets, strict=True):
                builder.store(builder.load(total), target, align=self.size)

    def row(self, at: Any, inner: Any, lines: int) -> None:
        """``out[0, at:at+n] = weights[:inner, 0] @ x[:inner, at:at+n]``, n of ``lines``; inner in ``SPLITS``."""
        builder = self.builder
        lines_at = [builder.add(at, self.number(j * self.lanes)) for j in range(lines)]
        sums = [[self.sums() for _ in lines_at] for _ in range(SPLITS)]
        for total in (total for line in sums for total in line):
            builder.store(self.start, total)
        with cgutils.for_range(builder, builder.udiv(inner, self.number(SPLITS))) as loop:
            first = builder.mul(loop.index, self.number(SPLITS))
            for split, line in enumerate(sums):
                k = builder.add(first, self.number(split))
                weight = self.spread(self.place(0, k, self.number(0)))
                for column, total in zip(lines_at, line, strict=True):
                    value = builder.load(self.line(self.place(1, k, column)), align=self.size)
                    self.add_product(total, weight, value)
        for j, column in enumerate(lines_at):
            parts = [builder.load(line[j]) for line in sums]
            while len(parts) > 1:
                parts = [self.plus(*parts[k : k + 2]) for k in range(0, len(parts), 2)]
            builder.store(parts[0], self.line(self.place(2, self.number(0), column)), align=self.size)

    def in_pairs(self, count: Any, size: int, generate: Callable[[Any, int], None]) -> None:
        """``generate(at, units)`` up to ``count``, by two units of ``size`` where there are registers, then by one."""
        builder = self.builder
        units = builder.sdiv(builder.add(count, self.number(size - 1)), self.number(size))
        pairs = builder.sdiv(units, self.number(2)) if WIDE else self.number(0)
        with cgutils.for_range(builder, pairs) as loop:
            generate(builder.mul(loop.index, self.number(2 * size)), 2)
        done = builder.mul(pairs, self.number(2))
        with cgutils.for_range(builder, builder.sub(units, done)) as loop:
            generate(builder.mul(builder.add(done, loop.index), self.number(size)), 1)


def _product(maximise: bool, add: bool = False) -> Any:
    @intrinsic  # not a function: calling one with arrays takes as long as a small product
    def product(typing_context: Any, table: Any, x: Any, out: Any, rows: Any, inner: Any, n: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            b = _Block(context, builder, signature.args[:3], arguments[:3], maximise)
            rows, inner, n = arguments[3:]

            def columns(at: Any, lines: int) -> None:
                b.in_pairs(rows, ROWS, lambda row, units: b.block(row, at, inner, units * ROWS, lines, add))

            b.in_pairs(n, b.lanes, columns)
            return context.get_dummy_value()

        return types.void(table, x, out, types.intp, types.intp, types.intp), generate

    return product


def _row_product(maximise: bool) -> Any:
    @intrinsic
    def product(typing_context: Any, weights: Any, x: Any, out: Any, inner: Any, n: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            b = _Block(context, builder, signature.args[:3], arguments[:3], maximise)
            inner, n = arguments[3:]
            b.in_pairs(n, b.lanes, lambda at, lines: b.row(at, inner, lines))
            return context.get_dummy_value()

        return types.void(weights, x, out, types.intp, types.intp), generate

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


def _step(row: Any, rows: Any) -> Any:
    @helper(inline="always")
    def step(columns, table, message, count, size):
        if count == 1:
            row(columns, table, message, len(table), size)
        else:
            rows(columns, table, message, count, size, size)

    return step


multiply = _step(vecmat, matmul)
"""``message [:count] = columns.T[:count] @ table``, for labels ``size`` of as many as the table has room for."""

maximise = _step(best_of_row, best)
""":func:`multiply` with + for × and max for +."""
