"""Calls into the kernels: tensors as they read them, and which thread does what."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.jit import buffers
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays
from lnz.ops.spans.records import Spans

SHARED = 2**15  # steps of the recursion, and scores, from which threads share the work
SHARES = 4  # per thread: sentences are of different lengths


def forward_backward(given: Spans) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, peaks and shares ``[B, N, N]``, and which entries are in range, bool ``[B]``.

    The results of the others, which have scores that are NaN or ∞, mean nothing.
    """
    from lnz.ops.spans.cpu.forward_backward import run

    scores = given.scores
    log_z, in_range = torch.empty(len(scores), dtype=torch.float64), torch.empty(len(scores), dtype=torch.bool)
    peaks, shares = scores.new_empty(scores.shape[:-1]), scores.new_empty(scores.shape[:-1])
    _in_parallel(run, given, log_z.numpy(), peaks.numpy(), shares.numpy(), in_range.numpy())
    return log_z, peaks, shares, in_range


def share(given: Spans, peaks: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
    """Marginals times the weight ``[B]`` of each sentence, ``[B, N, N, L]``."""
    from lnz.ops.spans.cpu.labels import share as run

    out = buffers.empty(*given.scores.shape, dtype=given.scores.dtype)
    _in_parallel(run, given, *arrays(peaks, shares, weight), out.numpy())
    return out


def viterbi(given: Spans) -> tuple[Tensor, Tensor]:
    """A best tree ``int64 [B, N, N]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.spans.cpu.viterbi import viterbi as best

    labels = torch.empty(given.scores.shape[:-1], dtype=torch.int64)
    totals = torch.empty(len(labels), dtype=torch.float64)
    _in_parallel(best, given, labels.numpy(), totals.numpy())
    return labels, totals


def sample(given: Spans, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Trees ``int64 [n, B, N, N]`` by numbers ``[n, B, 2 N, 2]`` in [0, 1), and which entries are in range."""
    from lnz.ops.spans.cpu.sample import draw

    labels = torch.empty((len(uniform), *given.scores.shape[:-1]), dtype=torch.int64)
    in_range = torch.empty(len(given.scores), dtype=torch.bool)
    _in_parallel(draw, given, uniform.double().numpy(), labels.numpy(), in_range.numpy())
    return labels, in_range


def _in_parallel(kernel: Any, given: Spans, *results: Any) -> None:
    """Call a kernel on one thread or on as many as torch has."""
    B, N = given.scores.shape[:2]
    many = B * N**3 // 6 + given.scores.numel() >= SHARED
    parts = SHARES * torch.get_num_threads() if many and torch.get_num_threads() > 1 else 1
    parallel(kernel, partition(B, parts), *arrays(*given), *results)
