"""Learning the weights of a CRF on sparse features: when to stop, and the best weights on validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.nn.feature_chain import FeatureObjective
from lnz.nn.owlqn import Iterate, owlqn


class Step(NamedTuple):
    """One iteration, as it is told: its number, the objective and, where it was looked at, the validation score."""

    iteration: int
    objective: float
    score: float | None


@dataclass(frozen=True)
class Learning:
    """How weights are learnt.

    Args:
        algorithm: ``"lbfgs"``, on all sentences at once; ``"l2sgd"``, stochastic gradient, a few at a time.
        c1: the weight of Σ|w|, under ``"lbfgs"``.
        c2: the weight of Σ w².
        max_iterations: at most so many, of the stochastic gradient passes over the data; ``None``: 1000 of those, and
            any number of iterations.
        memory: steps that ``"lbfgs"`` estimates curvature by.
        epsilon: it stops where the gradient's norm is below this times that of the weights, or 1.
        period: iterations over which progress is judged, and after which validation data are.
        delta: it stops where the objective has gained less than this, relatively, over a period.
        patience: with validation data, it stops after so many periods without a better score; the best weights are
            kept.
    """

    algorithm: str = "lbfgs"
    c1: float = 0.0
    c2: float = 1.0
    max_iterations: int | None = None
    memory: int = 6
    epsilon: float = 1e-5
    period: int = 10
    delta: float = 1e-5
    patience: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.algorithm not in ("lbfgs", "l2sgd"):
            raise ValueError(f"algorithm: expected 'lbfgs' or 'l2sgd', got {self.algorithm!r}")
        for name in ("c1", "c2", "epsilon", "delta"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)}")
        if self.algorithm == "l2sgd" and self.c1:
            raise ValueError(f"c1: expected 0 under 'l2sgd', which has no absolute values, got {self.c1}")
        if self.algorithm == "l2sgd" and not self.c2:
            raise ValueError("c2: expected a positive number under 'l2sgd', whose steps it sets, got 0")
        for name in ("memory", "period", "patience", "max_iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value}")


@dataclass
class Learnt:
    """Weights ``[P]``, and how they were found.

    Attributes:
        weights: those of the best validation score, or of the last iteration.
        steps: one per iteration.
        best: the iteration whose weights these are.
    """

    weights: Tensor
    steps: list[Step] = field(default_factory=list)
    best: int = 0


def learn(
    objective: FeatureObjective,
    learning: Learning,
    validate: Callable[[Tensor], float] | None = None,
    tell: Callable[[Step], None] | None = None,
) -> Learnt:
    """The weights of least ``objective``; with ``validate``, of best score along the way.

    Args:
        objective: of the training data.
        learning: how.
        validate: from weights to a score, higher is better.
        tell: is called after each iteration.
    """
    found = Learnt(torch.zeros(objective.num_weights))
    best, waited, values = -float("inf"), 0, []
    for iteration, at in enumerate(_iterates(objective, learning, found.weights), 1):
        values.append(at.value)
        score = None
        if validate is not None and iteration % learning.period == 0:
            score = validate(at.point)
            waited = 0 if score > best else waited + 1
        if validate is None or (score is not None and score > best):
            found.weights, found.best, best = at.point, iteration, best if score is None else score
        found.steps.append(Step(iteration, at.value, score))
        if tell is not None:
            tell(found.steps[-1])
        if waited >= learning.patience or _is_over(values, at, learning):
            break
    if validate is not None and found.steps and found.steps[-1].score is None and validate(at.point) > best:
        found.weights, found.best = at.point, len(found.steps)
    return found


def _iterates(objective: FeatureObjective, learning: Learning, start: Tensor) -> Iterable[Iterate]:
    if learning.algorithm == "lbfgs":
        return owlqn(objective, start, learning.c1, learning.memory)
    from lnz.nn.feature_sgd import sgd

    return sgd(objective, start, learning.seed)


def _is_over(values: list[float], at: Iterate, learning: Learning) -> bool:
    if at.gradient_norm < learning.epsilon * max(1.0, float(at.point.norm())):
        return True
    limit = learning.max_iterations or (1000 if learning.algorithm == "l2sgd" else None)
    if limit is not None and len(values) >= limit:
        return True
    if len(values) <= learning.period:
        return False
    return values[-1 - learning.period] - values[-1] < learning.delta * abs(values[-1])
