"""CTC from hidden states and a projection matrix: the logits exist for a few frames at a time, and never altogether.

The forward pass needs of each frame only the normaliser and the scores of the target's labels; the backward pass makes
the logits of some frames once more, turns them into their gradient and multiplies that into those of the hidden states
and of the matrix. Beside these, memory is O(B T S + frames · C).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from lnz.ops.ctc.lattice import Lattice
from lnz.ops.ctc.op import log_prob, solved


def linear_log_prob(hidden: Tensor, weight: Tensor, bias: Tensor, prior: Tensor, of: Lattice, frames: int) -> Tensor:
    """ln Q of each target ``[B]`` under logits h Wᵀ + b, differentiable twice (the second time through the logits).

    Args:
        hidden: h ``[B, T, H]``.
        weight: W ``[C, H]``.
        bias: b ``[C]``.
        prior: ``[C]``, subtracted from normalised logits; a constant.
        of: the lattice of the targets.
        frames: for how many frames logits are held at once.
    """
    return _LinearLogProb.apply(hidden, weight, bias, prior, *of, frames)  # type: ignore[return-value]


class _LinearLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, prior: Tensor, *rest: Any) -> Tensor:
        of, frames = Lattice(*rest[:-1]), rest[-1]
        (B, T, _), S = hidden.shape, of.labels.shape[1]
        states, single = _classes(of), torch.promote_types(hidden.dtype, torch.float32)
        own = hidden.new_empty(B * T, S + 1, dtype=single)
        # of each frame the largest logit, and ln Σ exp of logits less that
        normalisers = hidden.new_empty(B * T, 2, dtype=single)
        rows = hidden.reshape(B * T, hidden.shape[-1])
        for part in torch.arange(B * T, device=hidden.device).split(frames) if B * T else ():
            logits = linear(rows[part], weight, bias).to(single)
            top = logits.amax(-1).nan_to_num(nan=torch.nan, posinf=torch.inf, neginf=0.0)
            logits.sub_(top[:, None])
            normalisers[part] = torch.stack((top, logits.logsumexp(-1)), -1)
            classes = states[part // T]
            own[part] = logits.gather(1, classes) - normalisers[part, 1:] - prior[classes]
        inside = torch.arange(T, device=hidden.device) < of.lengths[:, None]
        own = own.view(B, T, S + 1)
        if of.blank < 0:
            own[..., S] = -torch.inf
        # the same lattice over S + 1 classes of its own: one per label of the target, and last the blank
        compact = of._replace(labels=torch.arange(S, device=hidden.device).expand(B, S), blank=S)
        value, occupancy = solved(own, compact, any(ctx.needs_input_grad))
        ctx.save_for_backward(hidden, weight, bias, prior, *of[:4], value, occupancy, normalisers, inside)
        ctx.settings = (of.blank, of.stays, frames)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, prior, *lattice, value, occupancy, normalisers, inside = ctx.saved_tensors
        blank, stays, frames = ctx.settings
        of = Lattice(*lattice, blank, stays)  # pyright: ignore[reportCallIssue]
        if torch.is_grad_enabled():  # to be differentiated again
            logits = linear(torch.where(inside[..., None], hidden, 0.0), weight, bias)
            again = log_prob(logits, prior, of, True)
            wanted = [x for x, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(again, wanted, grad, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), *(None,) * 8
        B, T, _ = hidden.shape
        factor = grad.masked_fill(torch.isneginf(value), 0.0)[:, None] * inside
        factor = factor.reshape(B * T, 1).to(normalisers.dtype)
        rows, states = hidden.reshape(B * T, hidden.shape[-1]), _classes(of)
        to_hidden, to_weight, to_bias = torch.empty_like(rows), torch.zeros_like(weight), torch.zeros_like(bias)
        padding = ~inside.reshape(B * T, 1)
        for part in torch.arange(B * T, device=hidden.device).split(frames) if B * T else ():
            top, rest = normalisers[part].masked_fill(padding[part], 0.0).unbind(-1)
            own = rows[part].masked_fill(padding[part], 0.0)
            slopes = linear(own, weight, bias).to(normalisers.dtype)
            slopes.sub_(top[:, None]).sub_(rest[:, None]).exp_().neg_()
            slopes.scatter_add_(1, states[part // T], occupancy.view(B * T, occupancy.shape[-1])[part].to(slopes.dtype))
            slopes = slopes.mul_(factor[part]).masked_fill_(padding[part], 0.0).to(weight.dtype)
            to_hidden[part] = slopes @ weight
            to_weight.addmm_(slopes.T, own)
            to_bias += slopes.sum(0)
        return to_hidden.view_as(hidden), to_weight, to_bias, *(None,) * 8


def _classes(of: Lattice) -> Tensor:
    """The class of each label of a target and, last, of the blank (class 0 where there is none), ``[B, S + 1]``."""
    blank = torch.full_like(of.target_lengths, max(0, of.blank))
    return torch.cat((of.labels, blank[:, None]), 1)
