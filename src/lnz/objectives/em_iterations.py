"""The iterations of EM from one start, one by one, so that a run can be watched, kept and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.errors import ConvergenceWarning, warn

ROUNDING = 1e-9
"""How far rounding may lower an objective of size 1 in float64."""
_SLOWER = 0.7  # step t of minibatches moves the statistics by (t + 2)^−that (Cappé & Moulines 2009: above .5, below 1)


class Iteration(NamedTuple):
    """Where EM is.

    Attributes:
        model: the learner with its parameters now.
        log_evidence: Σ ln p(x) at these parameters.
        objective: the same plus the log prior.
        converged: the objective rose by no more than the tolerance.
    """

    model: Any
    log_evidence: float
    objective: float
    converged: bool


class Steps:
    """The E and the M step of one start, and their settings.

    Args:
        model: the learner to start from.
        lengths: of padded sequences.
        pseudocount: of the M step.
        tied: groups of variables that share a table.
        settings: further arguments of the E step, one entry per row.
    """

    def __init__(
        self,
        model: Any,
        lengths: Tensor | Sequence[int] | None = None,
        pseudocount: float = 0.0,
        tied: Sequence[Sequence[int]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.lengths, self.pseudocount, self.tied = model, lengths, pseudocount, tied
        self.settings = settings or {}

    def expect(self, data: Tensor, rows: Tensor | None = None) -> tuple[float, Any]:
        """The log evidence and the statistics of the data, or of some of its rows."""
        if rows is None:
            evidence, statistics = self.model.e_step(data, self.lengths, **self.settings)
        else:
            lengths = None if self.lengths is None else torch.as_tensor(self.lengths)[rows]
            settings = {name: value[rows] for name, value in self.settings.items()}
            evidence, statistics = self.model.e_step(data[rows], lengths, **settings)
        return float(evidence), statistics

    def maximise(self, statistics: Any) -> None:
        """The M step: exchange the model."""
        if self.tied is not None:
            statistics = self.model.tied(statistics, self.tied)
        self.model = self.model.m_step(statistics, self.pseudocount)

    @property
    def log_prior(self) -> float:
        """ln of the prior density of the parameters now."""
        return float(self.model.log_prior(self.pseudocount))


def iterations(
    steps: Steps, data: Tensor, max_iterations: int, tolerance: float, rounding: float = ROUNDING
) -> Iterator[Iteration]:
    """The start, then where each of at most ``max_iterations`` iterations leads.

    Whoever keeps the model of an iteration can start from it later: what follows is the same.

    Warns:
        ConvergenceWarning: an iteration lowered the objective by more than ``rounding``; it is the last.
    """
    before = None
    for made in range(max_iterations + 1):
        evidence, statistics = steps.expect(data)
        objective = evidence + steps.log_prior
        size = max(1.0, abs(objective))
        raised = 0.0 if before is None else objective - before
        converged = before is not None and -max(tolerance, rounding) * size <= raised <= tolerance * size
        yield Iteration(steps.model, evidence, objective, converged)
        if raised < 0 and not converged:
            warn(
                f"em: iteration {made} lowered the objective from {before:.6g} to {objective:.6g}, by more than "
                "rounding: an M step that does not maximise",
                ConvergenceWarning,
            )
            return
        if converged or made == max_iterations:
            return
        before = objective
        steps.maximise(statistics)


def stepwise(
    steps: Steps,
    data: Tensor,
    batch_size: int,
    max_iterations: int,
    tolerance: float,
    generator: torch.Generator | None,
) -> Iterator[Iteration]:
    """The same by minibatches, which move running averages of the statistics, each by less than the one before."""
    device = "cpu" if generator is None else generator.device
    running, moves = None, 0
    evidence = steps.expect(data)[0]
    now = Iteration(steps.model, evidence, evidence + steps.log_prior, False)
    yield now
    for _ in range(max_iterations):
        for rows in torch.randperm(len(data), generator=generator, device=device).to(data.device).split(batch_size):
            share = (moves + 2) ** -_SLOWER if moves else 1.0
            some = share * len(data) / len(rows), steps.expect(data, rows)[1]
            running = steps.model.combined([some] if running is None else [(1 - share, running), some])
            steps.maximise(running)
            moves += 1
        evidence = steps.expect(data)[0]
        objective = evidence + steps.log_prior
        converged = abs(objective - now.objective) <= tolerance * max(1.0, abs(objective))
        now = Iteration(steps.model, evidence, objective, converged)
        yield now
        if converged:
            return
