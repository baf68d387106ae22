"""ln P(y) of full labellings: registration, autograd and dispatch. Shapes as in :mod:`lnz.ops.chain.reference`.

``lnz::chain_log_prob`` is the pass of :mod:`lnz.ops.chain.op` with the score of a labelling, ``lnz::chain_gradient``
gold − marginals from what it gives. What need not be traced or transformed is trained faster by
:mod:`lnz.ops.chain.training`.

``LogProbability.forward`` takes ``*inputs``, and keeps its signature: torch works it out and binds it in every call.
(The compiler, which never sees that function, wants names.)
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.ops import unobserved, use_kernels
from lnz.ops.chain import kernel, reference
from lnz.ops.chain.autograd import EdgeMarginals, NodeMarginals, applied
from lnz.ops.chain.edges import factored, scattered
from lnz.ops.chain.op import Pass, _and_lost, _entries, _solved
from lnz.ops.vmapped import folded


def _log_prob_now(
    node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """ln P(y), then what ``lnz::chain`` returns.

    s(y) − ln Z is taken in float64, before it is rounded, with an error of their rounding there; where the range takes
    logarithms, ln P(y) comes from the reference.
    """
    log_z, nodes, before, after, exact, logarithms = _solved(node, edge, lengths)
    if use_kernels(node, edge) and node.numel():
        log_prob = kernel.log_prob(node, edge, lengths, y, log_z)
    else:
        log_prob = torch.empty_like(log_z)
    if logarithms.any():
        lost, wide = logarithms.nonzero()[:, 0], reference.accumulator(node)
        scores = node[lost].to(wide), _entries(edge, lost).to(wide)
        log_prob[lost] = reference.log_prob(*scores, lengths[lost], y[lost]).to(log_prob.dtype)
    return log_prob.to(node.dtype), log_z, nodes, before, after, exact


_log_prob = torch.library.custom_op("lnz::chain_log_prob", _log_prob_now, mutates_args=())


@_log_prob.register_fake
def _(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    a, b, c = (torch.empty_like(node, memory_format=torch.contiguous_format) for _ in range(3))
    log_prob, log_z = node.new_empty(len(node)), node.new_empty(len(node), dtype=reference.accumulator(node))
    return log_prob, log_z, a, b, c, torch.empty_like(lengths, dtype=torch.bool)


def _gradient_now(
    node: Tensor,
    edge: Tensor,
    lengths: Tensor,
    y: Tensor,
    nodes: Tensor,
    before: Tensor,
    after: Tensor,
    exact: Tensor,
    gold: Tensor,
    model: Tensor,
    with_node: bool,
    with_edge: bool,
) -> tuple[Tensor, Tensor]:
    """``gold`` · indicators of y + ``model`` · marginals, weights ``[B]``, for nodes and edges; empty if not wanted."""
    if edge.shape[:2] == (1, 1) and node.numel() and use_kernels(node, edge):
        given = nodes, before, after, gold, model
        at_node, at_edge = kernel.gradient(edge, lengths, y, *given, with_node, with_edge)
        return at_node, _and_lost(at_edge, node, edge, lengths, exact, model) if with_edge else at_edge
    at_node = _golden(nodes, lengths, y, gold, model) if with_node else node.new_empty(0)
    at_edge = edge.new_empty(0)
    if with_edge:
        at_edge = _and_lost(factored(edge, before, after, model), node, edge, lengths, exact, model)
        at_edge += scattered(edge.shape, y, lengths, gold)
    return at_node, at_edge


_gradient = torch.library.custom_op("lnz::chain_gradient", _gradient_now, mutates_args=())


def _golden(nodes: Tensor, lengths: Tensor, y: Tensor, gold: Tensor, model: Tensor) -> Tensor:
    inside = torch.arange(y.shape[1], device=y.device) < lengths[:, None]
    at_node = model[:, None, None] * nodes
    return at_node.scatter_add_(2, torch.where(inside, y, 0).unsqueeze(2), (gold[:, None] * inside).unsqueeze(2))


@_gradient.register_fake
def _(node: Tensor, edge: Tensor, *inputs: Any) -> tuple[Tensor, Tensor]:
    return tuple(
        torch.empty_like(x, memory_format=torch.contiguous_format) if wanted else x.new_empty(0)
        for x, wanted in zip((node, edge), inputs[-2:], strict=True)
    )  # type: ignore[return-value]


class LogProbability(torch.autograd.Function):
    """ln P(y) of a full labelling per chain, and :class:`Pass`."""

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:
        return (_log_prob_now if unobserved(*inputs) else _log_prob)(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[2:])
        ctx.save_for_forward(*inputs, *output[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None, None
        node, edge, lengths, y, nodes, *factors = ctx.saved_tensors
        if not torch.is_grad_enabled():
            with_node, with_edge = ctx.needs_input_grad[:2]
            weights = grad.contiguous(), -grad
            compute = _gradient_now if unobserved(node, edge, *weights) else _gradient
            inputs = node, edge, lengths, y, nodes, *factors, *weights
            both = compute(*inputs, with_node, with_edge)  # pyright: ignore[reportCallIssue]
            return both[0] if with_node else None, both[1] if with_edge else None, None, None
        return *gradients(node, edge, lengths, y, nodes, factors, grad, ctx.needs_input_grad), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        outputs = applied(LogProbability, *folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0,) * len(outputs)


LogProbability.forward.__signature__ = inspect.signature(LogProbability.forward)  # type: ignore[attr-defined]


def gradients(
    node: Tensor,
    edge: Tensor,
    lengths: Tensor,
    y: Tensor,
    nodes: Tensor,
    factors: Sequence[Tensor],
    grad: Tensor,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Those of Σ grad · ln P(y), as functions of the scores and of ``grad`` ``[B]``; the rest is what a pass gave."""
    at_node = at_edge = None
    if wanted[0]:
        at_node = _golden(applied(NodeMarginals, node, edge, lengths, nodes), lengths, y, grad, -grad)
    if wanted[1]:
        at_edge = applied(EdgeMarginals, node, edge, lengths, *factors, -grad)
        at_edge = at_edge + scattered(edge.shape, y, lengths, grad)
    return at_node, at_edge


def log_probability(node: Tensor, edge: Tensor, lengths: Tensor, y: Tensor) -> tuple[Tensor, Pass]:
    """ln P(y) ``[B]`` of full labellings y ``[B, T]``, of gradient gold − marginals; and the pass that it took."""
    log_prob, *done = applied(LogProbability, node, edge, lengths, y)
    return log_prob, Pass(*done)
