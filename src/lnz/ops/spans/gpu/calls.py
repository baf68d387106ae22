"""What :mod:`lnz.ops.spans` calls."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.jit.triton import accumulating, padded
from lnz.ops.jit.triton.launch import launch
from lnz.ops.spans.gpu.chart import chart_kernel
from lnz.ops.spans.gpu.labels import share_kernel, sum_kernel
from lnz.ops.spans.records import Spans

SIDE = 32  # spans, and splits of each, that are worked on at once
LABELS = 1024  # likewise


def solve(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, peaks and shares ``[B, N, N]``. O(B (N³ + N² L)) time, O(B N²) memory."""
    B, N, _, L = scores.shape
    scores, lengths = scores.contiguous(), lengths.contiguous()
    own, ways, chart = (scores.new_empty(B, N, N, dtype=torch.float64) for _ in range(3))
    mass, log_z = torch.zeros_like(own, dtype=accumulating(scores.dtype)), own.new_empty(B)
    peaks, side = scores.new_zeros(B, N, N), min(SIDE, padded(N))
    lanes, warps = _lanes(L)
    launch(sum_kernel, (N, N, B), scores, peaks, own, lengths, N, L, BLOCK=lanes, warps=warps)
    launch(chart_kernel, (B,), own, ways, chart, mass, lengths, log_z, N, SIDE=side, warps=max(1, side * side // 128))
    shares = torch.where(mass == 0, 0.0, mass * (peaks - own).exp())
    return log_z, peaks, shares.to(scores.dtype)


def share(given: Spans, peaks: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
    """Weight times marginals ``[B, N, N, L]``."""
    B, N, _, L = given.scores.shape
    scores, marginals = given.scores.contiguous(), given.scores.new_empty(given.scores.shape)
    arrays = scores, peaks.contiguous(), shares.contiguous(), weight.contiguous(), marginals, given.lengths.contiguous()
    lanes, warps = _lanes(L)
    launch(share_kernel, (N, N, B), *arrays, N, L, BLOCK=lanes, warps=warps)
    return marginals


def _lanes(labels: int) -> tuple[int, int]:
    """Labels that are worked on at once, and the warps for them."""
    lanes = min(LABELS, padded(labels))
    return lanes, max(1, min(8, lanes // 128))
