"""Whether chains have mixed: R-hat and effective sample size of statistics of theirs, and what follows from both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

ESS_PER_CHAIN = 10
"""Fewer effective draws per chain are too few to tell from: five per half chain (Gelman et al. 2013, p. 287)."""


def r_hat(draws: Tensor) -> Tensor:
    """The rank-normalised split R-hat (Vehtari et al. 2021): near 1 where all halves of chains tell the same.

    Each chain is cut into halves, so that one chain has an R-hat too: it tells whether that chain drifts, and nothing
    of what it has never visited. The larger one of the draws' ranks and of those of their distances to the median.

    Args:
        draws: a statistic of each state, ``[sweeps, chains, *rest]``, at least 4 sweeps.

    Returns:
        ``[*rest]``, float64; NaN for a statistic that never changes, +inf for one that only differs between halves.
    """
    found = _columns(draws)
    if not found.size:
        return _as_tensor(np.full(found.shape[-1], np.nan), draws)
    half = len(found) // 2
    halves = np.concatenate((found[:half], found[-half:]), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bulk = _potential(_normal_scores(halves))
        tail = _potential(_normal_scores(np.abs(halves - np.median(halves, (0, 1)))))
    return _as_tensor(np.fmax(bulk, tail), draws)


def effective_sample_size(draws: Tensor) -> Tensor:
    """How many independent draws would tell the mean as well (bulk ESS, Vehtari et al. 2021), through ArviZ.

    Args:
        draws: a statistic of each state, ``[sweeps, chains, *rest]``, at least 4 sweeps.

    Returns:
        ``[*rest]``, float64; NaN for a statistic that never changes.
    """
    from arviz_stats.base.array import array_stats  # takes a second, and brings SciPy

    found = _columns(draws)
    value = np.full(found.shape[-1], np.nan)
    changing = found.max((0, 1)) > found.min((0, 1))
    if changing.any():
        value[changing] = array_stats.ess(found[..., changing], chain_axis=1, draw_axis=0)
    return _as_tensor(value, draws)


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
    chains = draws.shape[1]
    each, effective = r_hat(draws), effective_sample_size(draws)
    silent = each.isnan()
    worst = each.nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(-1).masked_fill(silent.all(-1), torch.nan)
    least = effective.nan_to_num(nan=torch.inf).amin(-1).masked_fill(silent.all(-1), torch.nan)
    stuck = (silent | ~free).all(-1) if chains > 1 else (silent & free).any(-1)
    needed = ESS_PER_CHAIN * chains
    reasons = (
        (stuck & free.any(-1), "what does not change tells nothing, R-hat cannot be computed"),
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
    return f"{choose(known):.3f}" if known else "NaN"


def _columns(draws: Tensor) -> Floats:
    """``[sweeps, chains, K]`` in float64."""
    if not isinstance(draws, Tensor):
        raise TypeError(f"draws: expected a torch.Tensor, got {type(draws).__name__}")
    if draws.dim() < 2 or draws.shape[0] < 4 or draws.shape[1] < 1:
        raise ValueError(
            f"draws: expected shape [sweeps, chains, *rest] with 4 sweeps or more, got {list(draws.shape)}"
        )
    return draws.detach().double().cpu().reshape(*draws.shape[:2], draws.shape[2:].numel()).numpy()


def _as_tensor(values: Floats, draws: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=draws.device).reshape(draws.shape[2:])


def _normal_scores(draws: Floats) -> Floats:
    """Each statistic's draws by the normal quantiles of their ranks, ties by mean ranks."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(draws.reshape(-1, draws.shape[-1]), axis=0)
    return ndtri((ranks - 3 / 8) / (len(ranks) + 1 / 4)).reshape(draws.shape)


def _potential(draws: Floats) -> Floats:
    """By how much the spread of all draws ``[steps, chains, K]`` exceeds that within chains, as a factor."""
    steps = len(draws)
    changes = draws.max(0) > draws.min(0)  # the variance of equal numbers may be a rounding error
    within = np.where(changes, draws.var(0, ddof=1), 0.0).mean(0)
    between = draws.mean(0).var(0, ddof=1)
    return np.sqrt(between / within + (steps - 1) / steps)
