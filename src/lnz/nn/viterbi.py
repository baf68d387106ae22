"""Best taggings in operations that a tracer can follow: for ``torch.export`` and ONNX."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lnz.typing import IGNORE


def viterbi(node: Tensor, edge: Tensor, start: Tensor, end: Tensor, mask: Tensor) -> Tensor:
    """The best tags ``int64 [B, T]`` of chains whose steps are those of ``mask``; −100 elsewhere.

    Backward, the best score of what follows each tag, ahead_t(k) = max_l A(k, l) + x_{t+1}(l) + ahead_{t+1}(l);
    forward, each tag given the one before. A step that the mask leaves out passes both on. No value is looked at, so
    that a sequence without a possible tagging is −100 throughout instead of an error. ``ahead`` is kept about 0, which
    changes no choice, so that float32 does for long sequences. O(T L²) time, O(T L) memory per sequence.

    Args:
        node: x ``[B, T, L]``.
        edge: A ``[L, L]``.
        start: ``[L]``, of the first tag.
        end: ``[L]``, of the last tag.
        mask: bool ``[B, T]``, any of the steps.
    """
    B, _, L = node.shape

    def backward(ahead: Tensor, x: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        onward = (edge + (x + ahead).unsqueeze(-2)).amax(-1)
        top = onward.amax(-1, keepdim=True)
        onward = onward - top.masked_fill(torch.isneginf(top), 0.0)
        return torch.where(there, onward, ahead), ahead.clone()

    def forward(before: Tensor, x: Tensor, there: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        best, tag = (before + x + ahead).max(-1)
        tag = torch.where(there.squeeze(-1) & ~torch.isneginf(best), tag, IGNORE)
        return torch.where(there, edge[tag.clamp(min=0)], before), tag

    steps = node.transpose(0, 1), mask.transpose(0, 1).unsqueeze(-1)
    aheads = scanned(backward, end.expand(B, L).clone(), *steps, reverse=True)
    tags = scanned(forward, start.expand(B, L).clone(), *steps, aheads).transpose(0, 1)
    complete = ((tags != IGNORE) == mask).all(1, keepdim=True)
    return torch.where(complete, tags, IGNORE)


def scanned(
    step: Callable[..., tuple[Tensor, Tensor]], carry: Tensor, *inputs: Tensor, reverse: bool = False
) -> Tensor:
    """What ``step`` gives beside its carry at each of the first axis of ``inputs``, stacked.

    While a model is exported, by ``torch.scan``, which keeps one step in the graph and any number of them possible. It
    is a prototype, and only there is nothing else that does.
    """
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan

        return scan(lambda c, xs: step(c, *xs), carry, inputs, reverse=reverse)[1]
    found = []
    for t in reversed(range(len(inputs[0]))) if reverse else range(len(inputs[0])):
        carry, output = step(carry, *(x[t] for x in inputs))
        found.append(output)
    if not found:
        return step(carry, *(x.new_zeros(x.shape[1:]) for x in inputs))[1][None][:0]
    return torch.stack(found[::-1] if reverse else found)
