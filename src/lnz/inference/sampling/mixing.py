"""Whether chains have mixed: R-hat and effective sample size of statistics of theirs, and what follows from both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEAST_SWEEPS = 4
"""ArviZ knows nothing of chains that have fewer."""
ESS_PER_CHAIN = 10
"""Fewer effective draws per chain are too few to tell from: five per half chain (Gelman et al. 2013, p. 287)."""


def r_hat(draws: Tensor) -> Tensor:
    """The rank-normalised split R-hat (Vehtari et al. 2021), through ArviZ: near 1 where all chains tell the same.

    One chain is taken for two, its halves: that tells whether it drifts, and nothing of what it has never visited.

    Args:
        draws: a statistic of each state, ``[sweeps, chains, *rest]``, at least 4 sweeps; of one chain at least 8.

    Returns:
        ``[*rest]``, float64; NaN for a statistic that never changes, and where there are too few sweeps.
    """
    return _per_statistic("rhat", draws, least_chains=2)


def effective_sample_size(draws: Tensor) -> Tensor:
    """How many independent draws would tell the mean as well (bulk ESS, Vehtari et al. 2021), through ArviZ.

    Args:
        draws: a statistic of each state, ``[sweeps, chains, *rest]``, at least 4 sweeps.

    Returns:
        ``[*rest]``, float64; NaN for a statistic that never changes.
    """
    return _per_statistic("ess", draws, least_chains=1)


def _per_statistic(name: str, draws: Tensor, least_chains: int) -> Tensor:
    """ArviZ's diagnostic of each statistic that changes, of as many chains as it asks for."""
    if not isinstance(draws, Tensor):
        raise TypeError(f"draws: expected a torch.Tensor, got {type(draws).__name__}")
    if draws.dim() < 2 or draws.shape[0] < LEAST_SWEEPS or draws.shape[1] < 1:
        raise ValueError(
            f"draws: expected shape [sweeps, chains, *rest] with {LEAST_SWEEPS} sweeps or more, got {list(draws.shape)}"
        )
    from arviz_stats.base.array import array_stats  # takes a second, and brings SciPy

    columns = draws.detach().double().cpu().reshape(*draws.shape[:2], draws.shape[2:].numel()).numpy()
    changing = (columns != columns[:1, :1]).any((0, 1))
    value = np.full(changing.shape, np.nan)
    if columns.shape[1] < least_chains:
        half = len(columns) // 2
        columns = np.concatenate((columns[:half], columns[-half:]), 1)
    if changing.any() and len(columns) >= LEAST_SWEEPS:
        with np.errstate(divide="ignore", invalid="ignore"):  # halves of chains in which nothing changes
            value[changing] = getattr(array_stats, name)(columns[..., changing], chain_axis=1, draw_axis=0)
    return torch.as_tensor(value, device=draws.device).reshape(draws.shape[2:])


@dataclass(frozen=True, eq=False)
class Mixing:
    """What is known about the chains of each model, ``[*batch]``.

    Attributes:
        r_hat: the worst over the statistics; NaN where none ever changed.
        ess: the least over the statistics; NaN where none ever changed.
        mixed: whether that is known to be good.
        why: why some have not mixed, in words; empty where all have.
    """

    r_hat: Tensor
    ess: Tensor
    mixed: Tensor
    why: str


def mixing(draws: Tensor, free: Tensor, max_r_hat: float) -> Mixing:
    """Judge chains by statistics of theirs; what cannot be told is not good.

    Several chains that agree on a statistic that never changes have come there from starts of their own. One chain has
    not: each statistic of a free part of the model must change.

    Args:
        draws: ``[sweeps, chains, *batch, K]``.
        free: ``bool [*batch, K]``, which statistics may change; where none may, there is nothing to mix.
        max_r_hat: the largest that is good.
    """
    sweeps, chains = draws.shape[:2]
    each, effective = r_hat(draws), effective_sample_size(draws)
    silent = each.isnan()
    worst = each.nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(-1).masked_fill(silent.all(-1), torch.nan)
    least = effective.nan_to_num(nan=torch.inf).amin(-1).masked_fill(effective.isnan().all(-1), torch.nan)
    stuck = (silent | ~free).all(-1) if chains > 1 else (silent & free).any(-1)
    needed = ESS_PER_CHAIN * chains
    few = chains == 1 and sweeps < 2 * LEAST_SWEEPS
    told = f"one chain of {sweeps} sweeps" if few else "what does not change"
    reasons = (
        (stuck & free.any(-1), f"{told} tells nothing, R-hat cannot be computed"),
        (worst > max_r_hat, f"R-hat {_extreme(worst, max)} is above max_r_hat={max_r_hat}"),
        (
            least < needed,
            f"the effective sample size {_extreme(least, min)} is below {needed}, {ESS_PER_CHAIN} a chain",
        ),
    )
    bad = torch.zeros_like(stuck)
    for holds, _ in reasons:
        bad = bad | holds
    return Mixing(worst, least, ~bad, "; ".join(text for holds, text in reasons if holds.any()))


def _extreme(values: Tensor, choose: Callable[[list[float]], float]) -> str:
    known = values[~values.isnan()].tolist()
    return f"{choose(known):.4g}" if known else "NaN"
