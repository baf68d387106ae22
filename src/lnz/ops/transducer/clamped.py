"""ln P(y) whose gradient is clamped, as some losses of transducers offer it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.transducer.joint import JOINT
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.op import TRANSDUCER
from lnz.ops.transducer.records import Arcs, Joint


def clamped_log_prob(logits: Tensor, labels: Tensor, of: Lattice, blank: int, normalise: bool, clamp: float) -> Tensor:
    """:func:`~lnz.ops.transducer.op.log_prob`, each entry of its gradient to logits clamped to [−clamp, clamp].

    Clamped before it is multiplied by what comes in. Not the gradient of any function: differentiable once.
    """
    given = Joint(logits, labels, of.lengths, of.target_lengths, blank, normalise)
    return _Clamped.apply(logits, given, of.several, clamp)  # type: ignore[return-value]


class _Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, given: Joint, several: bool, clamp: float) -> Tensor:
        given = given._replace(logits=logits)
        made = JOINT.solve(given)
        done = TRANSDUCER.solve(Arcs(made.blank, made.label, given.lengths, given.target_lengths, several))
        ctx.save_for_backward(*given[:4], *made, done.blanks, done.labels)
        ctx.settings = given[4:], clamp
        return done.log_z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        tensors, (settings, clamp) = ctx.saved_tensors, ctx.settings
        (gradient,) = JOINT.compute((True,), *tensors[7:], *tensors[:4], *settings, *tensors[4:7])
        return gradient.clamp_(-clamp, clamp).mul_(grad[:, None, None, None].to(gradient.dtype)), None, None, None
