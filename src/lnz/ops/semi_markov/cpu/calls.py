"""Calls into the kernels: tensors as they read them, and which thread does what."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.jit import buffers
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import arrays
from lnz.ops.semi_markov.cpu.arguments import AS_ONE, ROWWISE, Inputs, Results
from lnz.ops.semi_markov.records import Segments

SHARED = 2**16  # scores of segments from which threads share the work
_LIMIT = {torch.float32: 1e-26, torch.float64: 1e-260}  # underflow below it is negligible


def forward_backward(given: Segments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ln Z, float64 ``[B]``, the marginals of segments and of edges, and which entries are in range, bool ``[B]``.

    The results of the others, which have scores that are NaN or ∞, mean nothing. O(B T (W L + L²)) time, O(B T L)
    memory beside the marginals.
    """
    B, T, _, L = given.segment.shape
    edges = buffers.empty(B, *given.edge.shape[1:], dtype=given.segment.dtype)
    nothing = torch.empty(0, B, T, 2, dtype=torch.float64), torch.empty(0, B, T, dtype=torch.int64)
    log_z, segments, in_range = _run(given, edges.view(-1, L, L), *nothing)
    return log_z, segments, edges, in_range


def viterbi(given: Segments) -> tuple[Tensor, Tensor]:
    """A best segmentation ``int64 [B, T]`` and its score, float64 ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.semi_markov.cpu.viterbi import viterbi as best

    B, T = given.segment.shape[:2]
    labels, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    _in_parallel(best, given, labels.numpy(), scores.numpy())
    return labels, scores


def sample(given: Segments, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Segmentations ``int64 [n, B, T]`` by numbers ``[n, B, T, 2]`` in [0, 1), and which entries are in range."""
    labels = torch.empty(uniform.shape[:-1], dtype=torch.int64)
    one = torch.empty(1, *given.edge.shape[2:], dtype=given.segment.dtype)
    return labels, _run(given, one, uniform.double(), labels)[-1]


def _run(given: Segments, edges: Tensor, uniform: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z, marginals of segments or what the pass back leaves there, and which entries are in range."""
    from lnz.ops.semi_markov.cpu.forward_backward import run

    B, segment = len(given.segment), given.segment
    log_z, in_range = torch.empty(B, dtype=torch.float64), torch.empty(B, dtype=torch.bool)
    segments = buffers.empty(*segment.shape, dtype=segment.dtype)
    _in_parallel(run, given, Results(*(x.numpy() for x in (log_z, segments, edges, in_range, uniform, labels))))
    return log_z, segments, in_range


def _in_parallel(kernel: Any, given: Segments, *results: Any) -> None:
    """Call a kernel on one thread or on as many as torch has."""
    kind = AS_ONE if given.edge.shape[1] == 1 else ROWWISE
    segment, edge, lengths = arrays(*given)
    inputs = Inputs(kind, segment, edge, lengths, _LIMIT[given.segment.dtype])
    threads = torch.get_num_threads() if given.segment.numel() >= SHARED else 1
    parallel(kernel, partition(len(given.segment), threads, 4), inputs, *results)
