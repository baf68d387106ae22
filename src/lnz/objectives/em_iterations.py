"""The iterations of EM: of several starts at once where their tables can be stacked, or of minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.errors import ConvergenceWarning, InfeasibleError, IntractableError, warn
from lnz.objectives import processes
from lnz.objectives.em_state import EMState, Start

ROUNDING = 1e-9
"""How far rounding may lower an objective of size 1 in float64."""
_SLOWER = 0.7  # step t of minibatches moves the statistics by (t + 2)^−that (Cappé & Moulines 2009: above .5, below 1)


class Settings(NamedTuple):
    """The observations, and what EM does with them.

    Attributes:
        data, lengths, weights: the observations.
        pseudocount, max_iterations, tolerance: as :func:`lnz.objectives.em` takes them.
        rounding: how far rounding may lower an objective of size 1; ``None``, where an approximate E step may lower it.
        merged: the different rows of the data, and their weights, where that is what the E step works on.
    """

    data: Tensor
    lengths: Tensor | Sequence[int] | None
    weights: Tensor | None
    pseudocount: float
    max_iterations: int
    tolerance: float
    rounding: float | None
    merged: tuple[Tensor, Tensor] | None = None


def expect(learner: Any, settings: Settings, rows: Tensor | None = None) -> tuple[list[float], Any]:
    """The log evidence of all data, or of some rows, for each start of a stack; and the statistics (E step)."""
    data, lengths, weights = settings.data, settings.lengths, settings.weights
    if settings.merged is not None and rows is None:
        data, weights = settings.merged
    if rows is not None:
        lengths = None if lengths is None else torch.as_tensor(lengths)[rows]
        data, weights = data[rows], None if weights is None else weights[rows]
    beside = {} if weights is None else {"weights": weights}

    def step() -> tuple[Any, Any]:
        try:
            return learner.e_step(data, lengths, **beside)
        except InfeasibleError:
            if data is not settings.data and rows is None:  # by the numbers of the rows as they were given
                learner.e_step(settings.data, lengths)
            raise
        except IntractableError as error:
            message = str(error).replace("pass inference=", "pass method=")  # as em calls it
            raise IntractableError(
                message, treewidth=error.treewidth, table_bytes=error.table_bytes, alternatives=error.alternatives
            ) from None

    if processes.several():
        evidence, statistics = processes.attempted(step)
        (evidence,) = processes.summed(torch.as_tensor(evidence))
        statistics = processes.together(statistics)
    else:
        evidence, statistics = step()
    return torch.as_tensor(evidence).double().reshape(-1).tolist(), statistics


def log_priors(learner: Any, pseudocount: float) -> list[float]:
    """Of each start of a stack."""
    return torch.as_tensor(learner.log_prior(pseudocount)).double().reshape(-1).tolist()


def iterations(state: EMState, numbers: Sequence[int], settings: Settings, *, stack: bool) -> Iterator[list[int]]:
    """Iterate some starts until each has converged or the iterations are over; all at once, as a ``stack``, or one.

    Yields the numbers of the starts that have just been measured: before the first iteration, and after each one.
    """
    going = [number for number in numbers if not state.starts[number].finished]
    if not going:
        return
    for number in going:  # what was measured last when the state was saved is measured again, with the same result
        del state.starts[number].log_evidence[-1:], state.starts[number].objective[-1:]
    learner = state.starts[going[0]].learner
    learner = learner.stacked([state.starts[number].learner for number in going]) if stack else learner
    while going:
        evidence, statistics = expect(learner, settings)
        priors = log_priors(learner, settings.pseudocount)
        state.stack = (learner, going) if stack else None
        for number, log_evidence, prior in zip(going, evidence, priors, strict=True):
            start = state.starts[number]
            start.learner = start.learner if stack else learner
            start.log_evidence.append(log_evidence)
            start.objective.append(log_evidence + prior)
            _judge(start, settings)
        yield going
        remaining = [number for number in going if not state.starts[number].finished]
        ended = stack and len(remaining) < len(going)
        if ended:
            over = [place for place, number in enumerate(going) if state.starts[number].finished]
            for place, each in zip(over, learner.unstacked(over), strict=True):
                state.starts[going[place]].learner = each
        if remaining:
            learner = learner.m_step(statistics, settings.pseudocount)
        if ended and remaining:
            learner = learner.stack_of([going.index(number) for number in remaining])
        going = remaining
    state.stack = None


def _judge(start: Start, settings: Settings) -> None:
    """Whether a start has converged, fallen, or has no iterations left."""
    if len(start.objective) > 1:
        before, now = start.objective[-2:]
        raised, size = now - before, max(1.0, abs(now))
        if settings.rounding is None:
            start.converged = abs(raised) <= settings.tolerance * size
        else:
            start.converged = -max(settings.tolerance, settings.rounding) * size <= raised <= settings.tolerance * size
            if raised < 0 and not start.converged:
                warn(
                    f"em: iteration {len(start.objective) - 1} lowered the objective from {before:.6g} to {now:.6g}, "
                    "by more than rounding: an M step that does not maximise",
                    ConvergenceWarning,
                )
                start.finished = True
    start.finished = start.finished or start.converged or len(start.objective) > settings.max_iterations


def stepwise(
    state: EMState, number: int, settings: Settings, batch_size: int, generator: torch.Generator | None
) -> Iterator[list[int]]:
    """The same of one start by minibatches, which move running averages of the statistics, each by less than before."""
    start = state.starts[number]
    if start.finished:
        return
    device = "cpu" if generator is None else generator.device
    data, tolerance = settings.data, settings.tolerance

    def measure() -> None:
        start.log_evidence.append(expect(start.learner, settings)[0][0])
        start.objective.append(start.log_evidence[-1] + log_priors(start.learner, settings.pseudocount)[0])

    if not start.objective:
        state.running, state.moves = None, 0
        measure()
        yield [number]
    while not start.finished:
        for rows in torch.randperm(len(data), generator=generator, device=device).to(data.device).split(batch_size):
            share = (state.moves + 2) ** -_SLOWER if state.moves else 1.0
            some = share * len(data) / len(rows), expect(start.learner, settings, rows)[1]
            parts = [some] if state.running is None else [(1 - share, state.running), some]
            state.running = start.learner.combined(parts)
            start.learner = start.learner.m_step(state.running, settings.pseudocount)
            state.moves += 1
        measure()
        before, now = start.objective[-2:]
        start.converged = abs(now - before) <= tolerance * max(1.0, abs(now))
        start.finished = start.converged or len(start.objective) > settings.max_iterations
        state.generator = None if generator is None else generator.get_state()
        yield [number]
