"""Whether chains have mixed: R-hat and effective sample size of statistics of theirs, through ArviZ."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def r_hat(draws: Tensor) -> Tensor:
    """The rank-normalised split R-hat (Vehtari et al. 2021): near 1 where all chains tell the same.

    Args:
        draws: a statistic of each state, ``[sweeps, chains, *rest]``, at least 4 sweeps.

    Returns:
        ``[*rest]``; NaN for a statistic that never changes, in any chain.
    """
    return _per_statistic("rhat", draws)


def effective_sample_size(draws: Tensor) -> Tensor:
    """How many independent draws would tell the mean as well (bulk ESS, Vehtari et al. 2021).

    Args:
        draws: a statistic of each state, ``[sweeps, chains, *rest]``, at least 4 sweeps.

    Returns:
        ``[*rest]``.
    """
    return _per_statistic("ess", draws)


def _per_statistic(name: str, draws: Tensor) -> Tensor:
    if not isinstance(draws, Tensor):
        raise TypeError(f"draws: expected a torch.Tensor, got {type(draws).__name__}")
    if draws.dim() < 2 or draws.shape[0] < 4 or draws.shape[1] < 1:
        raise ValueError(
            f"draws: expected shape [sweeps, chains, *rest] with 4 sweeps or more, got {list(draws.shape)}"
        )
    from arviz_stats.base.array import array_stats  # takes a second, and brings SciPy

    function: Any = getattr(array_stats, name)
    with np.errstate(divide="ignore", invalid="ignore"):  # statistics that never change
        found = function(draws.detach().double().cpu().numpy(), chain_axis=1, draw_axis=0)
    return torch.as_tensor(np.asarray(found, dtype=np.float64), device=draws.device)
