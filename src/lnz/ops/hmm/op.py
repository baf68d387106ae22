"""Node scores of the chain of a hidden Markov model; filtering out of the pass that smoothing makes.

Forward variables are factors of the edge marginals.

Shapes as in :mod:`lnz.ops.chain.reference`. The derivative goes through ``reference.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.checks import concrete, constant
from lnz.ops.chain import Pass
from lnz.ops.chain.reference import accumulator
from lnz.ops.hmm import reference
from lnz.ops.jit import buffers


def joined(initial: Tensor, emission: Tensor) -> Tensor:
    """``emission [*batch, T, K]`` with ``initial [*batch, K]`` on top at the first step: node scores of the chain.

    There the largest of either is taken away, as a constant, before they are added: :func:`offset`.
    """
    batch = torch.broadcast_shapes(initial.shape[:-1], emission.shape[:-2])
    if not emission.shape[-2]:
        return emission + initial.unsqueeze(-2)  # of no step: for gradients of 0
    if constant(initial, emission) and emission.dtype in (torch.float32, torch.float64):
        node = buffers.empty(*batch, *emission.shape[-2:], dtype=emission.dtype)
        scores, first, before = node.numpy(), emission.detach().numpy()[..., 0, :], initial.detach().numpy()
        scores[...] = emission.detach().numpy()
        scores[..., 0, :] = (first - _largest(emission[..., 0, :]).numpy()) + (before - _largest(initial).numpy())
        return node
    first = (emission[..., 0, :] - _largest(emission[..., 0, :])) + (initial - _largest(initial))
    return torch.cat((first.unsqueeze(-2), emission[..., 1:, :].expand(*first.shape[:-1], -1, -1)), -2)


def offset(initial: Tensor, emission: Tensor) -> Tensor:
    """What :func:`joined` takes away ``[*batch]``, in the dtype of :func:`accumulator`."""
    if not emission.shape[-2]:
        return emission.new_zeros(emission.shape[:-2], dtype=accumulator(emission))
    tops = (_largest(scores).squeeze(-1).to(accumulator(scores)) for scores in (initial, emission[..., 0, :]))
    return sum(tops, torch.zeros((), device=emission.device))


def _largest(scores: Tensor) -> Tensor:
    top = scores.detach().amax(-1, keepdim=True)
    return top.masked_fill(torch.isneginf(top), 0.0)


def filtered(node: Tensor, edge: Tensor, lengths: Tensor, done: Pass) -> Tensor:
    """As :func:`lnz.ops.hmm.reference.filtered`, given the pass over the same chains."""
    if not concrete(node, edge):
        return reference.filtered(node, edge, lengths)
    return Filtered.apply(node, edge, lengths, done.nodes, done.before, done.factored)  # type: ignore[return-value]


class Filtered(torch.autograd.Function):
    """α_t, normalised: ``before_t`` but for its scale, and the smoothed marginals at the last step."""

    @staticmethod
    def forward(node: Tensor, edge: Tensor, lengths: Tensor, nodes: Tensor, before: Tensor, factored: Tensor) -> Tensor:
        last = torch.arange(node.shape[1], device=node.device) == lengths[:, None] - 1
        total = before.sum(-1, keepdim=True)
        share = torch.where(last[..., None], nodes, before / total.masked_fill(total == 0, 1.0))
        lost = (~factored).nonzero()[:, 0]
        if len(lost):
            share[lost] = reference.filtered(node[lost], edge if len(edge) == 1 else edge[lost], lengths[lost])
        return share

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        node, edge, lengths = ctx.saved_tensors
        pull = torch.func.vjp(lambda x, a: reference.filtered(x, a, lengths), node, edge)[1]
        return *pull(grad), None, None, None, None
