"""Losses with the signatures that the ecosystem knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Never

import torch
from torch import Tensor

from lnz.checks import as_counts, as_labels, check_integer, check_same_kind, check_tensor, concrete
from lnz.distributions.ctc_targets import check_blank, checked_frames, checked_prior, checked_targets
from lnz.distributions.transducer_arguments import checked_joint, fitted_targets
from lnz.errors import InfeasibleError
from lnz.ops import ctc, transducer

Reduction = Literal["none", "mean", "sum"]
Counts = Tensor | Sequence[int]

__all__ = ["ctc_loss", "linear_ctc_loss", "rnnt_loss"]


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Counts,
    target_lengths: Counts,
    blank: int | None = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    collapse_repeats: bool = True,
    log_prior: Tensor | None = None,
) -> Tensor:
    """−ln Q(y) of connectionist temporal classification, called as :func:`torch.nn.functional.ctc_loss`.

    The first argument may be raw logits: frames are normalised here, and the gradient is right without a log-softmax in
    front, which then costs nothing (of log-probabilities the loss is the same). Differentiable twice. No tensor of the
    size of the logits is made but their gradient. O(T B (C + S)) time. The loss has the dtype of the logits, and is
    +inf beyond the range of that (65504 in float16), of targets that are possible all the same.

    Args:
        log_probs: logits, or log-probabilities, ``[T, B, C]`` or ``[T, C]``.
        targets: integers ``[B, S]``, padded with anything, or concatenated ``[sum of target_lengths]``.
        input_lengths: ``[B]`` frames, integers.
        target_lengths: ``[B]`` labels, integers.
        blank: the class of blank, ``None`` for none.
        reduction: ``"mean"`` divides each loss by the target's length (at least 1) before the mean over the batch.
        zero_infinity: a target that is impossible has loss 0 and gradient 0 instead of being an error.
        collapse_repeats: ``False`` is the topology in which only blanks are removed, see :class:`lnz.CTC`.
        log_prior: ``[C]``, see :class:`lnz.CTC`.

    Raises:
        InfeasibleError: a target has no alignment, naming the batch entries and how many frames they need.
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """
    _check(reduction, log_probs, "log_probs")
    single = log_probs.dim() == 2
    if log_probs.dim() not in (2, 3):
        raise ValueError(f"log_probs: expected shape [T, B, C] or [T, C], got {list(log_probs.shape)}")
    scores = log_probs[None] if single else log_probs.transpose(0, 1)
    of = _lattice("log_probs", scores, scores.shape[2], targets, input_lengths, target_lengths, blank, collapse_repeats)
    prior = checked_prior(log_prior, scores.shape[2])
    losses = _reduced(-ctc.log_prob(scores, prior, of, True), of, reduction, zero_infinity).to(scores.dtype)
    return losses[0] if single and reduction == "none" else losses


def linear_ctc_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    input_lengths: Counts,
    target_lengths: Counts,
    blank: int | None = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
    *,
    collapse_repeats: bool = True,
    log_prior: Tensor | None = None,
    frames_at_once: int | None = None,
) -> Tensor:
    """:func:`ctc_loss` of the logits ``hidden @ weight.T + bias``, without ever holding them.

    For large vocabularies: logits and their gradient are made for a few frames at a time, so that memory is
    O(B T (H + S) + C H). The price is that the logits are computed twice.

    Args:
        hidden: ``[B, T, H]`` (note the batch first).
        weight: ``[C, H]``.
        bias: ``[C]`` or ``None``.
        targets: as in :func:`ctc_loss`, and so are all arguments not named here.
        input_lengths: see there.
        target_lengths: see there.
        blank: see there.
        reduction: see there.
        zero_infinity: see there.
        collapse_repeats: see there.
        log_prior: see there.
        frames_at_once: for how many frames logits are held; ``None`` is as many as make about four million logits.

    Raises:
        InfeasibleError, TypeError, ValueError: as :func:`ctc_loss`.
    """
    _check(reduction, hidden, "hidden")
    check_tensor("weight", weight)
    if hidden.dim() != 3 or weight.dim() != 2 or weight.shape[1] != hidden.shape[2] or not weight.numel():
        shapes = f"{list(hidden.shape)} and {list(weight.shape)}"
        raise ValueError(f"hidden, weight: expected shapes [B, T, H] and [C, H], none 0, got {shapes}")
    C = len(weight)
    bias = weight.new_zeros(C) if bias is None else bias
    check_tensor("bias", bias)
    if bias.shape != (C,):
        raise ValueError(f"bias: expected shape [{C}], got {list(bias.shape)}")
    if torch.is_autocast_enabled(hidden.device.type):  # where the network is of a wider type than its hidden states
        hidden = hidden.to(weight.dtype)
    check_same_kind("weight", weight, "hidden", hidden)
    check_same_kind("bias", bias, "hidden", hidden)
    of = _lattice("hidden", hidden, C, targets, input_lengths, target_lengths, blank, collapse_repeats)
    frames = max(1, 2**22 // C) if frames_at_once is None else frames_at_once
    check_integer("frames_at_once", frames)
    prior = checked_prior(log_prior, C).to(hidden.device, hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        values = ctc.linear_log_prob(hidden, weight, bias, prior, of, frames)
    return _reduced(-values, of, reduction, zero_infinity).to(hidden.dtype)


def rnnt_loss(
    logits: Tensor,
    targets: Tensor,
    logit_lengths: Counts,
    target_lengths: Counts,
    blank: int = -1,
    clamp: float = -1,
    reduction: Reduction = "mean",
    fused_log_softmax: bool = True,
    *,
    zero_infinity: bool = False,
    one_label_per_frame: bool = False,
) -> Tensor:
    """−ln P(y) of the recurrent neural network transducer, called as torchaudio's ``functional.rnnt_loss``.

    Differentiable twice (with ``clamp``, once). Beyond the logits and their gradient memory is O(B T U): no log-softmax
    is made, and no gradient of one. O(B T U C) time. The dtype of the loss as in :func:`ctc_loss`.

    Args:
        logits: what the joiner puts out ``[B, T, U + 1, C]``, see :class:`lnz.Transducer`.
        targets: integers ``[B, U]``, padded with anything.
        logit_lengths: ``[B]`` frames, integers.
        target_lengths: ``[B]`` labels, integers.
        blank: the class of blank; −1 is the last one, and so on.
        clamp: where positive, entries of each sequence's gradient are clamped to [−clamp, clamp].
        reduction: ``"mean"`` is over the batch, whatever the lengths of targets.
        fused_log_softmax: ``False`` takes the logits for log-probabilities already, as a log-softmax leaves them.
        zero_infinity: a target that is impossible has loss 0 and gradient 0 instead of being an error.
        one_label_per_frame: see :class:`lnz.Transducer`.

    Raises:
        InfeasibleError: a target has no alignment, naming the batch entries and why.
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """
    _check(reduction, logits, "logits")
    if logits.dim() != 4:
        raise ValueError(f"logits: expected shape [B, T, U + 1, C], got {list(logits.shape)}")
    B, C = len(logits), logits.shape[-1]
    blank = blank + C if isinstance(blank, int) and -C <= blank < 0 else blank
    frames = as_counts("logit_lengths", logit_lengths, B, logits.device)
    frames = checked_joint("logits", logits, frames, blank, "logit_lengths")
    sizes = as_counts("target_lengths", target_lengths, B, logits.device)
    targets = as_labels("targets", targets).to(logits.device)
    if targets.dim() != 2 or len(targets) != B:
        raise ValueError(f"targets: expected shape [{B}, U], got {list(targets.shape)}")
    labels, sizes = fitted_targets(targets, sizes, logits, blank)
    of = transducer.Lattice(frames, sizes, not one_label_per_frame)
    if clamp > 0:
        losses = -transducer.clamped_log_prob(logits, labels, of, blank, fused_log_softmax, clamp)
    else:
        losses = -transducer.log_prob(logits, labels, of, blank, fused_log_softmax)
    if zero_infinity:
        losses = torch.where(torch.isposinf(losses), 0.0, losses)
    elif concrete(losses):
        _check_transducible(losses.detach(), of)
    if reduction != "none":
        losses = losses.mean() if reduction == "mean" else losses.sum()
    return losses.to(logits.dtype)


def _check(reduction: str, scores: Tensor, name: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
    check_tensor(name, scores)
    if not scores.is_floating_point():
        raise TypeError(f"{name}: expected floating point numbers, got dtype {scores.dtype}")


def _lattice(
    name: str,
    scores: Tensor,
    num_classes: int,
    targets: Tensor,
    input_lengths: Counts,
    target_lengths: Counts,
    blank: int | None,
    collapse_repeats: bool,
) -> ctc.Lattice:
    """The lattice of padded or concatenated targets, for scores, or hidden states, ``[B, T, …]``."""
    B, device = len(scores), scores.device
    frames = checked_frames(name, scores, as_counts("input_lengths", input_lengths, B, device), "input_lengths")
    check_blank(blank, num_classes)
    sizes = as_counts("target_lengths", target_lengths, B, device)
    targets = as_labels("targets", targets).to(device)
    if targets.dim() == 1:
        if len(targets) != int(sizes.sum()):
            raise ValueError(
                f"targets: expected the sum of target_lengths, {int(sizes.sum())} labels, got {len(targets)}"
            )
        rows = list(targets.split(sizes.tolist()))
        targets = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if rows else targets.new_zeros(0, 0)
    if targets.dim() != 2 or len(targets) != B:
        raise ValueError(f"targets: expected shape [{B}, S] or [sum of target_lengths], got {list(targets.shape)}")
    labels, sizes = checked_targets(targets, sizes, num_classes, blank)
    return ctc.lattice(labels, frames, sizes, blank, collapse_repeats)


def _reduced(losses: Tensor, of: ctc.Lattice, reduction: str, zero_infinity: bool) -> Tensor:
    if zero_infinity:
        losses = torch.where(torch.isposinf(losses), 0.0, losses)
    elif concrete(losses):
        _check_possible(losses.detach(), of)
    if reduction == "mean":
        return (losses / of.target_lengths.clamp(min=1)).mean()
    return losses.sum() if reduction == "sum" else losses


def _check_possible(losses: Tensor, of: ctc.Lattice) -> None:
    impossible = torch.isposinf(losses).nonzero().flatten().tolist()
    if not impossible:
        return
    needed, first = ctc.frames_needed(of), impossible[0]
    need, have, labels = int(needed[first]), int(of.lengths[first]), int(of.target_lengths[first])
    if need >= 2**62:
        why = f"its {labels} labels repeat, which needs a blank between them"
    elif need > have:
        repeats = need - labels
        why = f"its {labels} labels, {repeats} of them repeats, need {need} frames and there are {have}"
    else:
        why = "every alignment meets a probability of 0"
    _refuse(impossible, why)


def _check_transducible(losses: Tensor, of: transducer.Lattice) -> None:
    impossible = torch.isposinf(losses).nonzero().flatten().tolist()
    if not impossible:
        return
    have, labels = int(of.lengths[impossible[0]]), int(of.target_lengths[impossible[0]])
    why = "every alignment meets a probability of 0"
    if of.several and have == 0:
        why = f"its {labels} labels need a frame and there is none"
    if not of.several and labels > have:
        why = f"its {labels} labels need {labels} frames and there are {have}"
    _refuse(impossible, why)


def _refuse(impossible: list[int], why: str) -> Never:
    entries = f"{impossible[:8]}{'…' if len(impossible) > 8 else ''}"
    raise InfeasibleError(
        f"targets: expected targets that have an alignment, got none in batch entries {entries}; in entry "
        f"{impossible[0]}, {why}; zero_infinity=True leaves them out",
        entries=impossible,
    )
