"""Registration, autograd and dispatch of CTC.

``lnz::ctc`` computes ln Q and the occupancies of states at once, without a tape over time; ``lnz::ctc_gradient`` makes
the gradient of the scores out of them, when it is asked for. Neither makes a second tensor of the size of the scores.
:class:`LogProb` differentiates the value, :class:`Gradient` that once more, through ``reference.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.ctc import kernel, reference
from lnz.ops.ctc.lattice import Lattice


@torch.library.custom_op("lnz::ctc", mutates_args=())
def _solved(
    scores: Tensor,
    prior: Tensor,
    labels: Tensor,
    direct: Tensor,
    lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    stays: bool,
    normalise: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    of = Lattice(labels, direct, lengths, target_lengths, blank, stays)
    if use_kernels(scores, prior) and scores.numel():
        return kernel.solve(scores, prior, of, normalise)
    wide = scores.to(accumulator(scores))
    log_z, occupancy = reference.forward_backward(wide - prior.to(wide), of)
    frames = reference.frames(wide, of)
    if normalise:
        log_z = log_z - (frames[..., 0] + frames[..., 1].log()).sum(1)
    return tuple(result.to(scores.dtype).contiguous() for result in (log_z, occupancy, frames))  # type: ignore[return-value]


@_solved.register_fake
def _(scores: Tensor, prior: Tensor, labels: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    B, T, _C = scores.shape
    return scores.new_empty(B), scores.new_empty(B, T, labels.shape[1] + 1), scores.new_empty(B, T, 2)


@torch.library.custom_op("lnz::ctc_gradient", mutates_args=())
def _gradient(
    factor: Tensor,
    scores: Tensor,
    prior: Tensor,
    labels: Tensor,
    direct: Tensor,
    lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    stays: bool,
    normalise: bool,
    value: Tensor,
    occupancy: Tensor,
    frames: Tensor,
) -> Tensor:
    of = Lattice(labels, direct, lengths, target_lengths, blank, stays)
    if use_kernels(factor, scores, prior) and scores.numel():
        return kernel.gradient(factor, scores, of, normalise, value, occupancy, frames)
    slopes = reference.gradient(scores, of, normalise, value, occupancy, frames)
    return slopes * factor.masked_fill(torch.isneginf(value), 0.0)[:, None, None]


@_gradient.register_fake
def _(factor: Tensor, scores: Tensor, *_: Any) -> Tensor:
    B, T, C = scores.shape
    if scores.transpose(0, 1).is_contiguous() and not scores.is_contiguous():
        return scores.new_empty(T, B, C).transpose(0, 1)
    return scores.new_empty(B, T, C)


def _differentiable(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> Tensor:
    """∂ ln Q / ∂ scores, ``[B, T, C]``, as a differentiable function of them."""
    wide = scores.to(accumulator(scores))
    log_z, occupancy = reference.forward_backward(wide - prior.to(wide), of)
    return reference.gradient(wide, of, normalise, log_z, occupancy, reference.frames(wide, of)).to(scores.dtype)


class LogProb(torch.autograd.Function):
    """ln Q, occupancies and frames, of which ln Q is differentiable here."""

    @staticmethod
    def forward(
        scores: Tensor,
        prior: Tensor,
        labels: Tensor,
        direct: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        stays: bool,
        normalise: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _solved(scores, prior, labels, direct, lengths, target_lengths, blank, stays, normalise)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        value, occupancy, frames = output
        ctx.mark_non_differentiable(occupancy, frames)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:6], value, occupancy, frames)
        ctx.settings = inputs[6:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 9
        *tensors, value, occupancy, frames = ctx.saved_tensors
        return Gradient.apply(grad, *tensors, *ctx.settings, value.detach(), occupancy, frames), *(None,) * 8

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        outputs = LogProb.apply(*_folded(info.batch_size, in_dims, inputs, prior=1))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0, 0)


class Gradient(torch.autograd.Function):
    """``factor`` times the gradient of ln Q to the scores, from what :class:`LogProb` has computed."""

    @staticmethod
    def forward(
        factor: Tensor,
        scores: Tensor,
        prior: Tensor,
        labels: Tensor,
        direct: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        stays: bool,
        normalise: bool,
        value: Tensor,
        occupancy: Tensor,
        frames: Tensor,
    ) -> Tensor:
        lattice = (labels, direct, lengths, target_lengths, blank, stays)
        return _gradient(factor, scores, prior, *lattice, normalise, value, occupancy, frames)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:7], inputs[10])
        ctx.settings = inputs[7:10]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        factor, scores, prior, *of, value = ctx.saved_tensors
        blank, stays, normalise = ctx.settings
        lattice = Lattice(*of, blank, stays)  # pyright: ignore[reportCallIssue]
        factor = factor.masked_fill(torch.isneginf(value), 0.0)

        def product(factor: Tensor, scores: Tensor) -> Tensor:
            return factor[:, None, None] * _differentiable(scores, prior, lattice, normalise)

        to_factor, to_scores = torch.func.vjp(product, factor, scores)[1](grad)
        return to_factor, to_scores, *(None,) * 11

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        output = Gradient.apply(*_folded(info.batch_size, in_dims, inputs, prior=2))
        return output.unflatten(0, (info.batch_size, -1)), 0


def _folded(size: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...], prior: int) -> list[Any]:
    """Each tensor with the vmapped axis folded into its batch axis; the prior, which has none, must not be mapped."""
    if in_dims[prior] is not None:
        raise ValueError("log_prior: expected one prior for all entries, got one per entry of a vmap; loop over them")
    folded = list(inputs)
    for i, (x, dim) in enumerate(zip(inputs, in_dims, strict=True)):
        if isinstance(x, Tensor) and i != prior:
            folded[i] = (x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
    return folded


def log_prob(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> Tensor:
    """ln Q of each target ``[B]``, differentiable twice to the scores ``[B, T, C]``; −inf where there is no alignment.

    The sum over alignments z of exp Σ_t (x_t(z_t) − prior(z_t)), where ``normalise`` with x_t − ln Σ_c exp x_t(c) for
    x_t. ``prior`` ``[C]`` is held constant.
    """
    return LogProb.apply(scores, prior, *of[:4], of.blank, of.stays, normalise)[0]


def marginals(scores: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """ln Z of the alignments ``[B]`` and the probability of each class at each frame ``[B, T, C]``, differentiable."""
    prior = torch.zeros(scores.shape[2], dtype=scores.dtype, device=scores.device)  # not mapped under vmap
    value, occupancy, frames = LogProb.apply(scores, prior, *of[:4], of.blank, of.stays, False)
    ones = torch.ones_like(value).detach()
    inputs = (ones, scores, prior, *of[:4], of.blank, of.stays, False, value.detach(), occupancy, frames)
    return value, Gradient.apply(*inputs)  # type: ignore[return-value]
