"""Calls into the kernel of :mod:`lnz.ops.chain.cpu.fused_sweep`: its scratch, and the sum over shares of the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from lnz.ops.chain.cpu.arguments import LIMITS
from lnz.ops.chain.cpu.batch8 import EIGHT
from lnz.ops.chain.cpu.fused_sweep import FIELDS, FIRST, Batch, Results, Scratch, run
from lnz.ops.chain.labels import is_full
from lnz.ops.chain.records import Ended, Fused
from lnz.ops.jit import buffers
from lnz.ops.jit.cpu.product import SPLITS
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import threads_for


def scratch(cuts: list[int], T: int, labels: int, with_edges: bool, dtype: torch.dtype) -> Scratch:
    """Room for groups of eight sequences of T steps, for each share: every array in one piece, from a cache line on."""
    shares, columns = len(cuts) - 1, -(-labels // 16) * 16
    line = columns if columns <= 64 else columns + 16  # or rows of a power of two share cache sets
    depth, width = -(-labels // SPLITS) * SPLITS, columns + 16
    shapes = (
        (shares, 2, T, EIGHT, line), (shares, 2, EIGHT, line), (shares, 2, T, EIGHT), (shares, 2, depth, width),
        (shares, line if with_edges else 0, line), (shares, FIRST + 7, EIGHT),
    )  # fmt: skip
    ends = list(accumulate(map(math.prod, shapes)))
    memory = buffers.empty(ends[-1], dtype=dtype).numpy()
    rows, state, steps, tables, sums, lanes = (
        memory[end - math.prod(shape) : end].reshape(shape) for shape, end in zip(shapes, ends, strict=True)
    )
    places, wide = np.empty((shares, 2, EIGHT), np.int64), np.empty((shares, 2 + FIELDS, EIGHT))
    return Scratch(np.array(cuts), places, rows, state, steps, tables, sums, lanes, wide)


def fused_log_prob(given: Ended, weight: Tensor, wanted: Sequence[bool]) -> Fused | None:
    """ln P(y) and its gradients times ``weight`` ``[B]``, of one table; ``None`` where y is no full labelling."""
    with_node, with_edge = wanted
    node, edge, lengths, y, ends, weights = (x.contiguous().numpy() for x in (*given, weight))
    B, T, L = node.shape
    if is_full(given.y, given.lengths, L) is not True:
        return None
    dtype, work = given.node.dtype, partition(B, threads_for(node.size), 4)
    cuts = work.cuts()
    log_prob, in_range = torch.empty(B, dtype=dtype), torch.empty(B, dtype=torch.bool)
    at_node = buffers.empty(B, T, L, dtype=dtype) if with_node else torch.empty(0, 0, 0, dtype=dtype)
    totals, at_edges = np.zeros((2, work.parts, L, L) if with_edge else (2, work.parts, 0, 0))
    batch, limits = Batch(node, edge[0, 0], lengths, y, ends, weights), LIMITS[dtype]
    out = Results(log_prob.numpy(), in_range.numpy(), at_node.numpy(), totals, at_edges)
    parallel(run, work, batch, with_edge, limits, scratch(cuts, T, L, with_edge, dtype), out)
    at_edge = None
    if with_edge:
        at_edge = torch.from_numpy(at_edges.sum(0, keepdims=True).astype(node.dtype))[None]
    return Fused(log_prob, at_node if with_node else None, at_edge, in_range)
