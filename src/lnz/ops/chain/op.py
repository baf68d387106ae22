"""Registration and dispatch of the linear chain. Shapes as in :mod:`lnz.ops.chain.reference`.

``lnz::chain`` computes ln Z, node marginals and two factors of the edge marginals at once, without a tape over time and
without a tensor of the size of the edge marginals; ``lnz::chain_edges`` makes those from the factors, summed to the
shape of the edge scores, in one matrix product where these are shared. What differentiates them is in
:mod:`lnz.ops.chain.autograd`; ln P(y) is :mod:`lnz.ops.chain.labelling`'s.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.chain import kernel, reference
from lnz.ops.chain.edges import factored


class Pass(NamedTuple):
    """What one forward–backward pass over B chains gives, as constants; :mod:`lnz.ops.chain.autograd` differentiates.

    Attributes:
        log_z: ln Z ``[B]``, in the dtype that it was computed in (:func:`lnz.ops.chain.reference.accumulator`), so that
            differences from it are rounded once.
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


def _chain_now(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _solved(node, edge, lengths)[:-1]


_chain = torch.library.custom_op("lnz::chain", _chain_now, mutates_args=())


def _solved(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What ``lnz::chain`` returns; and what took logarithms ``[B]``."""
    if not (use_kernels(node, edge) and node.numel()):
        log_z, nodes, _ = _reference(node, edge, lengths)
        none = torch.zeros_like(lengths).bool()
        return log_z, nodes, torch.zeros_like(nodes), torch.zeros_like(nodes), none, ~none
    log_z, nodes, before, after, exact = kernel.forward_backward(node, edge, lengths)
    logarithms = ~exact
    if logarithms.any():
        lost = logarithms.nonzero()[:, 0]
        before[lost], after[lost] = 0, 0
        rest = node[lost], _entries(edge, lost), lengths[lost]
        log_z[lost], nodes[lost], logarithms[lost] = _with_more_range(*rest)
    return log_z, nodes, before, after, exact, logarithms


def _with_more_range(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z and node marginals of chains that the kernel could not do in their own dtype: float64, then logarithms.

    And which of them took logarithms.
    """
    dtype, lost = node.dtype, torch.ones_like(lengths).bool()
    log_z, nodes = torch.empty_like(node[:, 0, 0], dtype=torch.float64), torch.empty_like(node)
    if dtype == torch.float32:
        log_z, nodes, _, _, exact = kernel.forward_backward(node.double(), edge.double(), lengths)
        lost, nodes = ~exact, nodes.to(dtype)
    if lost.any():
        log_z[lost], nodes[lost], _ = _reference(node[lost], _entries(edge, lost), lengths[lost])
    return log_z, nodes, lost


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
    log_z = node.new_empty(len(node), dtype=reference.accumulator(node))
    return log_z, a, b, c, torch.empty_like(lengths, dtype=torch.bool)


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
