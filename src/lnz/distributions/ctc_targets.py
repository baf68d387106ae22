"""The arguments that CTC and its alignments share: frames, classes and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import check_broadcast, check_lengths, concrete
from lnz.typing import IGNORE


def checked_frames(name: str, scores: Tensor, lengths: Tensor | None, blank: int | None) -> Tensor:
    """The lengths, ``[]`` or ``[*batch]``, of scores ``[*batch, T, C]``; raises where one is not well-formed."""
    if scores.dim() < 2 or scores.shape[-1] == 0:
        raise ValueError(f"{name}: expected shape [*batch, T, C] with C > 0, got {list(scores.shape)}")
    T, C = scores.shape[-2:]
    if blank is not None and (isinstance(blank, bool) or not isinstance(blank, int)):
        raise TypeError(f"blank: expected an int or None, got {type(blank).__name__}")
    if blank is not None and not 0 <= blank < C:
        raise ValueError(f"blank: expected a class in [0, {C}) or None, got {blank}")
    if lengths is None:
        return torch.full((), T, dtype=torch.int64, device=scores.device)
    check_lengths(lengths, T, of=f"the frames of {name}")
    check_broadcast("lengths", lengths.shape, scores.shape[:-2])
    return lengths


def checked_targets(
    targets: Tensor, target_lengths: Tensor | None, num_classes: int, blank: int | None
) -> tuple[Tensor, Tensor]:
    """Targets ``[*batch, S]``, −100 beyond their lengths, and these lengths; raises where they are not well-formed."""
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets: expected a torch.Tensor, got {type(targets).__name__}")
    if targets.dtype != torch.int64:
        raise TypeError(f"targets: expected dtype torch.int64, got {targets.dtype}")
    if targets.dim() < 1:
        raise ValueError(f"targets: expected shape [*batch, S], got {list(targets.shape)}")
    if target_lengths is None:
        target_lengths = (targets != IGNORE).cumprod(-1).sum(-1)
    else:
        check_lengths(target_lengths, targets.shape[-1], "target_lengths", "the labels of targets")
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
