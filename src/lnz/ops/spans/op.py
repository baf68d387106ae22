"""Binary trees: ln Z and marginals of labelled spans. Shapes as in :mod:`lnz.ops.spans.reference`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.charts import within
from lnz.ops.dispatch import Kernels
from lnz.ops.jit.triton import SERVED
from lnz.ops.scaffold import Differentiable, Operator
from lnz.ops.spans import reference
from lnz.ops.spans.records import Pass, Spans

KERNELS = Kernels("spans")
KERNELS.register("cpu", "lnz.ops.spans.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))
KERNELS.register("triton", "lnz.ops.spans.gpu", **SERVED)


def solve(given: Spans) -> Pass:
    """The pass, by the kernels where they serve, by the reference elsewhere and where scores are NaN or ∞."""
    run = KERNELS.find("forward_backward", given.scores) if given.scores.numel() else None
    if run is None and given.scores.numel():
        run_in_any_range = KERNELS.find("solve", given.scores)
        if run_in_any_range is not None:
            return Pass(*run_in_any_range(given.scores, given.lengths))
    if run is None:
        log_z, peaks, shares = in_logs(given)
        return Pass(log_z, peaks.to(given.scores.dtype), shares.to(given.scores.dtype))

    def kernel(some: Spans) -> tuple[tuple[Tensor, ...], Tensor]:
        *results, in_range = run(some)
        return tuple(results), in_range

    return Pass(*precision.climb(given, kernel, None, in_logs).results)


def in_logs(given: Spans) -> tuple[Tensor, Tensor, Tensor]:
    """What a pass gives, by the reference."""
    wide = given.wide()
    mass = reference.marginals(*wide).sum(-1)
    spans = within(wide.scores.shape[1], wide.lengths)
    scores = torch.where(spans.unsqueeze(-1), wide.scores, 0.0)
    peaks = scores.amax(-1)
    peaks = peaks.masked_fill(torch.isneginf(peaks), 0.0)
    shares = torch.where(mass == 0, 0.0, mass / (scores - peaks.unsqueeze(-1)).exp().sum(-1))
    return reference.log_partition(*wide).to(wide.scores.dtype), peaks, shares


def gradient(weight: Tensor | None, given: Spans, done: Pass, wanted: Sequence[bool]) -> tuple[Tensor]:
    """weight_b · the marginals of sentence b."""
    scores, lengths, shares = given.scores, given.lengths, done.shares
    run = KERNELS.find("share", scores) if scores.numel() else None
    if run is not None:
        weight = shares.new_ones(len(scores)) if weight is None else weight.to(shares.dtype)
        return (run(given, done.peaks, shares, weight),)
    shares = shares if weight is None else shares * weight[:, None, None]
    scores = torch.where(within(scores.shape[1], lengths).unsqueeze(-1), scores, -torch.inf)
    return ((scores - done.peaks.unsqueeze(-1)).exp() * shares.unsqueeze(-1),)


def _marginals(given: Spans) -> tuple[Tensor]:
    return (reference.marginals(*given.wide()).to(given.scores.dtype),)


def _fake(given: Spans) -> Pass:
    log_z = given.scores.new_empty(len(given.scores), dtype=precision.accumulator(given.scores))
    shape = given.scores.shape[:-1]
    return Pass(log_z, given.scores.new_empty(shape), given.scores.new_empty(shape))


SPANS = Differentiable(Operator("spans", solve, _fake, Spans, Pass), scores=1, gradient=gradient, marginals=_marginals)


def forward_backward(given: Spans) -> Pass:
    """The pass that the other functions here go on from. O(B (N³ + N² L)) time, O(B N²) memory."""
    return SPANS.solve(given)


def log_partition(given: Spans, done: Pass) -> Tensor:
    """ln Z ``[B]`` in the dtype that it was computed in, differentiable any number of times."""
    return SPANS.value(given, done)


def marginals(given: Spans, done: Pass) -> Tensor:
    """P(span i … j with label l is in the tree) ``[B, N, N, L]``, differentiable any number of times."""
    return SPANS.gradient(None, given, done, (True,))[0]
