"""Parallel tempering: replicas at higher temperatures, which roam and hand their labellings down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lnz.checks import numbers
from lnz.inference.sampling.acceptance import accepted
from lnz.inference.sampling.gibbs import Gibbs
from lnz.inference.sampling.resumed import resumed
from lnz.inference.sampling.sampler import Chains, Sampler, Transition
from lnz.scores import Model


@dataclass(frozen=True)
class ParallelTempering(Sampler):
    """Parallel tempering (Geyer 1991): each chain has a replica per temperature, and neighbours offer to swap.

    A replica at temperature t has the stationary distribution of the scores divided by t. A sweep is one of the base
    sampler for every replica, and then a Metropolis step that swaps the labellings of temperatures 1 & 2, 3 & 4, …, or
    2 & 3, 4 & 5, …, in turns. The labels of a chain are those at temperature 1; the others are carried.

    Args:
        temperatures: ascending, the first 1. Swaps are accepted often where neighbours are close: see
            ``diagnostics["swap_acceptance"]``, ``[temperatures − 1, *batch]``.
        base: what moves the replicas; what it would carry itself (a momentum, say) starts anew each sweep.
    """

    temperatures: Sequence[float] = (1.0, 1.5, 2.25, 3.375)
    base: Sampler = field(default_factory=Gibbs)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "temperatures", numbers("temperatures", self.temperatures))
        ascending = all(a < b for a, b in zip(self.temperatures, self.temperatures[1:], strict=False))
        if len(self.temperatures) < 2 or self.temperatures[0] != 1 or not ascending:
            raise ValueError(f"temperatures: expected two or more, ascending, the first 1, got {self.temperatures}")
        if not isinstance(self.base, Sampler):
            raise TypeError(f"base: expected a sampler, got {type(self.base).__name__}")

    def transition(self, model: Model) -> Transition:
        moves = [self.base.transition(model.map_scores(partial(_divided, by=t))) for t in self.temperatures]
        inverse = 1 / torch.tensor(self.temperatures, dtype=torch.float64)
        drop = inverse[:-1] - inverse[1:]

        def advance(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
            carried = chains.carried
            others = carried.get("replicas")
            if others is None:
                others = chains.labels.expand(len(moves) - 1, *chains.labels.shape)
            replicas = torch.cat((chains.labels[None], others))
            swapped, offered = carried.get("swapped"), carried.get("offered")
            if swapped is None or offered is None:
                swapped = torch.zeros(replicas[1:].shape[:-1], device=replicas.device)
                offered = torch.zeros(len(moves) - 1, device=replicas.device)
            for sweep in range(chains.sweeps, chains.sweeps + sweeps):
                moved = [move(Chains(y), 1, generator).labels for move, y in zip(moves, replicas, strict=True)]
                replicas = torch.stack(moved)
                pairs = torch.arange(sweep % 2, len(moves) - 1, 2, device=replicas.device)
                replicas, accept = _swapped(model, replicas, pairs, drop.to(replicas.device), generator)
                swapped, offered = swapped.index_add(0, pairs, accept.to(swapped.dtype)), offered.clone()
                offered[pairs] += 1
            carried = {"replicas": replicas[1:], "swapped": swapped, "offered": offered}
            return Chains(replicas[0], carried, chains.sweeps + sweeps)

        return advance

    def _resumed(self, model: Model, chains: Chains) -> Chains:
        chains = super()._resumed(model, chains)
        replicas = chains.carried.get("replicas")
        if replicas is None:
            return chains
        shape = (len(self.temperatures) - 1, *chains.labels.shape)
        if tuple(replicas.shape) != shape:
            raise ValueError(
                f"chains: expected replicas of {shape[1]} chains at {shape[0]} temperatures above 1, "
                f"got {list(replicas.shape)}; chains of another ladder go on as Chains(chains.labels)"
            )
        replicas = resumed("chains.carried['replicas']", model, replicas, ("temperatures - 1", "n"))
        return Chains(chains.labels, chains.carried | {"replicas": replicas}, chains.sweeps)

    def report(self, chains: Chains) -> dict[str, Any]:
        if "swapped" not in chains.carried:  # no sweep was made
            return {}
        swapped = chains.carried["swapped"].mean(1)
        offered = chains.carried["offered"].reshape(-1, *(1,) * (swapped.dim() - 1))
        return {"swap_acceptance": swapped / offered, "temperatures": self.temperatures}


def _divided(scores: Tensor, by: float) -> Tensor:
    return scores / by


def _swapped(
    model: Model, replicas: Tensor, pairs: Tensor, drop: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Replicas after offering to swap ``pairs`` with the temperature above each, and which of them did."""
    scores = model.precise_score(replicas)
    gain = scores[pairs + 1] - scores[pairs]
    log_ratio = drop[pairs].reshape(-1, *(1,) * (gain.dim() - 1)) * gain
    accept = accepted(log_ratio.to(model.dtype), generator)
    low, high = replicas[pairs], replicas[pairs + 1]
    replicas = replicas.clone()
    replicas[pairs] = torch.where(accept[..., None], high, low)
    replicas[pairs + 1] = torch.where(accept[..., None], low, high)
    return replicas, accept
