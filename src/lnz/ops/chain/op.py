"""Registration, autograd and dispatch of the linear chain. Shapes as in :mod:`lnz.ops.chain.reference`.

``lnz::chain`` computes ln Z, node marginals and two factors of the edge marginals at once, without a tape over time and
without a tensor of the size of the edge marginals; ``lnz::chain_edges`` makes those from the factors, summed to the
shape of the edge scores, in one matrix product where these are shared. The functions here
differentiate: ln Z by multiplying with the marginals, the marginals through ``reference.py``. What a pass gives is
constant; each answer from it is a node of its own in the graph of gradients, so that one pass serves any number of
backward calls. ln P(y) is :mod:`lnz.ops.chain.labelling`'s.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops import unobserved, use_kernels
from lnz.ops.chain import kernel, reference
from lnz.ops.chain.edges import factored


class Pass(NamedTuple):
    """What one forward–backward pass over B chains gives, as constants; the functions below differentiate.

    Attributes:
        log_z: ln Z ``[B]``.
        nodes: marginals ``[B, T, L]``.
        before: ``[B, T, L]``, and
        after: ``[B, T, L]``: P(y_t = k, y_{t+1} = l) = before_t(k) · after_{t+1}(l) · exp(A_t(k, l) − max A_t).
        factored: bool ``[B]``, where that holds; elsewhere the range of the dtype is too small for such factors.
    """

    log_z: Tensor
    nodes: Tensor
    before: Tensor
    after: Tensor
    factored: Tensor


Tensors = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _chain_now(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    log_z, nodes, before, after, exact = _solved(node, edge, lengths)
    return log_z.to(node.dtype), nodes, before, after, exact


_chain = torch.library.custom_op("lnz::chain", _chain_now, mutates_args=())


def _solved(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensors:
    """What ``lnz::chain`` returns, but ln Z in the dtype that it was computed in."""
    if not (use_kernels(node, edge) and node.numel()):
        log_z, nodes, _ = _reference(node, edge, lengths)
        return log_z, nodes, torch.zeros_like(nodes), torch.zeros_like(nodes), torch.zeros_like(lengths).bool()
    log_z, nodes, before, after, exact = kernel.forward_backward(node, edge, lengths)
    if not exact.all():
        lost = (~exact).nonzero()[:, 0]
        before[lost], after[lost] = 0, 0
        log_z[lost], nodes[lost] = _with_more_range(node[lost], _entries(edge, lost), lengths[lost])
    return log_z, nodes, before, after, exact


def _with_more_range(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """ln Z and node marginals of chains that the kernel could not do in their own dtype: float64, then logarithms."""
    dtype, lost = node.dtype, torch.ones_like(lengths).bool()
    log_z, nodes = torch.empty_like(node[:, 0, 0], dtype=torch.float64), torch.empty_like(node)
    if dtype == torch.float32:
        log_z, nodes, _, _, exact = kernel.forward_backward(node.double(), edge.double(), lengths)
        lost, nodes = ~exact, nodes.to(dtype)
    if lost.any():
        log_z[lost], nodes[lost], _ = _reference(node[lost], _entries(edge, lost), lengths[lost])
    return log_z, nodes


def _entries(edge: Tensor, which: Tensor) -> Tensor:
    return edge if len(edge) == 1 else edge[which]


def _reference(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Marginals in the dtype of the scores, ln Z in that of the recursion."""
    wide = reference.accumulator(node)
    log_z, nodes, edges = reference.forward_backward(node.to(wide), edge.to(wide), lengths)
    return log_z, nodes.to(node.dtype), edges.to(node.dtype)


@_chain.register_fake
def _(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    a, b, c = (torch.empty_like(node, memory_format=torch.contiguous_format) for _ in range(3))
    return node.new_empty(len(node)), a, b, c, torch.empty_like(lengths, dtype=torch.bool)


@torch.library.custom_op("lnz::chain_edges", mutates_args=())
def _edges(
    node: Tensor, edge: Tensor, lengths: Tensor, before: Tensor, after: Tensor, exact: Tensor, weight: Tensor
) -> Tensor:
    return _and_lost(factored(edge, before, after, weight), node, edge, lengths, exact, weight)


def _and_lost(total: Tensor, node: Tensor, edge: Tensor, lengths: Tensor, exact: Tensor, weight: Tensor) -> Tensor:
    """Add the weighted edge marginals of chains that the factors do not serve, in place."""
    if not exact.all():
        lost = (~exact).nonzero()[:, 0]
        rest = _edges_with_more_range(node[lost], _entries(edge, lost), lengths[lost], weight[lost])
        if len(edge) == 1:
            total += rest
        else:
            total[lost] = rest
    return total


def _edges_with_more_range(node: Tensor, edge: Tensor, lengths: Tensor, weight: Tensor) -> Tensor:
    """Σ weight · edge marginals, in the shape of the edge scores, of chains whose factors are out of range."""
    lost = torch.ones_like(lengths).bool()
    total = torch.zeros_like(edge, memory_format=torch.contiguous_format)
    if node.dtype == torch.float32 and use_kernels(node, edge) and node.numel():
        double = edge.double()
        _, _, before, after, exact = kernel.forward_backward(node.double(), double, lengths)
        lost = ~exact
        before[lost], after[lost] = 0, 0  # which may hold what is not a number
        total = factored(double, before, after, weight.double()).to(edge.dtype)
    if lost.any():
        rest = _reference(node[lost], _entries(edge, lost), lengths[lost])[2] * weight[lost, None, None, None]
        if len(edge) == 1:
            total += rest.sum(0, keepdim=True)
        else:
            total[lost] = rest
    return total


@_edges.register_fake
def _(node: Tensor, edge: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(edge, memory_format=torch.contiguous_format)


class ForwardBackward(torch.autograd.Function):
    """:class:`Pass`; a function of autograd's for its ``vmap`` rule only."""

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
        outputs = ForwardBackward.apply(*_folded(info.batch_size, in_dims, inputs))
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
        return log_z.view_as(log_z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3], *inputs[4:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths, nodes, *factors = ctx.saved_tensors
        at_node = at_edge = None
        if ctx.needs_input_grad[0]:
            at_node = grad[:, None, None] * NodeMarginals.apply(node, edge, lengths, nodes)
        if ctx.needs_input_grad[1]:
            at_edge = EdgeMarginals.apply(node, edge, lengths, *factors, grad)
        return at_node, at_edge, *[None] * 6

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        return LogPartition.apply(*_folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1)), 0


class NodeMarginals(torch.autograd.Function):
    """The node marginals that a pass has computed, as functions of the scores."""

    @staticmethod
    def forward(node: Tensor, edge: Tensor, lengths: Tensor, nodes: Tensor) -> Tensor:
        return nodes.view_as(nodes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths = ctx.saved_tensors
        _, pull = torch.func.vjp(lambda x, a: _reference(x, a, lengths)[1], node, edge)[:2]
        return *pull(grad), None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Any, Any]:
        return NodeMarginals.apply(*_folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1)), 0


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
        each = EdgeMarginals.apply(*_folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1))
        return (each.sum(1, keepdim=True) if entries == 1 else each), 0


def _folded(size: int, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Each input with the vmapped axis folded into its batch axis."""
    outer = [x.expand(size, *x.shape) if d is None else x.movedim(d, 0) for x, d in zip(inputs, in_dims, strict=True)]
    batch = outer[0].shape[1]  # that of the node scores; edge scores may have 1
    return [x.expand(size, batch, *x.shape[2:]).flatten(0, 1) for x in outer]


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> Pass:
    """The pass that the other functions here go on from."""
    if constant(node, edge):
        return Pass(*(_chain_now if unobserved(node, edge) else _chain)(node, edge, lengths))
    return Pass(*ForwardBackward.apply(node, edge, lengths))


def log_partition(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """ln Z ``[B]``, differentiable any number of times."""
    return done.log_z if constant(node, edge) else LogPartition.apply(node, edge, lengths, *done)


def node_marginals(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """P(y_t = l) ``[B, T, L]``, differentiable any number of times."""
    if constant(node, edge):
        return done.nodes
    return NodeMarginals.apply(node, edge, lengths, done.nodes)


def edge_marginals(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """P(y_t = k, y_{t+1} = l) ``[B, T − 1, L, L]``, differentiable any number of times."""
    B, T, L = node.shape
    edge = edge.expand(B, max(0, T - 1), L, L)
    return EdgeMarginals.apply(node, edge, lengths, *done[2:], node.new_ones(B))
