"""From the scores of arcs to ln Z: registration, autograd and dispatch. Shapes as in :mod:`.reference`.

``lnz::transducer`` computes ln Z and the probabilities of arcs at once, without a tape over steps.
:class:`LogPartition` differentiates the value by multiplying with these, :class:`Marginals` these through
``reference.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.chain.reference import accumulator
from lnz.ops.transducer import kernel, reference
from lnz.ops.transducer.joint import arcs, folded
from lnz.ops.transducer.lattice import Lattice


@torch.library.custom_op("lnz::transducer", mutates_args=())
def solved_arcs(
    blank: Tensor, label: Tensor, lengths: Tensor, target_lengths: Tensor, several: bool
) -> tuple[Tensor, Tensor, Tensor]:
    of = Lattice(lengths, target_lengths, several)
    if use_kernels(blank, label) and blank.numel():
        return kernel.solve(blank, label, of)
    return _reference(blank, label, of)


def _reference(blank: Tensor, label: Tensor, of: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulator(blank)
    log_z, *arcs = reference.forward_backward(blank.to(wide), label.to(wide), of)
    return log_z.contiguous(), *(x.to(blank.dtype).contiguous() for x in arcs)  # type: ignore[return-value]


@solved_arcs.register_fake
def _(blank: Tensor, label: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    arcs = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (blank, label))
    return blank.new_empty(blank.shape[0], dtype=accumulator(blank)), *arcs  # type: ignore[return-value]


class LogPartition(torch.autograd.Function):
    """ln Z and the probabilities of arcs, of which ln Z is differentiable here."""

    @staticmethod
    def forward(
        blank: Tensor, label: Tensor, lengths: Tensor, target_lengths: Tensor, several: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        return solved_arcs(blank, label, lengths, target_lengths, several)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, blanks, labels = output
        ctx.mark_non_differentiable(blanks, labels)
        ctx.save_for_backward(*inputs[:4], blanks, labels)
        ctx.several = inputs[4]

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        *tensors, blanks, labels = ctx.saved_tensors
        blanks, labels = Marginals.apply(*tensors, ctx.several, blanks, labels)
        grad = grad[:, None, None]
        return (grad * blanks).to(blanks.dtype), (grad * labels).to(labels.dtype), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        outputs = LogPartition.apply(*folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0, 0)


class Marginals(torch.autograd.Function):
    """The probabilities of arcs that :class:`LogPartition` has computed, as functions of the scores."""

    @staticmethod
    def forward(
        blank: Tensor,
        label: Tensor,
        lengths: Tensor,
        target_lengths: Tensor,
        several: bool,
        blanks: Tensor,
        labels: Tensor,
    ) -> Any:
        return blanks.view_as(blanks), labels.view_as(labels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.several = inputs[4]

    @staticmethod
    def backward(ctx: Any, to_blanks: Tensor, to_labels: Tensor) -> tuple[Tensor | None, ...]:
        blank, label, lengths, target_lengths = ctx.saved_tensors
        of = Lattice(lengths, target_lengths, ctx.several)
        pullback = torch.func.vjp(lambda b, l: _reference(b, l, of)[1:], blank, label)[1]
        return *pullback((to_blanks, to_labels)), *(None,) * 5

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        outputs = Marginals.apply(*folded(info.batch_size, in_dims, inputs))
        return tuple(o.unflatten(0, (info.batch_size, -1)) for o in outputs), (0, 0)


def forward_backward(blank: Tensor, label: Tensor, of: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, double, and the probabilities of arcs, shaped as their scores; all differentiable."""
    log_z, blanks, labels = LogPartition.apply(blank, label, *of)
    return log_z, *Marginals.apply(blank, label, *of, blanks, labels)


def log_partition(blank: Tensor, label: Tensor, of: Lattice) -> Tensor:
    """ln Z ``[B]`` alone, double."""
    return LogPartition.apply(blank, label, *of)[0]


def log_prob(logits: Tensor, labels: Tensor, of: Lattice, blank: int, normalise: bool) -> Tensor:
    """ln P(y) of each target ``[B]``, double, differentiable to the logits; arguments as of :func:`arcs`."""
    return log_partition(*arcs(logits, labels, of, blank, normalise), of)


def divergence(pairs: Sequence[Sequence[Tensor]], of: Lattice) -> Tensor:
    """That of alignments under a pair of arcs (b, l) from those under another ``[B]``, in double precision.

    Of one pair alone, minus the entropy. Differentiable, see :func:`lnz.ops.transducer.reference.divergence`.
    """
    wide = accumulator(pairs[0][0])
    return reference.divergence([(blank.to(wide), label.to(wide)) for blank, label in pairs], of)
