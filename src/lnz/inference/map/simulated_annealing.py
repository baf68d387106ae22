"""Simulated annealing: Gibbs sampling, of nodes or of whole forests, while the temperature falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch

from lnz.checks import check_integer, check_number
from lnz.inference.base import Method
from lnz.inference.map.cluster_tempering import possible
from lnz.inference.map.labellings import best_of, mean_range, random_labellings
from lnz.inference.map.mode import Found, ModeSolution
from lnz.ops.annealing import anneal
from lnz.ops.icm.op import icm
from lnz.ops.tree_gibbs.op import forest_moves
from lnz.scores import Model

Moves = Literal["nodes", "forests"]


@dataclass(frozen=True)
class SimulatedAnnealing(Method):
    """A labelling by simulated annealing (Geman and Geman 1984); O(chains · sweeps · Σ_f k_f L) time, L² with forests.

    Chains start at random labellings, or at that of ``start``, and make Gibbs sweeps at temperatures that fall by a
    constant factor. The last labelling of each forest chain, or the best one that each chain of single nodes has met,
    ends in iterated conditional modes; the best one counts. No bound, but that of ``start``.

    Args:
        sweeps: per chain, one at each temperature.
        hottest: the first temperature, in units of the mean range of a node's scores given all other nodes.
        coldest: the last one.
        moves: what a sweep redraws: every node in turn given all others (``"nodes"``), or a random induced forest
            jointly given the rest (``"forests"``: Hamze and de Freitas 2004), which passes barriers that stop nodes.
        chains: how many.
        start: a method whose ``argmax()`` to start all chains from; it competes with their results.
        seed: of the random numbers.
    """

    sweeps: int = 200
    hottest: float = 0.5
    coldest: float = 0.01
    moves: Moves = "nodes"
    chains: int = 4
    start: Method | None = None
    seed: int = 0
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("sweeps", self.sweeps, 1)
        check_integer("chains", self.chains, 1)
        check_integer("seed", self.seed, None)
        for name, value in (("coldest", self.coldest), ("hottest", self.hottest)):
            check_number(name, value)
        if not 0 < self.coldest <= self.hottest:
            raise ValueError(
                f"coldest, hottest: expected 0 < coldest ≤ hottest, got {self.coldest!r} and {self.hottest!r}"
            )
        if self.moves not in get_args(Moves):
            raise ValueError(f"moves: expected one of {', '.join(map(repr, get_args(Moves)))}, got {self.moves!r}")
        if self.start is not None and not isinstance(self.start, Method):
            raise TypeError(f"start: expected a method of lnz.inference or None, got {self.start!r}")

    def solve(self, model: Model) -> SimulatedAnnealingSolution:
        return SimulatedAnnealingSolution(model, self)


class SimulatedAnnealingSolution(ModeSolution):
    """The best labelling of all chains."""

    method = "SimulatedAnnealing"

    def __init__(self, model: Model, settings: SimulatedAnnealing) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        settings, model = self.settings, self.centred[0]
        generator = torch.Generator().manual_seed(settings.seed)
        labels = random_labellings(model, settings.chains, generator)
        unit, bound, rivals = mean_range(model, labels), None, labels[:0]
        if settings.start is not None:
            solution = settings.start.solve(self.model)
            rivals = solution.argmax()[None]
            bound = solution.diagnostics.get("bound")
            labels = rivals.expand_as(labels)
        falling = (settings.coldest / settings.hottest) ** (1 / max(settings.sweeps - 1, 1))
        temperatures = [unit * settings.hottest * falling**sweep for sweep in range(settings.sweeps)]
        if settings.moves == "forests":
            labels = forest_moves(model, labels, temperatures, generator)
        else:
            labels = anneal(model, labels, temperatures, generator)
        best = best_of(self.model, icm(self.model, torch.cat((rivals, labels))))
        return Found(possible(self.model, best), bound)
