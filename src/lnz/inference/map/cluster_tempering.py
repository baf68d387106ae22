"""Parallel tempering with cluster moves: local search that crosses barriers, and puts good parts together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lnz.checks import check_integer, check_number
from lnz.inference.base import Method
from lnz.inference.map.labellings import best_of, mean_range, random_labellings
from lnz.inference.map.mode import Found, ModeSolution
from lnz.ops.annealing import Replicas, temper
from lnz.ops.icm.op import icm
from lnz.scores import Model


@dataclass(frozen=True)
class ClusterTempering(Method):
    """A labelling by parallel tempering with isoenergetic cluster moves (Zhu, Ochoa and Katzgraber 2015).

    Two replicas at each of several temperatures make Gibbs sweeps, exchange connected clusters of nodes at which they
    differ, which leaves the sum of their scores as it was, and exchange temperatures. Every cluster that makes the best
    labelling better is taken over into it, so that parts are solved one by one and in any order. On spin glasses it is
    much better than annealing. O(runs · sweeps · rungs · Σ_f k_f L) time; memory for the scores of every label
    of all replicas. No bound, but that of ``start``.

    Args:
        sweeps: per replica.
        rungs: how many temperatures, at a constant ratio.
        hottest: the highest temperature, in units of the mean range of a node's scores given all other nodes.
        coldest: the lowest one.
        runs: how many independent ones, side by side on as many threads; the best labelling counts.
        start: a method whose labelling to make better; replicas start at random ones.
        seed: of the random numbers.
    """

    sweeps: int = 500
    rungs: int = 16
    hottest: float = 0.3
    coldest: float = 0.02
    runs: int = 2
    start: Method | None = None
    seed: int = 0
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("sweeps", self.sweeps, 1)
        check_integer("rungs", self.rungs, 2)
        check_integer("runs", self.runs, 1)
        check_integer("seed", self.seed, None)
        for name, value in (("coldest", self.coldest), ("hottest", self.hottest)):
            check_number(name, value)
        if not 0 < self.coldest < self.hottest:
            raise ValueError(
                f"coldest, hottest: expected 0 < coldest < hottest, got {self.coldest!r} and {self.hottest!r}"
            )
        if self.start is not None and not isinstance(self.start, Method):
            raise TypeError(f"start: expected a method of lnz.inference or None, got {self.start!r}")

    def solve(self, model: Model) -> ClusterTemperingSolution:
        return ClusterTemperingSolution(model, self)


class ClusterTemperingSolution(ModeSolution):
    """The best labelling that any run has put together."""

    method = "ClusterTempering"

    def __init__(self, model: Model, settings: ClusterTempering) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        settings, model = self.settings, self.centred[0]
        generator = torch.Generator().manual_seed(settings.seed)
        ladder = Ladder(model, settings.rungs, settings.hottest, settings.coldest, settings.runs, generator)
        labels, bound = random_labellings(model, 1, generator)[0], None
        if settings.start is not None:
            solution = settings.start.solve(self.model)
            labels, bound = solution.argmax(), solution.diagnostics.get("bound")
        return Found(ladder.climb(labels, settings.sweeps), bound)


def possible(model: Model, labels: Tensor) -> Tensor:
    """``labels [*batch, N]``; where they are impossible, what a short tempering comes to that starts there."""
    ladder: Ladder | None = None
    for _ in range(5):
        if not torch.isneginf(model.precise_score(labels)).any():
            break
        ladder = ladder or Ladder(model.centred()[0], 8, 0.3, 0.02, 1, torch.Generator().manual_seed(0))
        labels = ladder.climb(labels, 50)
    return labels


class Ladder:
    """Replicas at temperatures that rise by a constant ratio; each :meth:`climb` goes on where the last one ended."""

    def __init__(
        self, model: Model, rungs: int, hottest: float, coldest: float, runs: int, generator: torch.Generator
    ) -> None:
        drawn = random_labellings(model, runs * 2 * rungs, generator)
        self.model, self.generator = model, generator
        self.labels = drawn.reshape(runs, 2, rungs, *drawn.shape[1:])
        unit, ratio = mean_range(model, drawn[:4]), (hottest / coldest) ** (1 / (rungs - 1))
        self.temperatures = [unit * coldest * ratio**r for r in range(rungs)]

    def begin_at(self, labels: Tensor) -> None:
        """Start one replica at each temperature at this labelling ``int64 [*batch, N]``."""
        self.labels[:, 0] = labels

    def climb(self, best: Tensor, sweeps: int) -> Tensor:
        """A labelling ``int64 [*batch, N]`` no worse than ``best``, after so many more sweeps."""
        replicas = Replicas(self.labels, best.expand(len(self.labels), *best.shape))
        self.labels, tops = temper(self.model, replicas, self.temperatures, sweeps, self.generator)
        return best_of(self.model, torch.cat((best[None], icm(self.model, tops))))
