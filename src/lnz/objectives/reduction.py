"""From one loss per batch entry to what an objective returns; impossible gold labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lnz.checks import largest
from lnz.errors import InfeasibleError

Reduction = Literal["none", "mean", "sum"]


def check_reduction(reduction: str, *more: str) -> None:
    """Raise unless ``reduction`` is one of those known, or ``more``; called before anything is computed."""
    known = ("none", "mean", "sum", *more)
    if reduction not in known:
        raise ValueError(f"reduction: expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}, got {reduction!r}")


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """``losses`` ``[*batch]`` as they are, or their mean or sum."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def check_possible(losses: Tensor, remedy: str = "") -> None:
    """Raise :class:`~lnz.InfeasibleError` naming the batch entries whose loss is +inf: their gold is impossible."""
    top = largest(losses)
    if top is None or top < math.inf:
        return
    entries = torch.isposinf(losses).reshape(-1).nonzero().flatten().tolist()
    if entries:
        raise impossible(entries, remedy)


def impossible(entries: Sequence[int], remedy: str = "") -> InfeasibleError:
    """The error that names the batch ``entries`` whose gold has probability 0."""
    return InfeasibleError(
        f"y: expected gold labellings of positive probability, got probability 0 in batch entries {[*entries[:8]]}"
        f"{'…' if len(entries) > 8 else ''}{remedy}",
        entries=entries,
    )
