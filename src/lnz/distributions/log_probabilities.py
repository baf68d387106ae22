"""Whether scores are log-probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lnz.checks import concrete, plain


def check_rows(name: str, scores: Tensor, used: Tensor | None = None) -> None:
    """Raise unless each row that is ``used`` is a distribution, up to what rounding logarithms does to its sum."""
    if not concrete(scores):
        return
    tolerance = 1e-3 if torch.finfo(scores.dtype).eps < 1e-6 else 0.1
    if plain(scores) and scores.dtype in (torch.float32, torch.float64):  # as in lnz.checks.largest
        sums = np.exp(scores.detach().numpy().astype(np.float64)).sum(-1)
        if used is None and np.abs(sums - 1).max(initial=0) <= tolerance:
            return
        totals = torch.as_tensor(sums)
    else:
        totals = scores.detach().double().exp().sum(-1)
    bad = (totals - 1).abs() > tolerance
    if used is not None:
        bad = bad & used
    if bad.any():
        where = bad.nonzero()[0].tolist()
        total = totals.expand_as(bad)[tuple(where)].item()
        raise ValueError(
            f"{name}: expected log-probabilities, each row of which sums to 1, got a sum of {total:.6g}"
            f"{f' in row {where}' if where else ''}; log_softmax(-1) makes them, normalised=False admits any scores"
        )
