"""Best labellings: the (max, +) recursion, and the walk back (Viterbi 1967), in one launch."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from lnz.ops.chain.gpu.recursion import columns, row, row_if, score
from lnz.ops.chain.gpu.shapes import Layout
from lnz.ops.chain.records import Chains, with_a_table
from lnz.ops.jit.triton import accumulating
from lnz.ops.jit.triton.launch import kernel, launch
from lnz.ops.jit.triton.math import entry as entry_of
from lnz.ops.jit.triton.math import finite
from lnz.typing import IGNORE


@kernel
def best_into(values, table):
    """max_k values(k) + A(k, l), and the first k that reaches it."""
    return tl.max(values[:, None] + table, 0, return_indices=True)


@kernel
def viterbi_kernel(
    node, edge, lengths, ends, reached, origins, labels, scores, T, size, entry, step, LABELS: tl.constexpr,
    COLUMNS: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """One chain: ``labels [B, T]``, where there is a labelling, and its score, double.

    ``ends [2, L]`` are added to the scores of the first and of the last label. ``origins int16 or int32 [B, T, L]`` are
    the best labels before each, written and read; ``reached [B, L]`` is room for a row.
    """
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b)
    REAL: tl.constexpr = reached.dtype.element_ty
    l = tl.arange(0, LABELS)
    inside = l < size
    node, edge, origins = node + b * T * size, edge + b * entry, origins + b * T * size
    reached, labels = reached + b * size, labels + b * T
    values = row_if(node, l, size, n > 0, REAL) + row(ends, l, size, REAL)
    table = columns(edge, 0, size, LABELS, COLUMNS, REAL)
    following = row_if(node + size, l, size, n > 1, REAL)
    for t in range(1, n):
        x = following  # loaded a step ahead
        following = row_if(node + (t + 1) * size, l, size, t < n - 1, REAL)
        if COLUMNS == LABELS:
            if not SHARED:
                table = columns(edge + (t - 1) * step, 0, size, LABELS, COLUMNS, REAL)
            values, origin = best_into(values, table)
            tl.store(origins + t * size + l, origin, mask=inside)
        else:  # column by column, through memory
            for begin in range(0, size, COLUMNS):
                place = begin + tl.arange(0, COLUMNS)
                some = columns(edge + (t - 1) * step, begin, size, LABELS, COLUMNS, REAL)
                top, origin = best_into(values, some)
                tl.store(reached + place, top, mask=place < size)
                tl.store(origins + t * size + place, origin, mask=place < size)
            tl.debug_barrier()
            values = row(reached, l, size, REAL)
            tl.debug_barrier()
        values += x
        values -= finite(tl.max(values, 0))  # or they would lose digits as they grow
    values += row(ends + size, l, size, REAL)
    top, label = tl.max(values, 0, return_indices=True)
    tl.debug_barrier()  # origins, written by other threads of this program, are read from here on
    if top > -float("inf"):
        tl.store(scores + b, 0.0)
        last = label
        for t in range(n - 1, -1, -1):
            tl.store(labels + t, label.to(tl.int64))
            origin = tl.load(origins + t * size + l, mask=l < tl.where(t > 0, size, 0), other=0)
            label = entry_of(origin.to(tl.int32), l, label)
        tl.debug_barrier()
        first = tl.load(labels, mask=n > 0, other=0)
        total = score(labels, node, edge, n, size, step, 128)
        total += tl.load(ends + first).to(tl.float64) + tl.load(ends + size + last).to(tl.float64)
        tl.store(scores + b, tl.where(n > 0, total, 0.0))
    else:
        tl.store(scores + b, tl.where(n > 0, -float("inf"), 0.0))


def viterbi(chains: Chains, ends: Tensor) -> tuple[Tensor, Tensor]:
    """A best labelling ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none.

    ``ends [2, L]`` are added to the scores of the first and of the last label. O(B T L²) time, O(B T L) memory.
    """
    (B, T, L), node = chains.node.shape, chains.node
    layout = Layout.of(with_a_table(chains), cut=False)
    labels = torch.full((B, T), IGNORE, dtype=torch.int64, device=node.device)
    reached = torch.empty(B, L, dtype=accumulating(node.dtype), device=node.device)
    origins = torch.empty(B, T, L, dtype=torch.int16 if L <= 2**15 else torch.int32, device=node.device)
    scores = reached.new_empty(B, dtype=torch.float64)
    launch(
        viterbi_kernel, (B,), *layout.arrays, ends.contiguous(), reached, origins, labels, scores, T, L,
        *layout.strides, **layout.constants, warps=layout.warps,
    )  # fmt: skip
    return labels, scores
