"""Registration, autograd and dispatch of semi-Markov chains. Shapes as in :mod:`lnz.ops.semi_markov.reference`.

``lnz::semi_markov`` computes value and marginals at once, without a tape over time: by the kernels for float32 and
float64 on the CPU, by the reference elsewhere and where scores are NaN or ∞. :class:`LogPartition` differentiates the
value by multiplying with the marginals; :class:`Marginals` differentiates those through ``reference.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops import unobserved, use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.semi_markov import kernel, reference
from lnz.ops.vmapped import folded


def _semi_markov_now(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not (use_kernels(segment, edge) and segment.numel()):
        return _reference(segment, edge, lengths)
    log_z, segments, edges, exact = kernel.forward_backward(segment, edge, lengths)
    if not exact.all():
        lost = (~exact).nonzero()[:, 0]
        own = edge if len(edge) == 1 else edge[lost]
        log_z[lost], segments[lost], edges[lost] = _reference(segment[lost], own, lengths[lost])
    return log_z, segments, edges


_semi_markov = torch.library.custom_op("lnz::semi_markov", _semi_markov_now, mutates_args=())


def _reference(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulator(segment)
    log_z, segments, edges = reference.forward_backward(segment.to(wide), edge.to(wide), lengths)
    dtype = segment.dtype
    return log_z, segments.to(dtype).contiguous(), edges.to(dtype).contiguous()


@_semi_markov.register_fake
def _(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B = segment.shape[0]
    log_z = segment.new_empty(B, dtype=accumulator(segment))
    return log_z, segment.new_empty(segment.shape), segment.new_empty(B, *edge.shape[1:])


class LogPartition(torch.autograd.Function):
    """ln Z and the marginals of segments and edges, of which ln Z is differentiable here."""

    @staticmethod
    def forward(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _semi_markov(segment, edge, lengths)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, segments, edges = output
        ctx.mark_non_differentiable(segments, edges)
        ctx.save_for_backward(*inputs, segments, edges)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        segment, edge, lengths, segments, edges = ctx.saved_tensors
        segments, edges = Marginals.apply(segment, edge, lengths, segments, edges)
        grad = grad.to(segment.dtype)[:, None, None, None]
        return grad * segments, (grad * edges).sum_to_size(edge.shape), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        outputs = LogPartition.apply(*folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0, 0)


class Marginals(torch.autograd.Function):
    """The marginals that :class:`LogPartition` has computed, as functions of the scores."""

    @staticmethod
    def forward(segment: Tensor, edge: Tensor, lengths: Tensor, segments: Tensor, edges: Tensor) -> Any:
        return segments.view_as(segments), edges.view_as(edges)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad_segments: Tensor, grad_edges: Tensor) -> tuple[Tensor | None, ...]:
        segment, edge, lengths = ctx.saved_tensors
        _, pullback = torch.func.vjp(lambda s, a: _reference(s, a, lengths)[1:], segment, edge)[:2]
        return *pullback((grad_segments, grad_edges)), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        outputs = Marginals.apply(*folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0)


def forward_backward(segment: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, segment marginals ``[B, T, W, L]``, edge marginals ``[B, S, L, L]`` (summed over t if S = 1).

    All three are differentiable any number of times; the derivative of ln Z costs a multiplication. ln Z is in the
    dtype that it was computed in (:func:`accumulator`), so that differences from it are rounded once.
    """
    if constant(segment, edge):
        return (_semi_markov_now if unobserved(segment, edge) else _semi_markov)(segment, edge, lengths)
    log_z, segments, edges = LogPartition.apply(segment, edge, lengths)
    return log_z, *Marginals.apply(segment, edge, lengths, segments, edges)
