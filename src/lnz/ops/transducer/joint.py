"""From joint scores to the arcs of lattices: registration, autograd and dispatch.

``lnz::transducer_arcs`` reads the joint scores ``[B, T, U + 1, C]`` once, and leaves of every node the two
log-probabilities that matter, in double precision; ``lnz::transducer_slopes`` writes the gradient of the joint scores.
Nothing else of their size is ever made, neither a log-softmax nor a gradient of one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.transducer import kernel, reference
from lnz.ops.transducer.lattice import Lattice


@torch.library.custom_op("lnz::transducer_arcs", mutates_args=())
def joint_arcs(
    logits: Tensor, labels: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int, normalise: bool
) -> tuple[Tensor, Tensor, Tensor]:
    of = Lattice(lengths, target_lengths, True)
    if use_kernels(logits) and logits.numel():
        return kernel.arcs(logits, labels, of, blank, normalise)
    (B, T, W, _), wide = logits.shape, accumulator(logits)
    at_blank, at_label = logits.new_empty(B, T, W, dtype=wide), logits.new_empty(B, T, W - 1, dtype=wide)
    scales = logits.new_zeros(B, T, W, 2)
    inside = of.blanks(T, W - 1)
    for t in range(T):  # a frame at a time, for memory
        x, shift = logits[:, t].to(wide), at_blank.new_zeros(B, W)
        if normalise:
            scale = reference.normalisers(x, inside[:, t])
            scales[:, t], shift = scale, scale[..., 0] + scale[..., 1].log()
        at_blank[:, t], at_label[:, t] = reference.arcs(x, labels, inside[:, t], blank, shift)
    return at_blank, at_label, scales


@joint_arcs.register_fake
def _(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, W, _C), wide = logits.shape, accumulator(logits)
    arcs = logits.new_empty(B, T, W, dtype=wide), logits.new_empty(B, T, W - 1, dtype=wide)
    return *arcs, logits.new_empty(B, T, W, 2)


@torch.library.custom_op("lnz::transducer_slopes", mutates_args=())
def joint_slopes(
    to_blank: Tensor,
    to_label: Tensor,
    logits: Tensor,
    labels: Tensor,
    lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    normalise: bool,
    scales: Tensor,
) -> Tensor:
    of = Lattice(lengths, target_lengths, True)
    if use_kernels(logits, to_blank, to_label) and logits.numel():
        return kernel.slopes(to_blank, to_label, logits, labels, of, blank, normalise, scales)
    out, inside = torch.empty_like(logits, memory_format=torch.contiguous_format), of.blanks(*to_label.shape[1:])
    for t in range(logits.shape[1]):
        x = logits[:, t].to(to_blank.dtype)
        out[:, t] = reference.slopes(x, labels, inside[:, t], blank, normalise, (to_blank[:, t], to_label[:, t]))
    return out


@joint_slopes.register_fake
def _(to_blank: Tensor, to_label: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


class Arcs(torch.autograd.Function):
    """The scores of arcs, and of each node what its softmax needs; the arcs are differentiable here."""

    @staticmethod
    def forward(
        logits: Tensor, labels: Tensor, lengths: Tensor, target_lengths: Tensor, blank: int, normalise: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        return joint_arcs(logits, labels, lengths, target_lengths, blank, normalise)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(*inputs[:4], output[2])
        ctx.settings = inputs[4:]

    @staticmethod
    def backward(ctx: Any, to_blank: Tensor, to_label: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        *tensors, scales = ctx.saved_tensors
        return Slopes.apply(to_blank, to_label, *tensors, *ctx.settings, scales), *(None,) * 5  # type: ignore[return-value]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        outputs = Arcs.apply(*folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0, 0)


class Slopes(torch.autograd.Function):
    """The gradient of the joint scores from that of the arcs."""

    @staticmethod
    def forward(
        to_blank: Tensor,
        to_label: Tensor,
        logits: Tensor,
        labels: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        normalise: bool,
        scales: Tensor,
    ) -> Tensor:
        return joint_slopes(to_blank, to_label, logits, labels, lengths, target_lengths, blank, normalise, scales)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:6])
        ctx.settings = inputs[6:8]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_blank, to_label, logits, labels, lengths, target_lengths = ctx.saved_tensors
        blank, normalise = ctx.settings
        inside = Lattice(lengths, target_lengths, True).blanks(*to_label.shape[1:])

        def product(to_blank: Tensor, to_label: Tensor, logits: Tensor) -> Tensor:
            x, to = logits.to(to_blank.dtype), (to_blank, to_label)
            return reference.slopes(x, labels[:, None], inside, blank, normalise, to).to(logits.dtype)

        return *torch.func.vjp(product, to_blank, to_label, logits)[1](grad), *(None,) * 6

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return Slopes.apply(*folded(info.batch_size, in_dims, inputs)).unflatten(0, (info.batch_size, -1)), 0


def folded(size: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> list[Any]:
    """Each tensor with the vmapped axis folded into its batch axis."""
    return [
        (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1) if isinstance(x, Tensor) else x
        for x, dim in zip(inputs, in_dims, strict=True)
    ]


def arcs(logits: Tensor, labels: Tensor, of: Lattice, blank: int, normalise: bool) -> tuple[Tensor, Tensor]:
    """The scores of blank ``[B, T, U + 1]`` and label arcs ``[B, T, U]``, in double precision; differentiable.

    Args:
        logits: ``[B, T, U + 1, C]``.
        labels: ``int64 [B, U]``, classes; anything in 0 … C − 1 beyond the target.
        of: the lattices; what lies beside them is −inf.
        blank: the class of blank.
        normalise: whether ln Σ_c exp of the logits of each node is taken off.
    """
    return Arcs.apply(logits, labels, of.lengths, of.target_lengths, blank, normalise)[:2]
