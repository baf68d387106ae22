"""Registration, autograd and dispatch of the linear chain. Shapes as in :mod:`lnz.ops.chain.reference`.

``lnz::chain`` computes value and marginals at once, without a tape over time. :class:`LogPartition` differentiates the
value by multiplying with the marginals; :class:`Marginals` differentiates those through ``reference.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.chain import reference, scaled


@torch.library.custom_op("lnz::chain", mutates_args=())
def _chain(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if use_kernels(node, edge):
        for dtype in (node.dtype, torch.float64):  # float64 has nine times the range of float32
            result = scaled.forward_backward(node.to(dtype), edge.to(dtype), lengths)
            if result is not None:
                return _cast(result, node.dtype)
    return _reference(node, edge, lengths)


def _reference(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wide = reference.accumulator(node)
    return _cast(reference.forward_backward(node.to(wide), edge.to(wide), lengths), node.dtype)


def _cast(results: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    log_z, nodes, edges = results
    return log_z.to(dtype), nodes.to(dtype), edges.to(dtype)


@_chain.register_fake
def _(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B = node.shape[0]
    return node.new_empty(B), torch.empty_like(node), node.new_empty(B, *edge.shape[1:])


class LogPartition(torch.autograd.Function):
    """ln Z and the marginals of nodes and edges, of which ln Z is differentiable here."""

    @staticmethod
    def forward(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _chain(node, edge, lengths)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, nodes, edges = output
        ctx.mark_non_differentiable(nodes, edges)
        ctx.save_for_backward(*inputs, nodes, edges)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        node, edge, lengths, nodes, edges = ctx.saved_tensors
        nodes, edges = Marginals.apply(node, edge, lengths, nodes, edges)
        grad_edge = grad[:, None, None, None] * edges
        return grad[:, None, None] * nodes, grad_edge.sum_to_size(edge.shape), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        outputs = LogPartition.apply(*_folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0, 0)


class Marginals(torch.autograd.Function):
    """The marginals that :class:`LogPartition` has computed, as functions of the scores."""

    @staticmethod
    def forward(node: Tensor, edge: Tensor, lengths: Tensor, nodes: Tensor, edges: Tensor) -> Any:
        return nodes.view_as(nodes), edges.view_as(edges)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad_nodes: Tensor, grad_edges: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths = ctx.saved_tensors
        _, pullback = torch.func.vjp(lambda x, a: _reference(x, a, lengths)[1:], node, edge)[:2]
        return *pullback((grad_nodes, grad_edges)), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        outputs = Marginals.apply(*_folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0)


def _folded(size: int, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Each input with the vmapped axis folded into its batch axis."""
    outer = [x.expand(size, *x.shape) if d is None else x.movedim(d, 0) for x, d in zip(inputs, in_dims, strict=True)]
    batch = outer[0].shape[1]  # that of the node scores; edge scores may have 1
    return [x.expand(size, batch, *x.shape[2:]).flatten(0, 1) for x in outer]


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, node marginals ``[B, T, L]``, edge marginals ``[B, S, L, L]`` (summed over positions if S = 1).

    All three are differentiable any number of times; the derivative of ln Z costs a multiplication.
    """
    log_z, nodes, edges = LogPartition.apply(node, edge, lengths)
    return log_z, *Marginals.apply(node, edge, lengths, nodes, edges)
