"""Few long chains: their steps are cut into blocks that run side by side.

A block takes the distribution of the label before it to that of its last label, linearly. Its matrix is found by
running the recursion once from every label, all at the same time. The blocks of one chain, with these matrices for
tables of pairs, are a short chain themselves, whose filter and marginals say what is between blocks; then every block
runs once more from there. Time O(T / blocks + blocks) steps in sequence instead of T, and L + 2 times the work.

Source: the parallel scan, Ladner and Fischer 1980; for Bayesian smoothing Särkkä and García-Fernández 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from lnz.ops.chain.gpu import backward, forward
from lnz.ops.chain.gpu.recursion import row_if, score
from lnz.ops.chain.gpu.shapes import Layout
from lnz.ops.chain.gpu.sweep import sweep
from lnz.ops.chain.records import Chains
from lnz.ops.jit.triton.launch import kernel, launch


@kernel
def matrix_kernel(
    node, edge, lengths, matrices, T, size, entry, step, BLOCKS, STEPS_OF, LABELS: tl.constexpr, COLUMNS: tl.constexpr,
    SHARED: tl.constexpr,
):  # fmt: skip
    """Row i of the matrix of a block, in logarithms, ``matrices [B, BLOCKS, L, L]``: the sweep from label i on."""
    item, label = tl.program_id(0), tl.program_id(1)
    b, block = (item // BLOCKS).to(tl.int64), item % BLOCKS
    first = block * STEPS_OF + tl.zeros_like(tl.load(lengths + b))
    last = tl.minimum(first + STEPS_OF, tl.load(lengths + b) - 1)
    l = tl.arange(0, LABELS)
    REAL: tl.constexpr = tl.float64 if node.dtype.element_ty == tl.float64 else tl.float32  # pyright: ignore
    alpha = tl.where(l == label, 0.0, -float("inf")).to(REAL)
    total = tl.zeros([], tl.float64)
    node, edge = node + b * T * size, edge + b * entry
    alpha, total = sweep(alpha, total, first, last, node, edge, matrices, size, step, LABELS, COLUMNS, SHARED, False)
    at = matrices + ((b * BLOCKS + block) * size + label) * size
    tl.store(at + l, alpha.to(tl.float64) + total, mask=l < size)


@kernel
def block_kernel(
    node, edge, lengths, starts, kept, T, size, entry, step, BLOCKS, STEPS_OF, LABELS: tl.constexpr,
    COLUMNS: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """α of one block into ``kept [B, T, L]``, from what is before it, ``starts [B, BLOCKS + 1, L]``."""
    item = tl.program_id(0)
    b, block = (item // BLOCKS).to(tl.int64), item % BLOCKS
    n = tl.load(lengths + b)
    first = block * STEPS_OF + tl.zeros_like(n)
    last = tl.minimum(first + STEPS_OF, n - 1)
    l = tl.arange(0, LABELS)
    node, kept, edge = node + b * T * size, kept + b * T * size, edge + b * entry
    at = starts + (b * (BLOCKS + 1) + block) * size
    alpha = row_if(at, l, size, first <= last, kept.dtype.element_ty)
    tl.store(kept + l, alpha, mask=l < tl.where((block == 0) & (n > 0), size, 0))
    total = tl.zeros([], tl.float64)
    sweep(alpha, total, first, last, node, edge, kept, size, step, LABELS, COLUMNS, SHARED, True)


@kernel
def score_kernel(node, edge, lengths, y, scores, T, size, entry, step):
    """s(y), double: of one chain."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.load(lengths + b)
    tl.store(scores + b, score(y + b * T, node + b * T * size, edge + b * entry, n, size, step, 1024))


class Between(NamedTuple):
    """The chain of the labels between blocks: the first of all, the last of each block.

    Attributes:
        layout: of these chains of ``blocks + 1`` steps, in double precision.
        alpha: their filter ``[B, blocks + 1, L]``.
        log_z: ln Z ``[B]``, the same as that of whole chains.
    """

    layout: Layout
    alpha: Tensor
    log_z: Tensor

    @classmethod
    def of(cls, layout: Layout) -> Between:
        """Their tables of pairs are the matrices of blocks."""
        node, _, lengths = layout.arrays
        B, T, L = node.shape
        matrices = node.new_empty(B, layout.blocks, L, L, dtype=torch.float64)
        launch(
            matrix_kernel, (B * layout.blocks, L), *layout.arrays, matrices, T, L, *layout.strides, layout.blocks,
            layout.steps, **layout.constants, warps=layout.warps,
        )  # fmt: skip
        labels = matrices.new_zeros(B, layout.blocks + 1, L)
        labels[:, 0] = node[:, 0]
        count = torch.where(lengths > 0, (lengths - 2 + layout.steps) // layout.steps + 1, 0)
        short = Layout.of(Chains(labels, matrices, count), cut=False)
        alpha, log_z = torch.zeros_like(labels), labels.new_empty(B)
        forward.run(short, None, alpha, log_z, log_z)
        return cls(short, alpha, log_z)

    def marginals(self) -> Tensor:
        """Of these labels, ``[B, blocks + 1, L]``."""
        nodes, nothing = torch.zeros_like(self.alpha), self.alpha.new_empty(0)
        out = backward.Outputs(nodes, nothing, backward.NONE.value, len(nodes))
        backward.run(self.layout.backwards(), self.alpha, None, self.log_z.new_ones(len(nodes)), None, out)
        return nodes


def run(layout: Layout, y: Tensor | None, alpha: Tensor, log_z: Tensor, log_prob: Tensor) -> None:
    """As :func:`lnz.ops.chain.gpu.forward.run`."""
    (B, T, L), short = alpha.shape, Between.of(layout)
    launch(
        block_kernel, (B * layout.blocks,), *layout.arrays, short.alpha, alpha, T, L, *layout.strides, layout.blocks,
        layout.steps, **layout.constants, warps=layout.warps,
    )  # fmt: skip
    log_z.copy_(short.log_z)
    if y is not None:
        launch(score_kernel, (B,), *layout.arrays, y, log_prob, T, L, *layout.strides)
        log_prob.copy_(torch.where(torch.isneginf(log_prob), log_prob, log_prob - log_z))
