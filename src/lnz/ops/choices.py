"""How a walk back through a recursion chooses among the ways to where it is: those of :mod:`lnz.ops` that decode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Candidates ``[M, B, C]`` and a rank ``[M, B]`` to the score and the index of the chosen candidate, ``[M, B]``."""


def ranked(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The candidate of that rank, 0 for the best, of M ranks; score −inf where there are fewer."""
    if len(rank) == 1:  # the best one
        return candidates.max(-1)
    size = min(len(rank), candidates.shape[-1])
    scores, index = candidates.topk(size, -1)
    at = rank.clamp(max=size - 1).unsqueeze(-1)
    score = scores.gather(-1, at).squeeze(-1).masked_fill(rank >= size, -torch.inf)
    return score, index.gather(-1, at).squeeze(-1)


def picked(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first label at which the cumulative sum passes ``uniform`` times the whole; never one of weight 0."""
    sums = weights.cumsum(-1)
    whole = sums[..., -1:]
    return ((sums > uniform.unsqueeze(-1) * whole) | (sums >= whole)).int().argmax(-1)
