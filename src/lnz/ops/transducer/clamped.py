"""ln P(y) whose gradient is clamped, as some losses of transducers offer it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.transducer.joint import joint_arcs, joint_slopes
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.op import solved_arcs


def clamped_log_prob(logits: Tensor, labels: Tensor, of: Lattice, blank: int, normalise: bool, clamp: float) -> Tensor:
    """:func:`~lnz.ops.transducer.op.log_prob`, each entry of its gradient to logits clamped to [−clamp, clamp].

    Clamped before it is multiplied by what comes in. Not the gradient of any function: differentiable once.
    """
    return _Clamped.apply(logits, labels, *of, blank, normalise, clamp)  # type: ignore[return-value]


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
        several: bool,
        blank: int,
        normalise: bool,
        clamp: float,
    ) -> Tensor:
        joint = (logits, labels, lengths, target_lengths)
        at_blank, at_label, scales = joint_arcs(*joint, blank, normalise)
        log_z, blanks, labels = solved_arcs(at_blank, at_label, lengths, target_lengths, several)
        ctx.save_for_backward(blanks, labels, *joint, scales)
        ctx.settings = (blank, normalise, clamp)
        return log_z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, scales = ctx.saved_tensors
        blank, normalise, clamp = ctx.settings
        gradient = joint_slopes(*tensors, blank, normalise, scales)
        return gradient.clamp_(-clamp, clamp).mul_(grad[:, None, None, None].to(gradient.dtype)), *(None,) * 7
