"""Calls into the kernels: tensors as they read them, and which thread does what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lnz.ops.chain.kernel import arrays, shares
from lnz.ops.jit import buffers
from lnz.ops.jit.threads import side_by_side

_SHARED = 2**16  # scores of segments from which threads share the work
_LIMIT = {torch.float32: 1e-26, torch.float64: 1e-260}  # what underflows is nothing beside it


def forward_backward(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, the marginals of segments and of edges, and which entries are exact, bool ``[B]``.

    The results of the others, which have scores that are NaN or ∞, mean nothing. O(B T (W L + L²)) time, O(B T L)
    memory beside the marginals.
    """
    from lnz.ops.semi_markov.cpu.likelihood import run

    B, L = len(segment), segment.shape[3]
    log_z, exact = torch.empty(B, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
    segments = buffers.empty(*segment.shape, dtype=segment.dtype)
    edges = buffers.empty(B, *edge.shape[1:], dtype=segment.dtype)
    results = log_z.numpy(), segments.view(-1).numpy(), edges.view(-1, L, L).numpy(), exact.numpy()
    _share(run, segment, edge, lengths, _LIMIT[segment.dtype], *results)
    return log_z, segments, edges, exact


def viterbi(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """A best segmentation ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.semi_markov.cpu.viterbi import viterbi as best

    B, T = segment.shape[:2]
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    _share(best, segment, edge, lengths, labels.numpy(), scores.numpy())
    return labels, scores


def sample(segment: Tensor, edge: Tensor, lengths: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Segmentations ``int64 [n, B, T]`` by numbers ``[n, B, T, 2]`` in [0, 1), and which entries are exact."""
    from lnz.ops.semi_markov.cpu.draw import draw

    labels, exact = torch.empty(uniform.shape[:-1], dtype=torch.int64), torch.empty(len(segment), dtype=torch.bool)
    room = buffers.empty(segment.numel(), dtype=segment.dtype).numpy()
    results = room, uniform.numpy(), labels.numpy(), exact.numpy()
    _share(draw, segment, edge, lengths, _LIMIT[segment.dtype], *results)
    return labels, exact


def _share(kernel: Callable[..., None], segment: Tensor, edge: Tensor, lengths: Tensor, *rest: Any) -> None:
    """Call a kernel, whose last arguments are ``rest``, on one thread or on as many as torch has."""
    from lnz.ops.semi_markov.cpu.labels import AS_ONE, ROWWISE

    B, T, W, _ = segment.shape
    scores, tables, counts = arrays(segment, edge, lengths)
    inputs = AS_ONE if edge.shape[1] == 1 else ROWWISE, scores.reshape(-1), tables, counts, T, W

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: kernel(*inputs, first, last, *rest)

    threads = torch.get_num_threads() if segment.numel() >= _SHARED else 1
    side_by_side([task(*share) for share in shares(B, threads)])
