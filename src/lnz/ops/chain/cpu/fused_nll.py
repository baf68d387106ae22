"""Calls into the kernel of :mod:`lnz.ops.chain.cpu.fused_sweep`: its table, its scratch, what shares add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.batch8 import EIGHT
from lnz.ops.chain.cpu.forward_backward import RANGE, REACH
from lnz.ops.chain.cpu.fused_sweep import FIELDS, FIRST, Batch, Results, Scratch, Table, run
from lnz.ops.chain.records import Ended, Fused
from lnz.ops.jit import buffers
from lnz.ops.jit.cpu.product import SPLITS
from lnz.ops.jit.cpu.vectors import LANES
from lnz.ops.jit.work import on_threads, shares_of, threads_for


def lifted(edge: np.ndarray, limit: float) -> tuple[Table, np.ndarray]:
    """What is known of the table ``[L, L]``, and ``tables``; ``limit`` is the first one of ``judge``."""
    size, dtype = len(edge), edge.dtype
    finite = edge > -math.inf
    banded = not finite.all()
    top = edge.max() if finite.any() else dtype.type(0)
    low = edge.min(where=finite, initial=top) if banded else edge.min()
    values = np.exp(edge - top)
    both = aligned(2, -(-size // SPLITS) * SPLITS, width(size), dtype=dtype)
    both[0, :size, :size], both[1, :size, :size] = values, values.T
    reach, proper = float(top) - float(low), bool(top < math.inf)  # which NaN is not
    return Table(float(top), reach, bool(banded), proper, bool(not banded and 3 * reach < limit)), both


def width(labels: int) -> int:
    """The columns of a table of so many labels: a line more than needed, or rows of a power of two share cache sets."""
    return -(-labels // 16) * 16 + 16


def aligned(*shape: int, dtype: Any) -> np.ndarray:
    """Zeros from a multiple of a cache line on: loads across two lines take twice as long."""
    count = math.prod(shape)
    memory = np.zeros(count + LANES, dtype)
    skipped = -memory.ctypes.data % 64 // memory.itemsize
    return memory[skipped : skipped + count].reshape(shape)


def scratch(T: int, labels: int, with_edges: bool, dtype: torch.dtype) -> Scratch:
    """Room for groups of eight sequences of T steps."""
    columns = -(-labels // 16) * 16
    line = columns if columns <= 64 else columns + 16  # or rows of a power of two share cache sets
    rows = buffers.empty(2, T, EIGHT, line, dtype=dtype).numpy()
    return Scratch(
        np.empty((2, EIGHT), np.int64), rows, aligned(2, EIGHT, line, dtype=rows.dtype),
        np.empty((2, T, EIGHT), rows.dtype), np.empty((FIRST + 7, EIGHT), rows.dtype),
        aligned(line if with_edges else 0, line, dtype=rows.dtype), np.empty((2 + FIELDS, EIGHT)),
    )  # fmt: skip


def are_full(y: np.ndarray, lengths: np.ndarray, labels: int) -> bool:
    """Whether all of y ``[B, T]`` before ``lengths`` are labels."""
    if lengths.min() < y.shape[1]:
        y = np.where(np.arange(y.shape[1]) < lengths[:, None], y, 0)
    return y.min() >= 0 and y.max() < labels


def fused_log_prob(given: Ended, weight: Tensor, wanted: Sequence[bool]) -> Fused | None:
    """ln P(y) and its gradients times ``weight`` ``[B]``, of one table; ``None`` where y is no full labelling."""
    with_node, with_edge = wanted
    node, edge, lengths, y, ends, weights = (x.contiguous().numpy() for x in (*given, weight))
    B, T, L = node.shape
    if not are_full(y, lengths, L):
        return None
    dtype = given.node.dtype
    parts = shares_of(B, threads_for(node.size))
    log_prob, in_range = torch.empty(B, dtype=dtype), torch.empty(B, dtype=torch.bool)
    at_node = buffers.empty(B, T, L, dtype=dtype) if with_node else torch.empty(0, 0, 0, dtype=dtype)
    totals, golds = np.zeros((2, len(parts), L, L) if with_edge else (2, len(parts), 0, 0))
    batch, limits = Batch(node, edge[0, 0], lengths, y, ends, weights), (REACH[dtype], RANGE[dtype])
    (table, tables), outputs = lifted(batch.edge, limits[0]), (log_prob.numpy(), in_range.numpy(), at_node.numpy())
    rooms = [scratch(T, L, with_edge, dtype) for _ in parts]

    def task(part: int, first: int, last: int) -> None:
        out = Results(*outputs, totals[part], golds[part])
        run(batch, first, last, with_edge, limits, table, tables, rooms[part], out)

    on_threads(task, parts)
    at_edge = None
    if with_edge:
        sums = golds.sum(0) + totals.sum(0) * tables[0, :L, :L]
        at_edge = torch.from_numpy(sums.astype(node.dtype))[None, None]
    return Fused(log_prob, at_node if with_node else None, at_edge, in_range)
