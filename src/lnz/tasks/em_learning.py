"""EM of a network from one start after the other, kept so that a run can be stopped and resumed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lnz.distributions import BayesNet
from lnz.errors import FormatError, InfeasibleError
from lnz.io.atomic import atomic_write
from lnz.io.checkpoints import load_checkpoint
from lnz.objectives.em_iterations import ROUNDING, iterations
from lnz.objectives.em_iterations import Settings as EMSettings
from lnz.objectives.em_state import EMState, Start
from lnz.tasks.observations import Observations

SAVED_EVERY = 10.0
"""Seconds between checkpoints, besides those when a start is finished and when the run is stopped."""


@dataclass(frozen=True)
class Settings:
    """What EM is told; see :func:`lnz.objectives.em`."""

    restarts: int
    pseudocount: float
    tolerance: float
    max_iterations: int
    seed: int


def check_settings(restarts: int, pseudocount: float, tolerance: float, max_iterations: int) -> None:
    """Raise ``ValueError`` where a setting of EM is out of range."""
    for name, value in {"restarts": restarts, "max_iterations": max_iterations}.items():
        if value < 1:
            raise ValueError(f"model.{name}: expected a positive integer, got {value}")
    for name, number in {"pseudocount": pseudocount, "tolerance": tolerance}.items():
        if not 0 <= number < float("inf"):
            raise ValueError(f"model.{name}: expected a finite number of at least 0, got {number}")


@dataclass
class Learned:
    """How far the starts have come; the last one may be unfinished.

    Attributes:
        best: the network of the highest objective so far.
        number: which start that is.
        history: of each start the log evidence before the first iteration and after each one, and the same plus the log
            prior: what EM maximises.
        converged: of each start that is finished.
        seconds: of work, those before it was resumed too.
    """

    best: BayesNet | None = None
    number: int = 0
    history: list[list[tuple[float, float]]] = field(default_factory=list)
    converged: list[bool] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def finished(self) -> int:
        """Starts that are finished."""
        return len(self.converged)

    @property
    def log_evidence(self) -> list[float]:
        """Of the best start, before the first iteration and after each one."""
        return [evidence for evidence, _ in self.history[self.number]]

    @property
    def starts(self) -> list[float]:
        """The last log evidence of each start that is finished."""
        return [points[-1][0] for points in self.history[: self.finished]]


Told = Callable[[int, int, float], None]
"""Told after each iteration: the start, the iteration, the log evidence."""


def learn(
    start: Callable[[int], BayesNet],
    observed: Observations,
    settings: Settings,
    checkpoint: Path,
    told: Told,
    saved: Callable[[BayesNet], None],
    resume: bool = False,
) -> Learned:
    """Run EM from each start; whatever ends the run, ``checkpoint`` then holds how far it came.

    Args:
        start: the network of a start, a function of its number alone.
        observed: the rows.
        settings: of EM.
        checkpoint: where the run is kept.
        told: called after each iteration.
        saved: called with the best network whenever the checkpoint is written.
        resume: go on from ``checkpoint``, where there is one. What comes out is what a run left alone gives.

    Raises:
        FormatError: a row of probability 0 under a start, by its place; a checkpoint of another run.
    """
    data, weights = observed.distinct
    used = weights > 0
    rows = data[used], None, weights[used]
    kept = _Kept(checkpoint, start(0), _fingerprint(data, weights, settings))
    learned, current = kept.read() if resume and checkpoint.is_file() else (Learned(), None)
    before, since = learned.seconds, time.monotonic()
    last_saved, converged = since, False

    def save() -> None:
        if learned.best is not None:
            kept.write(learned, current)
            saved(learned.best)

    try:
        for number in range(learned.finished, settings.restarts):
            current = current or (start(number), 0)
            if len(learned.history) == number:
                learned.history.append([])
            net, done = current
            now = Start(net)
            told_to_em = EMSettings(
                *rows,
                settings.pseudocount,
                settings.max_iterations - done,
                settings.tolerance,
                ROUNDING,
            )
            state = EMState([now])
            for made, _ in enumerate(iterations(state, [0], told_to_em, stack=True), done):
                state.unstack()
                current = now.learner, made  # with the number: the run may be stopped between any two lines
                points = learned.history[number]
                if len(points) == made:  # else it was resumed, and is where it was
                    points.append((now.log_evidence[-1], now.objective[-1]))
                    told(number, made, now.log_evidence[-1])
                if (
                    learned.best is None
                    or number == learned.number
                    or now.objective[-1] > learned.history[learned.number][-1][1]
                ):
                    learned.best, learned.number = now.learner, number
                learned.seconds = before + time.monotonic() - since
                if time.monotonic() - last_saved > SAVED_EVERY:
                    save()
                    last_saved = time.monotonic()
                converged = now.converged
            learned.converged.append(converged)
            current = None
    except InfeasibleError as error:
        if not error.entries:
            raise
        impossible = used.nonzero()[list(error.entries), 0]
        raise FormatError(
            f"{observed.place(impossible)}: has probability 0 under the network that learning starts from, and what is "
            "impossible stays so"
        ) from error
    finally:
        save()
    return learned


def _fingerprint(data: Tensor, weights: Tensor, settings: Settings) -> dict[str, Any]:
    """What a checkpoint must agree in with the run that goes on from it."""
    rows = hashlib.sha256(data.numpy().tobytes() + weights.numpy().tobytes()).hexdigest()
    return {"rows": rows, "pseudocount": settings.pseudocount, "tolerance": settings.tolerance, "seed": settings.seed}


class _Kept:
    """The checkpoint of a run: tables as tensors, all else as plain values.

    Args:
        path: of the file.
        like: a network with the variables of the run.
        about: what must agree.
    """

    def __init__(self, path: Path, like: BayesNet, about: dict[str, Any]) -> None:
        self.path, self.like = path, like
        self.about = about | {"variables": list(like.names), "parents": [list(each) for each in like.parents]}

    def write(self, learned: Learned, current: tuple[BayesNet, int] | None) -> None:
        unfinished = len(learned.history) > learned.finished
        net, at = current if current is not None and unfinished else (None, 0)
        parts = {"best": learned.best, "current": net}
        state = {
            f"{name}.{v}": table.contiguous()
            for name, net in parts.items()
            if net is not None
            for v, table in enumerate(net.log_cpts)
        }
        runs = {name: value for name, value in vars(learned).items() if name != "best"} | {"at": at}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path, "wb") as file:
            torch.save({"state_dict": state, "lnz": {"task": "em", "settings": self.about, "learned": runs}}, file)

    def read(self) -> tuple[Learned, tuple[BayesNet, int] | None]:
        found = load_checkpoint(self.path)
        about, state = found.get("lnz", {}), found["state_dict"]
        differ = [name for name, value in self.about.items() if about.get("settings", {}).get(name) != value]
        if about.get("task") != "em" or differ:
            what = f"of other {', '.join(differ)}" if differ else f"of task {about.get('task')!r}"
            raise FormatError(f"{self.path}: expected the checkpoint of this run, got one {what}")
        runs = dict(about["learned"])
        at = runs.pop("at")
        learned = Learned(**runs, best=self._network(state, "best"))
        if "current.0" in state:
            return learned, (self._network(state, "current"), at)
        learned.history = learned.history[: learned.finished]
        return learned, None

    def _network(self, state: dict[str, Tensor], name: str) -> BayesNet:
        return self.like.with_tables(state[f"{name}.{v}"] for v in range(len(self.like.names)))
