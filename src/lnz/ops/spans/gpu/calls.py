"""What :mod:`lnz.ops.spans` calls."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.jit.triton import accumulating, padded
from lnz.ops.jit.triton.launch import launch
from lnz.ops.spans.gpu.chart import chart_kernel
from lnz.ops.spans.gpu.labels import share_kernel, sum_kernel

SIDE = 32  # spans, and splits of each, that are worked on at once
LABELS = 1024  # likewise


def solve(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """ln Z, float64 ``[B]``, and marginals ``[B, N, N, L]``. O(B (N³ + N² L)) time, O(B N²) memory beside them."""
    B, N, _, L = scores.shape
    scores, lengths = scores.contiguous(), lengths.contiguous()
    own, ways, chart = (scores.new_empty(B, N, N, dtype=torch.float64) for _ in range(3))
    mass, log_z = torch.empty_like(own, dtype=accumulating(scores.dtype)), own.new_empty(B)
    marginals, lanes, side = torch.empty_like(scores), min(LABELS, padded(L)), min(SIDE, padded(N))
    warps = max(1, min(8, lanes // 128))
    launch(sum_kernel, (N, N, B), scores, own, lengths, N, L, BLOCK=lanes, warps=warps)
    launch(chart_kernel, (B,), own, ways, chart, mass, lengths, log_z, N, SIDE=side, warps=max(1, side * side // 128))
    launch(share_kernel, (N, N, B), scores, own, mass, marginals, lengths, N, L, BLOCK=lanes, warps=warps)
    return log_z, marginals
