"""Registration, autograd and dispatch of CTC.

``lnz::ctc`` computes ln Q and the occupancies of states at once, without a tape over time; ``lnz::ctc_gradient`` makes
the gradient of the scores out of them, when it is asked for. Neither makes a second tensor of the size of the scores.
Of long sequences no occupancies are kept: the gradient runs through the lattice again, in O(S √T) memory.
:class:`LogProb` differentiates the value, :class:`Gradient` that once more, through ``reference.py``. Where nothing is
differentiated, ln Q is computed alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops import use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.ctc import kernel, reference
from lnz.ops.ctc.lattice import Lattice, as_single


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
        if kernel.whole_lattice(len(scores), scores.shape[1], labels.shape[1]):
            return kernel.solve(scores, prior, of, normalise)
        log_z, frames = kernel.value(scores, prior, of, normalise)
        return log_z, scores.new_empty(len(scores), 0, labels.shape[1] + 1), frames
    log_z, occupancy, frames = _by_reference(scores, prior, of, normalise)
    return log_z.contiguous(), occupancy.to(scores.dtype).contiguous(), frames.to(scores.dtype).contiguous()


def _by_reference(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulator(scores)
    x, top = reference.centred(scores.to(wide), of)
    log_z, occupancy = reference.forward_backward(x - prior.to(wide), of)
    total = reference.totals(x)
    frames = torch.stack(
        (top, total.masked_fill(torch.arange(x.shape[1], device=x.device) >= of.lengths[:, None], 1.0)), -1
    )
    return log_z + (-frames[..., 1].log() if normalise else top).sum(1), occupancy, frames


@_solved.register_fake
def _(scores: Tensor, prior: Tensor, labels: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, _C), S = scores.shape, labels.shape[1]
    kept = T if not use_kernels(scores) or kernel.whole_lattice(B, T, S) else 0
    log_z = scores.new_empty(B, dtype=accumulator(scores))
    return log_z, scores.new_empty(B, kept, S + 1), scores.new_empty(B, T, 2)


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
        if occupancy.shape[1] == 0:
            return kernel.slopes(factor, scores, prior, of, normalise, value, frames)
        return kernel.gradient(factor, scores, of, normalise, value, occupancy, frames)
    if occupancy.shape[1] != scores.shape[1]:  # kernels made the value, and kept none
        occupancy = _by_reference(scores, prior, of, normalise)[1]
    wide = scores.to(accumulator(scores))
    slopes = reference.gradient(wide, of, normalise, value, occupancy.to(wide))
    return (slopes * factor.masked_fill(torch.isneginf(value), 0.0)[:, None, None]).to(scores.dtype)


@_gradient.register_fake
def _(factor: Tensor, scores: Tensor, *_: Any) -> Tensor:
    B, T, C = scores.shape
    if scores.transpose(0, 1).is_contiguous() and not scores.is_contiguous():
        return scores.new_empty(T, B, C).transpose(0, 1)
    return scores.new_empty(B, T, C)


def _differentiable(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> Tensor:
    """∂ ln Q / ∂ scores, ``[B, T, C]``, as a differentiable function of them."""
    wide = scores.to(accumulator(scores))
    log_z, occupancy, _ = _by_reference(wide, prior, of, normalise)
    return reference.gradient(wide, of, normalise, log_z, occupancy)


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
            slopes = factor[:, None, None] * _differentiable(scores, prior, lattice, normalise)
            return slopes.to(scores.dtype)

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
    x_t. ``prior`` ``[C]`` is held constant. In double precision, for the caller to round. O(S) memory where nothing is
    differentiated.
    """
    scores = as_single(scores)
    prior = prior.to(scores.device, scores.dtype)  # not .to(scores), which vmap would map
    if constant(scores):
        return _value(scores, prior, of, normalise)
    return LogProb.apply(scores, prior, *of[:4], of.blank, of.stays, normalise)[0]


def log_partition(scores: Tensor, of: Lattice) -> Tensor:
    """ln Z of the alignments ``[B]`` in double precision, as a constant, in O(S) memory."""
    scores = as_single(scores)
    return _value(scores, scores.new_zeros(scores.shape[2]), of, False)


def marginals(scores: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """ln Z of the alignments ``[B]``, double, and the probability of each class at each frame ``[B, T, C]``."""
    scores = as_single(scores)
    prior = torch.zeros(scores.shape[2], dtype=scores.dtype, device=scores.device)  # not mapped under vmap
    log_z, occupancy, frames = LogProb.apply(scores, prior, *of[:4], of.blank, of.stays, False)
    ones = torch.ones_like(log_z).detach()
    inputs = (ones, scores, prior, *of[:4], of.blank, of.stays, False, log_z.detach(), occupancy, frames)
    return log_z, Gradient.apply(*inputs)  # type: ignore[return-value]


def solved(scores: Tensor, of: Lattice, differentiated: bool) -> tuple[Tensor, Tensor | None]:
    """ln Z ``[B]``, double, and where it is to be differentiated the occupancies of labels and, last, blanks.

    ``[B, T, S + 1]``; constants both, of float32 or float64 scores.
    """
    prior = scores.new_zeros(scores.shape[2])
    if not differentiated:
        return _value(scores, prior, of, False), None
    arguments = (scores, prior, *of[:4], of.blank, of.stays, False)
    log_z, occupancy, frames = _solved(*arguments)
    if occupancy.shape[1] != scores.shape[1]:  # classes may serve as labels only if they are those of one target
        ones = torch.ones_like(log_z)
        occupancy = _gradient(ones, *arguments, log_z, occupancy, frames)
    return log_z, occupancy


def divergence(scores: Tensor, of: Lattice, other: Tensor | None = None) -> Tensor:
    """Of the alignments under ``scores`` ``[B, T, C]`` from those under ``other``, ``[B]``; without, minus the entropy.

    In double precision, differentiable any number of times: see :func:`lnz.ops.ctc.reference.divergence`.
    """
    wide = accumulator(scores)
    return reference.divergence(scores.to(wide), None if other is None else other.to(wide), of)


def _value(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> Tensor:
    if use_kernels(scores, prior) and scores.numel():
        return kernel.value(scores, prior, of, normalise)[0]
    return reference.value(scores, prior, of, normalise)
