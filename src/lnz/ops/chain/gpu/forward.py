"""Whole chains forwards: α, ln Z, and ln P(y) where y is given."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from lnz.ops.chain.gpu.recursion import score
from lnz.ops.chain.gpu.shapes import Layout
from lnz.ops.chain.gpu.sweep import start, sweep
from lnz.ops.jit.triton.launch import kernel, launch


@kernel
def forward_kernel(
    node, edge, lengths, y, kept, log_z, log_prob, T, size, entry, step, LABELS: tl.constexpr, COLUMNS: tl.constexpr,
    SHARED: tl.constexpr, LABELLED: tl.constexpr,
):  # fmt: skip
    """One chain: α into ``kept [B, T, L]``, ln Z, and ln P(y) of the labelling ``y [B, T]`` where LABELLED."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b)
    node, kept, edge = node + b * T * size, kept + b * T * size, edge + b * entry
    l = tl.arange(0, LABELS)
    alpha, total = start(node, size, n > 0, LABELS, kept.dtype.element_ty)
    tl.store(kept + l, alpha, mask=l < tl.where(n > 0, size, 0))
    _, total = sweep(alpha, total, tl.zeros_like(n), n - 1, node, edge, kept, size, step, LABELS, COLUMNS, SHARED, True)
    total = tl.where(n > 0, total, 0.0)
    tl.store(log_z + b, total)
    if LABELLED:
        own = score(y + b * T, node, edge, n, size, step, 128)
        tl.store(log_prob + b, tl.where(own == -float("inf"), own, own - total))


def run(layout: Layout, y: Tensor | None, alpha: Tensor, log_z: Tensor, log_prob: Tensor) -> None:
    """α ``[B, T, L]``, ln Z and, of labellings y ``[B, T]``, ln P(y) ``[B]``, float64, are written."""
    (B, T, L), labels = alpha.shape, layout.arrays[2] if y is None else y
    launch(
        forward_kernel, (B,), *layout.arrays, labels, alpha, log_z, log_prob, T, L, *layout.strides,
        LABELLED=y is not None, **layout.constants, warps=layout.warps,
    )  # fmt: skip
