"""The arguments of transducers: joint scores, and targets that fit them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lnz.checks import check_scores, concrete, largest
from lnz.distributions.ctc_targets import check_blank, checked_frames, checked_targets


def checked_joint(
    name: str, logits: Tensor, lengths: Tensor | None, blank: int, lengths_name: str = "lengths"
) -> Tensor:
    """The lengths, ``[]`` or ``[*batch]``, of joint scores ``[*batch, T, U + 1, C]``; raises where one is malformed."""
    if logits.dim() < 3 or 0 in logits.shape[-2:]:
        raise ValueError(
            f"{name}: expected shape [*batch, T, U + 1, C] with U >= 0 and C > 0, got {list(logits.shape)}"
        )
    check_blank(blank, logits.shape[-1], optional=False)
    return checked_frames(name, logits[..., 0, :], lengths, lengths_name)


def check_known(name: str, logits: Tensor, lengths: Tensor, *, values: bool) -> None:
    """Raise where joint scores ``[*batch, T, U + 1, C]`` are NaN or +inf whatever the target: at its start, row 0.

    Later rows may be padding: how many are is for a target to say, see :func:`nodes_inside`.
    """
    if not values or not concrete(lengths):
        return
    top = largest(logits)
    if top is None or top < math.inf:
        return
    frames = (torch.arange(logits.shape[-3], device=logits.device) < lengths.unsqueeze(-1))[..., None, None]
    used = torch.where(frames, logits.detach(), 0.0)
    top = largest(used[..., 0, :])
    if top is not None and not top < math.inf:
        check_scores(name, used)


def nodes_inside(logits: Tensor, lengths: Tensor, sizes: Tensor) -> Callable[[], Tensor]:
    """What makes the mask ``[*batch, T, U + 1, 1]`` of the nodes of lattices."""

    def inside() -> Tensor:
        frames, labels = (torch.arange(n, device=logits.device) for n in logits.shape[-3:-1])
        across, along = frames < lengths.unsqueeze(-1), labels <= sizes.unsqueeze(-1)
        return (across.unsqueeze(-1) & along.unsqueeze(-2)).unsqueeze(-1)

    return inside


def fitted_targets(targets: Tensor, target_lengths: Tensor | None, logits: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Targets as classes ``[*batch, U]``, 0 beyond their lengths, and these lengths; raises where they do not fit."""
    U, C = logits.shape[-2] - 1, logits.shape[-1]
    targets, sizes = checked_targets(targets, target_lengths, C, blank)
    if concrete(sizes) and (sizes > U).any():
        where = (sizes > U).nonzero()[0].tolist()
        raise ValueError(
            f"targets: expected at most {U} labels, for logits have {U + 1} rows per frame, "
            f"got {sizes[tuple(where)].item()} at {where}"
        )
    fitted = torch.nn.functional.pad(targets, (0, U - targets.shape[-1]))  # cut where that is negative
    return fitted.clamp(0, C - 1), sizes
