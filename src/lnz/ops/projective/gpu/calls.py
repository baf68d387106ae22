"""What :mod:`lnz.ops.projective` calls."""

from __future__ import annotations

import torch

from lnz.ops.arcs.records import Arcs, Pass
from lnz.ops.jit.triton import accumulating, padded
from lnz.ops.jit.triton.launch import launch
from lnz.ops.projective.gpu.inside import OPEN_LEFT, OPEN_RIGHT, inside_kernel
from lnz.ops.projective.gpu.outside import outside_kernel

SIDE = 16  # spans, and ways to make each, that are worked on at once, one by each thread; half in float64


def solve(arcs: Arcs) -> Pass:
    """ln Z, float64 ``[B]``, and P(arc) ``[B, N + 1, N + 1]``. O(B N³) time, O(B N²) memory."""
    scores, lengths = arcs.scores.contiguous(), arcs.lengths.contiguous()
    B, M, _ = scores.shape
    charts = scores.new_empty(B, 5, M, M, dtype=torch.float64)
    masses, log_z = torch.zeros_like(charts, dtype=accumulating(scores.dtype)), charts.new_empty(B)
    wide = masses.dtype == torch.float64
    side = min(SIDE // 2 if wide else SIDE, padded(M))
    settings = {"SINGLE_ROOT": arcs.single_root, "SIDE": side, "warps": max(1, side * side // 32)}
    launch(inside_kernel, (B,), scores, charts, lengths, log_z, M, WIDE=wide, **settings)
    launch(outside_kernel, (B,), charts, masses, lengths, M, **settings)
    # heads to the left of their dependents lie, as [head, dependent], above the diagonal; the others below it
    marginals = masses[:, OPEN_RIGHT.value].mT.tril() + masses[:, OPEN_LEFT.value].triu()
    return Pass(log_z, marginals.to(scores.dtype).contiguous())
