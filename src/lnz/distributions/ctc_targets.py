"""The arguments that CTC and its alignments share: frames, classes and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lnz.checks import as_labels, as_lengths, check_broadcast, check_scores, concrete
from lnz.typing import IGNORE


def checked_frames(
    name: str, scores: Tensor, lengths: Tensor | Sequence[int] | None, lengths_name: str = "lengths"
) -> Tensor:
    """The lengths, ``[]`` or ``[*batch]``, of scores ``[*batch, T, C]``; raises where one is not well-formed."""
    if scores.dim() < 2 or scores.shape[-1] == 0:
        raise ValueError(f"{name}: expected shape [*batch, T, C] with C > 0, got {list(scores.shape)}")
    T = scores.shape[-2]
    if lengths is None:
        return torch.full((), T, dtype=torch.int64, device=scores.device)
    lengths = as_lengths(lengths, T, lengths_name, f"the frames of {name}", scores.device)
    check_broadcast(lengths_name, lengths.shape, scores.shape[:-2])
    return lengths


def frames_inside(scores: Tensor, lengths: Tensor) -> Callable[[], Tensor]:
    """What makes the mask ``[*batch, T, 1]`` of frames that are not padding."""
    return lambda: (torch.arange(scores.shape[-2], device=scores.device) < lengths.unsqueeze(-1)).unsqueeze(-1)


def check_blank(blank: int | None, num_classes: int, *, optional: bool = True) -> None:
    """Raise unless ``blank`` is a class or, where it is ``optional``, ``None``."""
    also = " or None" if optional else ""
    if blank is None and optional:
        return
    if isinstance(blank, bool) or not isinstance(blank, int):
        raise TypeError(f"blank: expected an int{also}, got {type(blank).__name__}")
    if not 0 <= blank < num_classes:
        raise ValueError(f"blank: expected a class in [0, {num_classes}){also}, got {blank}")


def checked_prior(log_prior: Tensor | None, num_classes: int) -> Tensor:
    """The log prior of classes ``[C]`` as constants, 0 where there is none; raises where it is not well-formed."""
    if log_prior is None:
        return torch.zeros(num_classes)
    check_scores("log_prior", log_prior)
    if log_prior.shape != (num_classes,):
        raise ValueError(f"log_prior: expected {num_classes} finite values, got shape {list(log_prior.shape)}")
    if concrete(log_prior) and torch.isneginf(log_prior).any():
        where = torch.isneginf(log_prior).nonzero()[0].tolist()
        raise ValueError(f"log_prior: expected {num_classes} finite values, got -inf at {where}")
    return log_prior.detach()


def checked_targets(
    targets: Tensor, target_lengths: Tensor | None, num_classes: int, blank: int | None
) -> tuple[Tensor, Tensor]:
    """Targets ``[*batch, S]``, −100 beyond their lengths, and these lengths; raises where they are not well-formed."""
    targets = as_labels("targets", targets)
    if targets.dim() < 1:
        raise ValueError(f"targets: expected shape [*batch, S], got {list(targets.shape)}")
    if target_lengths is None:
        target_lengths = (targets != IGNORE).cumprod(-1).sum(-1)
    else:
        target_lengths = as_lengths(
            target_lengths, targets.shape[-1], "target_lengths", "the labels of targets", targets.device
        )
        check_broadcast("target_lengths", target_lengths.shape, targets.shape[:-1])
    inside = torch.arange(targets.shape[-1], device=targets.device) < target_lengths.unsqueeze(-1)
    targets = torch.where(inside, targets, IGNORE)
    if concrete(targets, target_lengths):
        bad = inside & ((targets < 0) | (targets >= num_classes) | (targets == (-1 if blank is None else blank)))
        if bad.any():
            where = bad.nonzero()[0].tolist()
            without, got = "" if blank is None else f" other than the blank, {blank}", targets[tuple(where)].item()
            raise ValueError(f"targets: expected labels in [0, {num_classes}){without}, got {got} at {where}")
    return targets, target_lengths
