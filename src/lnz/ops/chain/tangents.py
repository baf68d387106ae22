"""Forward mode of the linear chain: functions with a ``jvp``. Shapes as in :mod:`lnz.ops.chain.reference`.

The derivative of ln Z along directions of the scores is their expectation. Marginals are derivatives of ln Z, whose
second ones are symmetric: theirs along a direction is what going backwards from it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from lnz.ops.chain import autograd, labelling
from lnz.ops.chain.autograd import WITH_TANGENTS, applied
from lnz.ops.chain.edges import scored
from lnz.ops.chain.op import _reference
from lnz.ops.chain.reference import accumulator

Function = TypeVar("Function", bound=type[torch.autograd.Function])


def _serves(function: type[torch.autograd.Function]) -> Callable[[Function], Function]:
    def register(with_tangents: Function) -> Function:
        WITH_TANGENTS[function] = with_tangents
        return with_tangents

    return register


@_serves(autograd.ForwardBackward)
class ForwardBackward(autograd.ForwardBackward):
    """Constants have no tangents."""

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> tuple[None, ...]:
        return None, None, None, None, None


@_serves(autograd.LogPartition)
class LogPartition(autograd.LogPartition):
    """ln Z."""

    @staticmethod
    def jvp(ctx: Any, node: Tensor | None, edge: Tensor | None, *_: None) -> Tensor:
        return _expected(ctx.saved_tensors, node, edge).to(accumulator(ctx.saved_tensors[0]))


@_serves(autograd.NodeMarginals)
class NodeMarginals(autograd.NodeMarginals):
    """P(y_t = l)."""

    @staticmethod
    def jvp(ctx: Any, node: Tensor | None, edge: Tensor | None, *_: None) -> Tensor:
        return _tangents(ctx.saved_tensors, node, edge)[0]


@_serves(autograd.EdgeMarginals)
class EdgeMarginals(autograd.EdgeMarginals):
    """Σ_b weight_b · the edge marginals of chain b."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        node, edge, lengths, *factors, weight = ctx.saved_tensors
        each = _tangents((node, edge, lengths), *tangents[:2])[1] * weight[:, None, None, None]
        total = each.sum(0, keepdim=True) if len(edge) == 1 else each
        if tangents[-1] is not None:
            total = total + applied(autograd.EdgeMarginals, node, edge, lengths, *factors, tangents[-1])
        return total


@_serves(labelling.LogProbability)
class LogProbability(labelling.LogProbability):
    """ln P(y)."""

    @staticmethod
    def jvp(ctx: Any, node: Tensor | None, edge: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        *scores, lengths, y = ctx.saved_tensors[:4]
        along = [torch.zeros_like(x) if dx is None else dx for x, dx in zip(scores, (node, edge), strict=True)]
        model = _expected((*scores, lengths, *ctx.saved_tensors[4:]), node, edge)
        return scored(along[0], along[1], lengths, y) - model, None, None, None, None, None


def _expected(done: Sequence[Tensor], along_node: Tensor | None, along_edge: Tensor | None) -> Tensor:
    """The expectation ``[B]`` of directions of the scores, given these, lengths, and of a pass all but ln Z."""
    node, edge, lengths, nodes, *factors = done
    total = torch.zeros_like(nodes[:, :, 0].sum(1))
    if along_node is not None:
        total = total + (applied(autograd.NodeMarginals, node, edge, lengths, nodes) * along_node).sum((1, 2))
    if along_edge is not None:
        each = edge.expand(len(node), *edge.shape[1:])
        edges = applied(autograd.EdgeMarginals, node, each, lengths, *factors, torch.ones_like(total))
        total = total + (edges * along_edge).sum((1, 2, 3))
    return total


def _tangents(chains: Sequence[Tensor], along_node: Tensor | None, along_edge: Tensor | None) -> tuple[Tensor, Tensor]:
    """The derivatives of the marginals along directions of the scores, those of edges per chain."""
    node, edge, lengths = chains
    edge = edge.expand(len(node), *edge.shape[1:])
    along_node = torch.zeros_like(node) if along_node is None else along_node
    along_edge = torch.zeros_like(edge) if along_edge is None else along_edge.expand_as(edge)
    _, pull = torch.func.vjp(lambda x, a: _reference(x, a, lengths)[1:], node, edge)[:2]
    return pull((along_node, along_edge))
