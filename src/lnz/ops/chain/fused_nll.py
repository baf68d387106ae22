"""A multiple of ln P(y) with its gradient in one pass, on the processor, outside torch's dispatcher: for training.

The gradient is made together with the value, as if what comes back from the loss were 1. Where backward brings 1, it is
handed over as it is (autograd copies what is kept for a further call); where it brings one other number, it is scaled;
where numbers differ between sequences, a second pass takes them in. What is traced, vectorised or differentiated once
more goes through :mod:`lnz.ops.chain.log_prob`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.checks import plain
from lnz.ops import precision
from lnz.ops.chain import log_prob
from lnz.ops.chain.op import KERNELS
from lnz.ops.chain.records import Ended, Fused
from lnz.ops.dispatch import is_eager

FEWEST = 4  # sequences: with fewer, most of the eight rows that the kernel works on are empty


def scaled_log_prob(
    node: Tensor,
    edge: Tensor,
    lengths: Tensor | None,
    y: Tensor,
    scale: float = 1.0,
    ends: Tensor | None = None,
) -> Tensor | None:
    """``scale`` · ln P(y) ``[*batch]`` of full labellings; ``None`` where y is none, or this is not served here.

    Args:
        node: ``[*batch, T, L]``.
        edge: ``[L, L]``; other shapes are not served.
        lengths: ``int64 [*batch]`` or ``None``.
        y: ``[*batch, T]``.
        scale: such as −1 / B for the terms of a mean loss, whose gradients are then made only once.
        ends: ``[2, L]``, on top of the scores of the first and of the last label; or ``None``.
    """
    if not _serves(node, edge, ends, lengths, y):
        return None
    *batch, T, L = node.shape
    B = math.prod(batch)
    counts = torch.full((B,), T) if lengths is None else lengths.reshape(B)
    added = node.new_zeros(2, L) if ends is None else ends
    given = Ended(node.detach().reshape(B, T, L), edge.detach()[None, None], counts, y.reshape(B, T), added.detach())
    grad = torch.is_grad_enabled()
    wanted = grad and (node.requires_grad or added.requires_grad), grad and edge.requires_grad
    done = fused(given, node.new_full((B,), scale), wanted)
    if done is None:
        return None
    value = (done.log_prob if scale == 1 else done.log_prob * scale).view(batch)
    if not any(wanted):
        return value
    return FusedLogProb.apply(
        node, edge, added, given, _shaped(done, given, node, edge, grad and added.requires_grad), value, scale
    )


def _shaped(done: Fused, given: Ended, node: Tensor, edge: Tensor, with_ends: bool) -> list[Tensor | None]:
    """The gradients with respect to ``node``, ``edge`` and, if asked for, the ends, in their shapes."""
    at_node = None if done.at_node is None else done.at_node.reshape(node.shape)
    at_edge = None if done.at_edge is None else done.at_edge.reshape(edge.shape)
    if done.at_node is None or not with_ends:
        return [at_node, at_edge, None]
    return [at_node, at_edge, _at_ends(done.at_node, given.lengths)]


def _at_ends(at_node: Tensor, lengths: Tensor) -> Tensor:
    """What of ``at_node [B, T, L]`` is that of the first and of the last label, summed: ``[2, L]``."""
    last = at_node[torch.arange(len(lengths)), lengths - 1]  # of an empty sequence, −1, it is 0
    return torch.stack((at_node[:, 0], last)).sum(1)


def _serves(node: Tensor, edge: Tensor, ends: Tensor | None, lengths: Tensor | None, y: Tensor) -> bool:
    return (
        edge.dim() == 2
        and (ends is None or plain(ends))
        and isinstance(y, Tensor)
        and y.shape == node.shape[:-1]
        and y.dtype == torch.int64
        and (lengths is None or (lengths.shape == node.shape[:-2] and plain(lengths)))
        and is_eager(node, edge, y)
        and node.shape[:-2].numel() >= FEWEST
        and node.numel() > 0
        and KERNELS.find("fused_log_prob", node, edge) is not None
    )


def fused(given: Ended, weight: Tensor, wanted: Sequence[bool]) -> Fused | None:
    """ln P(y) and its gradients times ``weight`` ``[B]``; ``None`` where y is no full labelling."""
    run = KERNELS.find("fused_log_prob", given.node, given.edge)
    done = None if run is None else run(given, weight, wanted)
    if done is not None and not done.in_range.all():
        _add_wide(given, weight, done)
    return done


def _add_wide(given: Ended, weight: Tensor, done: Fused) -> None:
    """Into ``done``: the sequences that left the range of the dtype, by the pass that climbs the precision ladder."""
    which = (~done.in_range).nonzero()[:, 0]
    some, share = precision.entries(given.folded(), which), weight[which]
    passed = log_prob.solve(some)
    done.log_prob[which] = passed.log_prob
    wanted = done.at_node is not None, done.at_edge is not None
    at_node, at_edge = log_prob.gradient(share, some, passed, wanted)
    if done.at_node is not None:
        done.at_node[which] = at_node
    if done.at_edge is not None:
        done.at_edge.add_(at_edge)


class FusedLogProb(torch.autograd.Function):
    """``scale`` · ln P(y), which has been computed, as a function of nodes ``[*batch, T, L]``, edges and ends."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        node: Tensor,
        edge: Tensor,
        ends: Tensor,
        given: Ended,
        made: Sequence[Tensor | None],
        value: Tensor,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(node, edge, ends, given.lengths, given.y, *made)
        ctx.scale = scale
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        node, edge, ends, lengths, y, *made = ctx.saved_tensors
        weight = grad.reshape(-1)
        if torch.is_grad_enabled() or not is_eager(grad):
            given = Ended(node.reshape(*y.shape, -1), edge[None, None], lengths, y, ends)
            found = _differentiable(given, weight * ctx.scale, [x is not None for x in made[:2]])
            gradients = _shaped(found, given, node, edge, made[2] is not None)
        elif (upstream := weight.numpy()).min() == (factor := float(upstream.max())):
            # what was made is handed over as the very tensors that are saved: autograd copies them if it must
            gradients = made if factor == 1 else [None if x is None else x * factor for x in made]
        else:
            given = Ended(node.detach().reshape(*y.shape, -1), edge.detach()[None, None], lengths, y, ends.detach())
            done = fused(given, weight * ctx.scale, [x is not None for x in made[:2]])
            assert done is not None  # of labels that have been looked at
            gradients = _shaped(done, given, node, edge, made[2] is not None)
        wanted = ctx.needs_input_grad[:3]
        return *(x if needed else None for x, needed in zip(gradients, wanted, strict=True)), None, None, None, None


def _differentiable(given: Ended, weight: Tensor, wanted: Sequence[bool]) -> Fused:
    """The gradients, as functions of the scores and of ``weight``."""
    labelled = given.folded()
    done = log_prob.LOG_PROB.solve(labelled)
    found = iter(log_prob.LOG_PROB.gradient(weight, labelled, done, wanted))
    at_node, at_edge = (next(found) if needed else None for needed in wanted)
    return Fused(done.log_prob, at_node, at_edge, given.lengths >= 0)
