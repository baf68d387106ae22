"""From the scores of arcs to ln Z. Shapes as in :mod:`.reference`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.precision import accumulator, astype
from lnz.ops.scaffold import Differentiable, Operator
from lnz.ops.transducer import reference
from lnz.ops.transducer.joint import arcs
from lnz.ops.transducer.lattice import Lattice
from lnz.ops.transducer.records import KERNELS, Arcs, Pass


def solve(given: Arcs) -> Pass:
    run = KERNELS.find("forward_backward", *given[:2]) if given.blank.numel() else None
    return Pass(*(run or _by_reference)(given))


def _by_reference(given: Arcs) -> tuple[Tensor, ...]:
    blank, label, *_ = astype(given, accumulator(given.blank))
    log_z, *marginals = reference.forward_backward(blank, label, given.of)
    return log_z.contiguous(), *(x.to(given.blank.dtype).contiguous() for x in marginals)


def gradient(weight: Tensor | None, given: Arcs, done: Pass, wanted: Sequence[bool]) -> Sequence[Tensor]:
    """Σ_b weight_b · the probabilities of arcs of lattice b."""
    return done[1:] if weight is None else [weight[:, None, None] * x for x in done[1:]]


def marginals(given: Arcs) -> tuple[Tensor, ...]:
    """The probabilities of arcs, in plain torch."""
    return _by_reference(given)[1:]


def _fake(given: Arcs) -> Pass:
    blank, label, *_ = given
    log_z = blank.new_empty(blank.shape[0], dtype=accumulator(blank))
    return Pass(log_z, *(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (blank, label)))


TRANSDUCER = Differentiable(
    Operator("transducer", solve, _fake, Arcs, Pass), scores=2, gradient=gradient, marginals=marginals
)


def forward_backward(blank: Tensor, label: Tensor, of: Lattice) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, double, and the probabilities of arcs, shaped as their scores; all differentiable."""
    given = Arcs(blank, label, *of)
    done = TRANSDUCER.solve(given)
    blanks, labels = TRANSDUCER.gradient(None, given, done, (True, True))
    return TRANSDUCER.value(given, done), blanks, labels


def log_prob(logits: Tensor, labels: Tensor, of: Lattice, blank: int, normalise: bool) -> Tensor:
    """ln P(y) of each target ``[B]``, double, differentiable to the logits; arguments as of :func:`arcs`."""
    given = Arcs(*arcs(logits, labels, of, blank, normalise), *of)
    return TRANSDUCER.value(given, TRANSDUCER.solve(given))


def surprisal(arcs: Sequence[Tensor], other: Sequence[Tensor], of: Lattice) -> Tensor:
    """E[−ln Q(z)] ``[B]`` of the alignments under arcs (b, l), Q those under ``other``, in double precision.

    Differentiable, see :func:`lnz.ops.transducer.reference.surprisal`.
    """
    wide = accumulator(arcs[0])
    pairs = (arcs,) if other is arcs else (arcs, other)
    return reference.surprisal([(blank.to(wide), label.to(wide)) for blank, label in pairs], of)
