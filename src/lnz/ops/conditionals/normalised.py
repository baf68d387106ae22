"""From the scores of labels to their conditional probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.semirings import Log
from lnz.typing import IGNORE


def keep_observed(scores: Tensor, observed: Tensor | None) -> Tensor:
    """``scores`` ``[*batch, N, L]`` with −inf at the labels that contradict ``observed`` ``[*batch, N]``."""
    if observed is None:
        return scores
    seen = observed.unsqueeze(-1)
    labels = torch.arange(scores.shape[-1], device=scores.device)
    return torch.where((seen == IGNORE) | (seen == labels), scores, -torch.inf)


def log_softmax_at(scores: Tensor, labels: Tensor) -> Tensor:
    """ln softmax of ``scores`` ``[*, L]`` at ``labels`` ``int64 [*]``; −inf at a score of −inf, with gradient 0."""
    top = scores.detach().amax(-1, keepdim=True)
    scores = scores - top.masked_fill(torch.isneginf(top), 0.0)
    z = Log().plus(scores, -1)
    return scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - z.masked_fill(torch.isneginf(z), 0.0)
