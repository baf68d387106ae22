"""Linear chains in the exponential domain: one small matrix product per step, rescaled so that nothing overflows.

Shapes as in :mod:`lnz.ops.chain.reference`. Rows x_t and tables A_t are shifted to a maximum of 0 and
exponentiated, and α_t is normalised to sum 1; the normalisers multiply to Z (Rabiner 1989, section V.A). The backward
recursion is the forward one on the reversed chain, so that both are one batched product per step.

Underflow is ruled out after the fact. A step multiplies a state with factors of at least min x · min A, exact zeros
left out. So if the smallest state that is not exactly 0, times that, lies inside the range of the dtype, then nothing
was lost, and the zeros are those of impossible labels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def forward_backward(node: Tensor, edge: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """As :func:`lnz.ops.chain.reference.forward_backward`; ``None`` where the range of the dtype may not be enough.

    O(B T L²) time, O(B T L) memory beside the edge marginals.
    """
    if not (node.numel() and edge.numel()):
        return None
    inside = (torch.arange(node.shape[1], device=node.device)[:, None] < lengths)[..., None]  # [T, B, 1]
    x = node.transpose(0, 1).masked_fill(~inside, 0.0)
    top, highest = x.amax(-1, keepdim=True), edge.amax((-1, -2))
    x, a = (x - top).exp(), (edge - highest[..., None, None]).exp().transpose(0, 1)
    state, message, scale = _sweep(torch.stack((x, x.flip(0)), 1), torch.stack((a, a.flip(0).mT), 1), lengths)
    alpha, beta, onward = state[:, 0], message[:, 1].flip(0), state[:, 1].flip(0)  # onward is x · β, normalised
    limit = 0.9 * math.log(torch.finfo(node.dtype).max)
    smallest = torch.minimum(_smallest(alpha, inside), _smallest(onward, inside)).log()
    if not smallest + _smallest(x, inside).log() + _smallest(a, True).log() > -limit:  # false for NaN too
        return None

    joint = alpha * beta
    z = joint.sum(-1, keepdim=True)
    nodes = (joint / z).masked_fill(~inside, 0.0).transpose(0, 1).contiguous()
    before = (alpha[:-1] / z[:-1]).masked_fill(~inside[1:], 0.0).transpose(0, 1)  # [B, T - 1, L]
    after = onward[1:].masked_fill(~inside[1:], 0.0).transpose(0, 1)
    a = a.transpose(0, 1)
    edges = (before.mT @ after).unsqueeze(1) * a if a.shape[1] == 1 else before.unsqueeze(-1) * after.unsqueeze(-2) * a

    steps = (scale[:, 0].log() + top).masked_fill(~inside, 0.0)
    shifts = highest.T.expand(len(x) - 1, len(node)).masked_fill(~inside[1:, :, 0], 0.0)
    log_z = steps.sum((0, 2), dtype=torch.float64) + shifts.sum(0, dtype=torch.float64)  # a long sum of small terms
    return log_z.to(node.dtype), nodes, edges.contiguous()


def _smallest(values: Tensor, where: Tensor | bool) -> Tensor:
    """The smallest of the values ``where``, exact zeros left out; NaN if any of them is."""
    return torch.where((values != 0) & where, values, 1.0).amin()


def _sweep(x: Tensor, a: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The recursion over a chain and its reverse: x ``[T, 2, B, L]`` and tables ``[S, 2, B or 1, L, L]``.

    Returns the normalised states and the messages they come from, ``[T, 2, B, L]``, and the normalisers
    ``[T, 2, B, 1]``. Reversed chains start where their padding ends, whatever came before.
    """
    T, _, B, L = x.shape
    rows = (2, B, L) if a.shape[2] == 1 else (2 * B, 1, L)  # tables shared by the batch multiply all rows at once
    tables = a.reshape(len(a), -1, L, L).unbind(0)
    state, message, scale = torch.empty_like(x), torch.ones_like(x), x.new_empty(T, 2, B, 1)
    products, sources = message.view(T, *rows).unbind(0), state.view(T, *rows).unbind(0)
    xs, states, messages, scales = x.unbind(0), state.unbind(0), message.unbind(0), scale.unbind(0)
    starts = set((T - lengths).tolist())
    for t in range(T):
        if t:
            torch.bmm(sources[t - 1], tables[t - 1 if len(tables) > 1 else 0], out=products[t])
            if t in starts:
                messages[t][1].masked_fill_((lengths == T - t)[:, None], 1.0)
        torch.mul(messages[t], xs[t], out=states[t])
        torch.sum(states[t], -1, keepdim=True, out=scales[t])
        states[t].div_(scales[t])
    return state, message, scale
