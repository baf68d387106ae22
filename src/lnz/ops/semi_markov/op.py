"""Semi-Markov chains: ln Z, marginals of segments and of edges. Shapes as in :mod:`lnz.ops.semi_markov.reference`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.dispatch import Kernels
from lnz.ops.scaffold import Differentiable, Operator
from lnz.ops.semi_markov import reference
from lnz.ops.semi_markov.records import SHARED, Pass, Segments

KERNELS = Kernels("semi_markov")
KERNELS.register("cpu", "lnz.ops.semi_markov.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


def solve(given: Segments) -> Pass:
    """The pass, by the kernels where they serve, by the reference elsewhere and where scores are NaN or ∞."""
    dtype = given.segment.dtype
    run = KERNELS.find("forward_backward", *given[:2]) if given.segment.numel() else None
    if run is None:
        log_z, segments, edges = in_logs(given)
        return Pass(log_z, segments.to(dtype), edges.to(dtype))

    def kernel(some: Segments) -> tuple[tuple[Tensor, ...], Tensor]:
        *results, in_range = run(some)
        return tuple(results), in_range

    return Pass(*precision.climb(given, kernel, None, in_logs).results)


def in_logs(given: Segments) -> tuple[Tensor, Tensor, Tensor]:
    """What a pass gives, by the reference."""
    log_z, segments, edges = reference.forward_backward(*given.wide())
    return log_z, segments.contiguous(), edges.contiguous()


def gradient(weight: Tensor | None, given: Segments, done: Pass, wanted: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Σ_b weight_b · marginals of chain b, in the shapes of the scores; empty where not wanted."""
    segments, edges = (x if needed else x.new_empty(0) for x, needed in zip(done[1:], wanted, strict=True))
    if weight is not None:
        scale = weight[:, None, None, None]
        segments = scale * segments if wanted[0] else segments
        edges = scale * edges if wanted[1] else edges
    return segments, edges.sum(0, keepdim=True) if wanted[1] and len(given.edge) == 1 else edges


def marginals(given: Segments) -> tuple[Tensor, ...]:
    """Those of segments and of edges per chain, in plain torch."""
    return tuple(x.to(given.segment.dtype) for x in reference.forward_backward(*given.wide())[1:])


def _fake(given: Segments) -> Pass:
    segment, edge, _ = given
    log_z = segment.new_empty(len(segment), dtype=precision.accumulator(segment))
    return Pass(log_z, segment.new_empty(segment.shape), segment.new_empty(len(segment), *edge.shape[1:]))


SEMI_MARKOV = Differentiable(
    Operator("semi_markov", solve, _fake, Segments, Pass, SHARED), scores=2, gradient=gradient, marginals=marginals
)


def forward_backward(given: Segments) -> Pass:
    """The pass that the other functions here go on from. O(B T (W L + L²)) time, O(B T L) memory beside marginals."""
    return SEMI_MARKOV.solve(given)


def log_partition(given: Segments, done: Pass) -> Tensor:
    """ln Z ``[B]`` in the dtype that it was computed in, differentiable any number of times."""
    return SEMI_MARKOV.value(given, done)


def segment_marginals(given: Segments, done: Pass) -> Tensor:
    """P(a segment of label l and w + 1 steps starts at t) ``[B, T, W, L]``, differentiable any number of times."""
    return SEMI_MARKOV.gradient(None, given, done, (True, False))[0]


def edge_marginals(given: Segments, done: Pass) -> Tensor:
    """P(label k ends at t, l follows) ``[B, T − 1, L, L]``, differentiable any number of times.

    A pass of its own where one table serves all steps, whose marginals are sums.
    """
    B, T, _, L = given.segment.shape
    tables = given._replace(edge=given.edge.expand(B, max(0, T - 1), L, L))
    if given.edge.shape[1] != tables.edge.shape[1]:
        done = SEMI_MARKOV.solve(tables)
    return SEMI_MARKOV.gradient(None, tables, done, (False, True))[0]
