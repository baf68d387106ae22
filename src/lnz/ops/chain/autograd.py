"""What differentiates the linear chain. Shapes as in :mod:`lnz.ops.chain.reference`.

ln Z by multiplying with the marginals, the marginals through ``reference.py``. What a pass gives is constant; each
answer from it is a node of its own in the graph of gradients, so that one pass serves any number of backward calls.
Forward mode is :mod:`lnz.ops.chain.tangents`'.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lnz.checks import constant
from lnz.ops import unobserved
from lnz.ops.chain.op import Pass, _chain, _chain_now, _edges, _reference
from lnz.ops.vmapped import folded

WITH_TANGENTS: dict[type[torch.autograd.Function], type[torch.autograd.Function]] = {}
"""The functions that also have a ``jvp``, without which the others are: the compiler traces none that has one."""


def applied(function: type[torch.autograd.Function], *inputs: Tensor) -> Any:
    """``function.apply``, in forward mode of the same function with its ``jvp``."""
    if forward_ad._current_level >= 0:
        function = WITH_TANGENTS[function]
    return function.apply(*inputs)


def _given(done: Tensor) -> Tensor:
    """What a pass has computed, as the output of a function: a view, but torch refuses a view a tangent of its own."""
    return done.view_as(done) if forward_ad._current_level < 0 else done.clone()


class ForwardBackward(torch.autograd.Function):
    """:class:`Pass`; a function of autograd's for its ``vmap`` rule, and because constants have no tangents."""

    @staticmethod
    def forward(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return _chain(node, edge, lengths)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, ...]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        outputs = applied(ForwardBackward, *folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0,) * len(outputs)


class LogPartition(torch.autograd.Function):
    """The ln Z that a pass has computed, as a function of the scores."""

    @staticmethod
    def forward(
        node: Tensor,
        edge: Tensor,
        lengths: Tensor,
        log_z: Tensor,
        nodes: Tensor,
        before: Tensor,
        after: Tensor,
        exact: Tensor,
    ) -> Tensor:
        return _given(log_z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3], *inputs[4:])
        ctx.save_for_forward(*inputs[:3], *inputs[4:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths, nodes, *factors = ctx.saved_tensors
        grad = grad.to(node.dtype)
        at_node = at_edge = None
        if ctx.needs_input_grad[0]:
            at_node = grad[:, None, None] * applied(NodeMarginals, node, edge, lengths, nodes)
        if ctx.needs_input_grad[1]:
            at_edge = applied(EdgeMarginals, node, edge, lengths, *factors, grad)
        return at_node, at_edge, *[None] * 6

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        return applied(LogPartition, *folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1)), 0


class NodeMarginals(torch.autograd.Function):
    """The node marginals that a pass has computed, as functions of the scores."""

    @staticmethod
    def forward(node: Tensor, edge: Tensor, lengths: Tensor, nodes: Tensor) -> Tensor:
        return _given(nodes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths = ctx.saved_tensors
        _, pull = torch.func.vjp(lambda x, a: _reference(x, a, lengths)[1], node, edge)[:2]
        return *pull(grad), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        return applied(NodeMarginals, *folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1)), 0


class EdgeMarginals(torch.autograd.Function):
    """Σ_b weight_b · the edge marginals of chain b, summed to the shape of the edge scores."""

    @staticmethod
    def forward(
        node: Tensor, edge: Tensor, lengths: Tensor, before: Tensor, after: Tensor, exact: Tensor, weight: Tensor
    ) -> Tensor:
        return _edges(node, edge, lengths, before, after, exact, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3], inputs[-1])
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths, weight = ctx.saved_tensors

        def total(node: Tensor, edge: Tensor, weight: Tensor) -> Tensor:
            each = _reference(node, edge, lengths)[2] * weight[:, None, None, None]
            return each.sum(0, keepdim=True) if len(edge) == 1 else each

        _, pull = torch.func.vjp(total, node, edge, weight)[:2]
        at_node, at_edge, at_weight = pull(grad)
        return at_node, at_edge, None, None, None, None, at_weight

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        entries = inputs[1].shape[0 if in_dims[1] is None else 0 if in_dims[1] else 1]
        each = applied(EdgeMarginals, *folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1))
        return (each.sum(1, keepdim=True) if entries == 1 else each), 0


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> Pass:
    """The pass that the other functions here go on from."""
    if constant(node, edge):
        return Pass(*(_chain_now if unobserved(node, edge) else _chain)(node, edge, lengths))
    return Pass(*applied(ForwardBackward, node, edge, lengths))


def log_partition(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """ln Z ``[B]`` in the dtype that it was computed in, differentiable any number of times."""
    return done.log_z if constant(node, edge) else applied(LogPartition, node, edge, lengths, *done)


def node_marginals(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """P(y_t = l) ``[B, T, L]``, differentiable any number of times."""
    if constant(node, edge):
        return done.nodes
    return applied(NodeMarginals, node, edge, lengths, done.nodes)


def edge_marginals(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """P(y_t = k, y_{t+1} = l) ``[B, T − 1, L, L]``, differentiable any number of times."""
    B, T, L = node.shape
    edge = edge.expand(B, max(0, T - 1), L, L)
    return applied(EdgeMarginals, node, edge, lengths, *done[2:], node.new_ones(B))
