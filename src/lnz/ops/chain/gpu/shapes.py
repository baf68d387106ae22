"""How chains are laid out over programs: by their shapes alone, nothing is timed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.ops.chain.records import Chains
from lnz.ops.jit.triton import padded

WHOLE = 128  # labels: up to here a table of float32 lies in the registers of one program,
WITH_SUMS = 64  # and up to here one with what is added up for its gradient
ENTRIES = 4096  # of the columns of a larger table that are looked at at once; half of each in float64
FEWEST = 1024  # steps: shorter chains are never cut
BLOCK = 64  # steps: no block is shorter
FILLED = 4096  # programs that fill a card


class Layout(NamedTuple):
    """B chains, and how kernels go through them.

    Attributes:
        arrays: node ``[B, T, L]``, edge, lengths ``[B]``, the former contiguous, tables of the latter too.
        strides: from one chain's tables of pairs to the next one's, and from one step's.
        constants: LABELS, COLUMNS and SHARED of :mod:`lnz.ops.chain.gpu.recursion`.
        warps: of a program.
        blocks: into which the steps of each chain are cut.
        steps: of a block.
    """

    arrays: tuple[Tensor, Tensor, Tensor]
    strides: tuple[int, int]
    constants: dict[str, Any]
    warps: int
    blocks: int
    steps: int

    @classmethod
    def of(cls, chains: Chains, cut: bool = True) -> Layout:
        """By the shapes; whole chains unless they may be ``cut``."""
        node, edge, lengths = chains.node.contiguous(), chains.edge, chains.lengths.contiguous()
        B, T, L = node.shape
        if edge.stride()[2:] != (L, 1):
            edge = edge.contiguous()
        entry, step = (0 if size == 1 else stride for size, stride in zip(edge.shape[:2], edge.stride(), strict=False))
        labels, shared = padded(L), step == 0
        whole = labels <= WHOLE // _registers(node)
        blocks = _blocks(B, T, L) if cut and whole else 1
        steps = -(-max(T - 1, 1) // blocks)
        blocks = -(-max(T - 1, 1) // steps)
        made = cls((node, edge, lengths), (entry, step), {}, 8, blocks, steps)
        return made._by_columns(labels, labels if whole else None, shared)

    def backwards(self) -> Layout:
        """The same chains for the recursion backwards, which has more to hold in registers."""
        labels = self.constants["LABELS"]
        whole = labels <= WITH_SUMS // _registers(self.arrays[0])
        return self if whole else self._by_columns(labels, None, False)

    def _by_columns(self, labels: int, columns: int | None, shared: bool) -> Layout:
        """With all columns of a table at once, or ``None`` for as many as fit beside the rest."""
        some = max(1, ENTRIES // _registers(self.arrays[0]) // labels)
        constants = {"LABELS": labels, "COLUMNS": columns or some, "SHARED": shared and columns is not None}
        threads = labels * labels * _registers(self.arrays[0]) // 32  # which have 32 registers of a table each
        warps = min(16, max(1, threads // 32)) if columns else 8
        return self._replace(constants=constants, warps=warps)


def _registers(scores: Tensor) -> int:
    """That a number takes."""
    return 2 if scores.dtype == torch.float64 else 1


def _blocks(B: int, T: int, L: int) -> int:
    """Whole chains where they fill the card; else blocks, each of which runs once from every label."""
    if T < FEWEST or B * L > FILLED // 8:
        return 1
    return max(1, min(T // BLOCK, FILLED // (B * L)))
