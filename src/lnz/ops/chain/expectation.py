"""Expectations of sums over nodes and edges, and the entropy: right at any range of scores.

The kernels take O(B T L) memory, gradients included, where tables of pairs are shared. Shapes as in
:mod:`lnz.ops.chain.reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes
from lnz.ops import expectation as shared
from lnz.ops.chain import reference
from lnz.ops.chain.op import CHAIN, KERNELS
from lnz.ops.chain.records import Chains
from lnz.ops.chain.reference import conditionals, filtered, table
from lnz.ops.expectation import Family, Function, expected
from lnz.ops.precision import accumulator


def expectation(node: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor]) -> Tensor:
    """E[Σ_t u_t(y_t) + Σ_t v_t(y_t, y_{t+1})] ``[B]`` in the dtype of :func:`accumulator`; differentiable.

    O(B T L²) time.

    Args:
        node: ``[B, T, L]``.
        edge: ``[B or 1, S, L, L]``.
        lengths: ``[B]``.
        function: u ``[B, T, L]`` and v ``[B or 1, T − 1 or 1, L, L]``, both finite.
    """
    if serves(node, edge, *function):
        return expected(_CHAIN, node, edge, lengths, function)
    return _by_marginals(node, edge, lengths, *function)


def serves(*tensors: Tensor) -> bool:
    """Whether kernels serve expectations under such scores and functions."""
    return shared.serves(_CHAIN, *tensors)


def surprisal(node: Tensor, edge: Tensor, lengths: Tensor) -> Tensor:
    """E[−ln P(y)] ``[B]``, the entropy, by the kernels; as :func:`expectation`."""
    return expected(_CHAIN, node, edge, lengths, None)


def log_conditionals(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`lnz.ops.chain.reference.log_conditionals`, in the dtype of :func:`accumulator`."""
    wide = accumulator(node)
    return reference.log_conditionals(node.to(wide), edge.to(wide), lengths)


def reference_expectation(node: Tensor, edge: Tensor, lengths: Tensor, function: Function = None) -> Tensor:
    """E[Σ_t u_t(y_t) + Σ_t v_t(y_t, y_{t+1})] ``[B]``; without u and v, E[−ln P(y)].

    m_t(l) = E[what comes before y_t | y_t = l] + u_t(l) and
    m_{t+1}(l) = Σ_k P(y_t = k | y_{t+1} = l) (m_t(k) + v_t(k, l)) + u_{t+1}(l). For the entropy, v is
    −ln P(y_t = k | y_{t+1} = l), u is 0, and −ln P(y_n) comes at the end.
    """
    alpha, _ = filtered(node, edge, lengths)
    total, moment = node.new_zeros(len(node)), torch.zeros_like(node[:, :1].sum(1))
    for t, log_share in enumerate(alpha):
        if t:
            log_given = conditionals(alpha[t - 1], edge, t - 1)
            local = _surprisal(log_given) if function is None else table(function[1], t - 1)
            moment = (log_given.exp() * (moment.unsqueeze(-1) + local)).sum(-2)
        if function is not None:
            moment = moment + function[0][:, t]
        last = moment + _surprisal(log_share) if function is None else moment
        total = torch.where(lengths == t + 1, (log_share.exp() * last).sum(-1), total)
    return total


def _surprisal(log_prob: Tensor) -> Tensor:
    return -log_prob.masked_fill(torch.isneginf(log_prob), 0.0)


def _marginals(
    node: Tensor, edge: Tensor, lengths: Tensor, function: tuple[Tensor, Tensor], grad: Tensor
) -> tuple[Tensor, Tensor]:
    joint = edge.expand(broadcast_shapes(edge.shape, function[1].shape))
    chains = Chains(node, joint, lengths)
    at_node, at_edge = CHAIN.gradient(grad, chains, CHAIN.solve(chains), (True, True))
    return at_node, at_edge.sum_to_size(function[1].shape)


_CHAIN = Family(KERNELS, reference_expectation, _marginals)


def _by_marginals(node: Tensor, edge: Tensor, lengths: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """:func:`expectation` by the marginals, on any device and under any transform; O(B T L²) memory.

    Σ marginal · (f − max f), and the number of parts · max f: the rounding of marginals must not scale with what all
    values of f have in common.
    """
    B, T, L = node.shape
    tables = edge.expand(B, max(edge.shape[1], v.shape[1]) if T > 1 else 0, L, L)
    chains = Chains(node, tables, lengths)
    nodes, pairs = CHAIN.gradient(None, chains, CHAIN.solve(chains), (True, True))
    left = (lengths[:, None] - torch.arange(T, device=lengths.device)).clamp(min=0)  # steps from each on
    joined = (left - 1).clamp(min=0)
    total = _summed(nodes, u, left.clamp(max=1))
    joined = joined[:, :-1].clamp(max=1) if tables.shape[1] == T - 1 else joined[:, :1]
    return total + _summed(pairs.flatten(2), v.expand(-1, tables.shape[1], -1, -1).flatten(2), joined)


def _summed(marginals: Tensor, values: Tensor, number: Tensor) -> Tensor:
    """Σ marginals · values ``[B, S, M]``, of ``number [B, S]`` parts that all have marginals which sum to 1."""
    values = values.expand_as(marginals).to(accumulator(values))
    top = values.detach().amax(-1, keepdim=True)
    return (marginals * (values - top)).sum((1, 2)) + (number * top.squeeze(-1)).sum(1)
