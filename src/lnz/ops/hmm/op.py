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
from lnz.ops.hmm import reference
from lnz.ops.jit import buffers


def joined(initial: Tensor, emission: Tensor) -> Tensor:
    """``emission [*batch, T, K]`` with ``initial [*batch, K]`` on top at the first step: node scores of the chain."""
    if constant(initial, emission) and emission.dtype in (torch.float32, torch.float64):
        batch = torch.broadcast_shapes(initial.shape[:-1], emission.shape[:-2])
        node = buffers.empty(*batch, *emission.shape[-2:], dtype=emission.dtype)
        scores = node.numpy()
        scores[...] = emission.detach().numpy()
        scores[..., :1, :] += initial.detach().numpy()[..., None, :]
        return node
    first = emission[..., :1, :] + initial.unsqueeze(-2)
    return torch.cat((first, emission[..., 1:, :].expand(*first.shape[:-2], -1, -1)), -2)


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
