"""Best labellings by whichever methods suit the model, in turn, until one proves its answer or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lnz.checks import check_integer, check_number
from lnz.errors import IntractableError
from lnz.inference.base import Method
from lnz.inference.exact.exact import Exact
from lnz.inference.map.cluster_tempering import Ladder
from lnz.inference.map.integer_program import IntegerProgram
from lnz.inference.map.labellings import best_of, random_labellings
from lnz.inference.map.mode import Found, Given, ModeSolution, judged, proved
from lnz.inference.map.trws import TRWS
from lnz.ops.icm.op import icm
from lnz.scores import Model

EXACT_RATE = 5e7
"""Entries of cliques' tables that an elimination gets through in a second, with room to spare."""
LADDERS = (0.3, 0.02), (0.03, 0.003)
"""The hottest and the coldest temperature of a search that crosses high barriers, and of one for fine differences."""
REPLICA_BYTES = 2**29
PATIENCE = 8  # climbs without success before a ladder's replicas are drawn anew


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a search has come: after ``seconds``, by ``stage``, ``score`` and ``bound`` ``[*batch]`` in float64."""

    seconds: float
    stage: str
    score: Tensor
    bound: Tensor


@dataclass(frozen=True)
class Auto(Method):
    """A best labelling within a time limit, always with a score, a bound and the gap between them.

    In turn: elimination, where its tables are small enough for the time; TRW-S, for a bound and a first labelling;
    :class:`~lnz.inference.ClusterTempering`; integer programming, from which all is left out that cannot beat the
    labelling known by then; both once more; and tempering, restarted where it makes no progress, until time is up. The
    search ends as soon as a bound proves the labelling best; ``diagnostics`` tells that, and the ``stages``.

    Args:
        time_limit: seconds for all of it. What is under way ends first, so that it may take somewhat longer.
        seed: of the random numbers. How far a search comes in its time depends on the machine all the same.
        progress: called with a :class:`Progress` after each stage, and whenever a better labelling is found.
    """

    time_limit: float = 60.0
    seed: int = 0
    progress: Callable[[Progress], None] | None = field(default=None, repr=False, compare=False)
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("time_limit", self.time_limit, "a positive number of seconds", lambda t: t > 0)
        check_integer("seed", self.seed, None)

    def solve(self, model: Model) -> AutoSolution:
        return AutoSolution(model, self)


class AutoSolution(ModeSolution):
    """The best labelling that any stage found, and the lowest of their bounds."""

    method = "Auto"

    def __init__(self, model: Model, settings: Auto) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        search = _Search(self.model, self.settings)
        limit = self.settings.time_limit
        search.eliminate()
        search.pass_messages(0.3 * limit)
        for _ in range(2):
            search.temper(0.2 * limit)
            search.program(0.1 * limit)
        search.temper(limit)
        return Found(search.labels, search.bound, {"stages": search.stages})


class _Search:
    """What is known so far, and the stages that add to it; each does nothing where all is proved."""

    def __init__(self, model: Model, settings: Auto) -> None:
        self.model, self.settings, self.began = model, settings, time.monotonic()
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.labels = icm(model, random_labellings(model, 1, self.generator))[0]
        self.score = model.precise_score(self.labels)
        self.bound = torch.full_like(self.score, torch.inf)
        self.stages: list[str] = []
        self._programmed = torch.full_like(self.score, torch.nan)
        self._ladders: dict[int, Ladder] = {}
        self._sweeps, self._failed = [20] * len(LADDERS), [0] * len(LADDERS)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.settings.time_limit - (time.monotonic() - self.began)

    @property
    def done(self) -> bool:
        """Whether every batch entry is proved: best, or impossible."""
        return bool((proved(self.score, self.bound) | torch.isneginf(self.bound)).all())

    def eliminate(self) -> None:
        """Exactly, where the plan is small for the time."""
        limit = self.settings.time_limit
        try:
            solution = Exact(search_seconds=min(10.0, 0.03 * limit)).solve(self.model)
            entries = solution.diagnostics["total_entries"] * self.model.batch_shape.numel()
            if entries <= EXACT_RATE * limit:
                labels = solution.argmax()
                self._found("Exact", labels, judged(solution, labels)["bound"])
        except IntractableError:
            pass

    def pass_messages(self, seconds: float) -> None:
        """By TRW-S."""
        if not self.done:
            solution = TRWS(time_limit=seconds).solve(self.model)
            self._found("TRWS", solution.argmax(), solution.diagnostics["bound"])

    def program(self, seconds: float) -> None:
        """By integer programming, unless the program would be too large, or was tried and no more is known now."""
        if self.done or self.left <= 0 or torch.equal(self._programmed, self.score):
            return
        self._programmed = self.score
        each = min(seconds, self.left) / max(1, self.model.batch_shape.numel())
        try:
            solution = IntegerProgram(time_limit=each, start=Given(self.labels)).solve(self.model)
        except IntractableError:
            return
        self._found("IntegerProgram", solution.argmax(), solution.diagnostics["bound"])

    def temper(self, seconds: float) -> None:
        """By parallel tempering, each time with the ladder that has failed the fewest times in a row."""
        end = time.monotonic() + min(seconds, self.left)
        while not self.done and time.monotonic() < end:
            began, before = time.monotonic(), self.score
            turn = self._failed.index(min(self._failed))
            ladder = self._ladder(turn)
            self._found("ClusterTempering", ladder.climb(self.labels, self._sweeps[turn]))
            better = bool((self.score > before).any())
            self._failed[turn] = 0 if better else self._failed[turn] + 1
            wanted = min(2.0, 0.03 * self.settings.time_limit) / max(1e-3, time.monotonic() - began)
            self._sweeps[turn] = max(1, int(self._sweeps[turn] * min(4.0, max(0.25, wanted))))

    def _ladder(self, turn: int) -> Ladder:
        known = self._ladders.get(turn)
        if known is not None and self._failed[turn] < PATIENCE:
            return known
        model, (hottest, coldest) = self.model.centred()[0], LADDERS[turn]
        batch = max(1, model.batch_shape.numel())
        runs = max(1, torch.get_num_threads() // batch)
        size = 8 * sum(model.graph.cardinalities) * batch * runs * 2
        rungs = max(4, min(16, REPLICA_BYTES // max(1, size)))
        ladder = Ladder(model, rungs, hottest, coldest, runs, self.generator)
        if known is None:
            ladder.begin_at(self.labels)
        self._ladders[turn], self._failed[turn] = ladder, 0
        return ladder

    def _found(self, stage: str, labels: Tensor, bound: Tensor | None = None) -> None:
        before = self.score
        self.labels = best_of(self.model, torch.stack((self.labels, labels)))
        self.score = self.model.precise_score(self.labels)
        if bound is not None:
            self.bound = torch.minimum(self.bound, bound.to(self.bound))
        if stage not in self.stages:
            self.stages.append(stage)
        if self.settings.progress is not None and (bool((self.score > before).any()) or bound is not None):
            seconds = time.monotonic() - self.began
            self.settings.progress(Progress(seconds, stage, self.score, self.bound))
