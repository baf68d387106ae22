"""CTC: ln Q of targets and its gradient.

``lnz::ctc`` computes ln Q and the occupancies of states at once, without a tape over time; ``lnz::ctc_gradient`` makes
the gradient of the scores out of them, when it is asked for. Neither makes a second tensor of the size of the scores.
Of long sequences no occupancies are kept: the gradient runs through the lattice again, in O(S √T) memory. Where nothing
is differentiated, ln Q is computed alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops.ctc import reference
from lnz.ops.ctc.lattice import Lattice, as_single
from lnz.ops.ctc.records import KERNELS, Frames, Pass, whole_lattice
from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Differentiable, Operator
from lnz.ops.scaffold.batch import Axis


def solve(given: Frames) -> Pass:
    """ln Q, and the occupancies of states unless the lattice is too large to keep them."""
    scores, of = given.scores, given.of
    kept = whole_lattice(len(scores), scores.shape[1], of.labels.shape[1])
    run = KERNELS.find("solve" if kept else "value", scores, given.prior) if scores.numel() else None
    if run is None:
        log_z, occupancy, frames = by_reference(given)
        return Pass(log_z.contiguous(), *(as_single(x.to(scores.dtype)).contiguous() for x in (occupancy, frames)))
    log_z, *rest = run(scores, given.prior, of, given.normalise)
    nothing = [] if kept else [as_single(scores.new_empty(len(scores), 0, of.labels.shape[1] + 1))]
    return Pass(log_z, *nothing, *rest)


def by_reference(given: Frames) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`solve`, in plain torch and in double precision."""
    of, wide = given.of, accumulator(given.scores)
    x, top = reference.centred(given.scores.to(wide), of)
    log_z, occupancy = reference.forward_backward(x - given.prior.to(wide), of)
    beyond = torch.arange(x.shape[1], device=x.device) >= of.lengths[:, None]
    frames = torch.stack((top, reference.totals(x).masked_fill(beyond, 1.0)), -1)
    return log_z + (-frames[..., 1].log() if given.normalise else top).sum(1), occupancy, frames


def gradient(weight: Tensor | None, given: Frames, done: Pass, wanted: Sequence[bool]) -> list[Tensor]:
    """Σ_b weight_b ∂ ln Q_b / ∂ scores ``[B, T, C]``, laid out in memory as these."""
    scores, of, kept = given.scores, given.of, done.occupancy.shape[1] == given.scores.shape[1]
    weight = torch.ones_like(done.log_z) if weight is None else weight
    run = KERNELS.find("gradient" if kept else "slopes", scores, given.prior) if scores.numel() else None
    if run is not None and kept:
        return [run(weight, scores, of, given.normalise, *done)]
    if run is not None:
        return [run(weight, scores, given.prior, of, given.normalise, done.log_z, done.frames)]
    wide = scores.to(accumulator(scores))
    occupancy = done.occupancy if kept else by_reference(given)[1]
    slopes = reference.gradient(wide, of, given.normalise, done.log_z, occupancy.to(wide))
    return [(slopes * weight.masked_fill(torch.isneginf(done.log_z), 0.0)[:, None, None]).to(scores.dtype)]


def marginal_slopes(given: Frames) -> list[Tensor]:
    """∂ ln Q_b / ∂ scores ``[B, T, C]``, in plain torch; 0 where there is no alignment."""
    wide = given.scores.to(accumulator(given.scores))
    log_z, occupancy, _ = by_reference(given)
    slopes = reference.gradient(wide, given.of, given.normalise, log_z, occupancy)
    return [slopes.masked_fill(torch.isneginf(log_z)[:, None, None], 0.0).to(given.scores.dtype)]


def _fake(given: Frames) -> Pass:
    scores = given.scores
    (B, T, _), S = scores.shape, given.of.labels.shape[1]
    kept = whole_lattice(B, T, S) or KERNELS.find("value", scores, given.prior) is None
    log_z = scores.new_empty(B, dtype=accumulator(scores))
    return Pass(log_z, *(as_single(scores.new_empty(B, *x)) for x in ((T if kept else 0, S + 1), (T, 2))))


def _room(scores: Tensor) -> Tensor:
    B, T, C = scores.shape
    if scores.transpose(0, 1).is_contiguous() and not scores.is_contiguous():
        return scores.new_empty(T, B, C).transpose(0, 1)
    return scores.new_empty(B, T, C)


CTC = Differentiable(
    Operator("ctc", solve, _fake, Frames, Pass, {"prior": Axis(None)}),
    scores=1,
    gradient=gradient,
    marginals=marginal_slopes,
    room=_room,
)


def log_prob(scores: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> Tensor:
    """ln Q of each target ``[B]``, differentiable any number of times; −inf where there is no alignment.

    The sum over alignments z of exp Σ_t (x_t(z_t) − prior(z_t)), where ``normalise`` with x_t − ln Σ_c exp x_t(c) for
    x_t, of scores x ``[B, T, C]``. ``prior`` ``[C]`` is held constant, and the same under ``vmap``. In double
    precision, for the caller to round. O(S) memory where nothing is differentiated.
    """
    given = _given(scores, of, normalise, prior)
    return _value(given) if constant(given.scores) else CTC.value(given, CTC.solve(given))


def log_partition(scores: Tensor, of: Lattice) -> Tensor:
    """ln Z of the alignments ``[B]`` in double precision, as a constant, in O(S) memory."""
    return _value(_given(scores, of))


def marginals(scores: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """ln Z of the alignments ``[B]``, double, and the probability of each class at each frame ``[B, T, C]``."""
    given = _given(scores, of)
    done = CTC.solve(given)
    return CTC.value(given, done), CTC.gradient(None, given, done, (True,))[0]


def solved(scores: Tensor, of: Lattice, differentiated: bool) -> tuple[Tensor, Tensor | None]:
    """ln Z ``[B]``, double, and where it is to be differentiated the occupancies of labels and, last, blanks.

    ``[B, T, S + 1]``; constants both, of float32 or float64 scores.
    """
    given = _given(scores, of)
    if not differentiated:
        return _value(given), None
    done = CTC.solve(given)
    if done.occupancy.shape[1] == scores.shape[1]:
        return done.log_z, done.occupancy
    return done.log_z, CTC.gradient(None, given, done, (True,))[0]  # its classes are the labels of one target


def surprisal(scores: Tensor, other: Tensor, of: Lattice) -> Tensor:
    """E[−ln Q(z)] ``[B]`` of the alignments under ``scores`` ``[B, T, C]``, Q those under ``other``.

    In double precision, differentiable any number of times: see :func:`lnz.ops.ctc.reference.surprisal`.
    """
    mine = scores.to(accumulator(scores))
    return reference.surprisal(mine, mine if other is scores else other.to(mine.dtype), of)


def _given(scores: Tensor, of: Lattice, normalise: bool = False, prior: Tensor | None = None) -> Frames:
    if KERNELS.find("value", scores) is None:
        scores = as_single(scores)
    if prior is None:
        prior = torch.zeros(scores.shape[2], dtype=scores.dtype, device=scores.device)  # not mapped under vmap
    prior = prior.to(scores.device, scores.dtype)  # not .to(scores), which vmap would map
    return Frames(scores, prior, of, normalise)


def _value(given: Frames) -> Tensor:
    scores, of = given.scores, given.of
    run = KERNELS.find("value", scores, given.prior) if scores.numel() else None
    if run is not None:
        return run(scores, given.prior, of, given.normalise)[0]
    return reference.value(scores, given.prior, of, given.normalise)
