"""Calls into the kernels: tensors as they read them, and which thread does what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lnz.ops.jit import buffers
from lnz.ops.jit.work import arrays, on_threads, shares_of
from lnz.ops.semi_markov.records import Segments

SHARED = 2**16  # scores of segments from which threads share the work
_LIMIT = {torch.float32: 1e-26, torch.float64: 1e-260}  # underflow below it is negligible


def forward_backward(given: Segments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, the marginals of segments and of edges, and which entries are in range, bool ``[B]``.

    The results of the others, which have scores that are NaN or ∞, mean nothing. O(B T (W L + L²)) time, O(B T L)
    memory beside the marginals.
    """
    from lnz.ops.semi_markov.cpu.likelihood import run

    segment, edge, _ = given
    B, L = len(segment), segment.shape[3]
    log_z, in_range = torch.empty(B, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
    segments = buffers.empty(*segment.shape, dtype=segment.dtype)
    edges = buffers.empty(B, *edge.shape[1:], dtype=segment.dtype)
    results = log_z.numpy(), segments.view(-1).numpy(), edges.view(-1, L, L).numpy(), in_range.numpy()
    _on_threads(run, given, _LIMIT[segment.dtype], *results)
    return log_z, segments, edges, in_range


def viterbi(given: Segments) -> tuple[Tensor, Tensor]:
    """A best segmentation ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.semi_markov.cpu.viterbi import viterbi as best

    B, T = given.segment.shape[:2]
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    _on_threads(best, given, labels.numpy(), scores.numpy())
    return labels, scores


def sample(given: Segments, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Segmentations ``int64 [n, B, T]`` by numbers ``[n, B, T, 2]`` in [0, 1), and which entries are in range."""
    from lnz.ops.semi_markov.cpu.draw import draw

    segment = given.segment
    labels, in_range = torch.empty(uniform.shape[:-1], dtype=torch.int64), torch.empty(len(segment), dtype=torch.bool)
    room = buffers.empty(segment.numel(), dtype=segment.dtype).numpy()
    results = room, uniform.numpy(), labels.numpy(), in_range.numpy()
    _on_threads(draw, given, _LIMIT[segment.dtype], *results)
    return labels, in_range


def _on_threads(kernel: Callable[..., None], given: Segments, *rest: Any) -> None:
    """Call a kernel, whose last arguments are ``rest``, on one thread or on as many as torch has."""
    from lnz.ops.semi_markov.cpu.labels import AS_ONE, ROWWISE

    B, T, W, _ = given.segment.shape
    scores, tables, counts = arrays(*given)
    inputs = AS_ONE if given.edge.shape[1] == 1 else ROWWISE, scores.reshape(-1), tables, counts, T, W
    threads = torch.get_num_threads() if given.segment.numel() >= SHARED else 1
    on_threads(lambda _, first, last: kernel(*inputs, first, last, *rest), shares_of(B, threads))
