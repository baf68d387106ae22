"""What methods that look for a best labelling share: the labelling, its score, and what is proved about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.inference.base import Method, Solution
from lnz.scores import Model

ROUNDING = 1e-9  # what sums of float64 scores may be off by, as a fraction


@dataclass(frozen=True, eq=False)
class Found:
    """A labelling ``int64 [*batch, N]``, an upper bound on every score ``[*batch]`` if there is one, and remarks."""

    labels: Tensor
    bound: Tensor | None = None
    remarks: dict[str, Any] = field(default_factory=dict)


class ModeSolution(Solution, ABC):
    """A labelling and what is known about it; ln Z, marginals and samples are for other methods.

    ``diagnostics`` tells the ``score`` of the labelling, the ``bound`` that no labelling's score exceeds (+inf where
    the method has none), the ``gap`` between them, and whether the labelling is thereby proved ``optimal``: tensors
    ``[*batch]``, scores in float64. The answer is sought once, when first asked for.
    """

    exact = False

    @abstractmethod
    def _find(self) -> Found:
        """The method at work; called once, without gradients."""

    @cached_property
    def found(self) -> Found:
        """The method's answer."""
        with torch.no_grad():
            return self._find()

    def require_feasible(self, what: str) -> None:
        """Whether a labelling is possible shows in the score of the one that is found."""

    def argmax(self) -> Tensor:
        return self.found.labels

    @property
    def diagnostics(self) -> dict[str, Any]:
        score = self.model.precise_score(self.found.labels)
        bound = torch.full_like(score, torch.inf) if self.found.bound is None else self.found.bound.to(score)
        return {**_said(score, bound, proved(score, bound)), **self.found.remarks}


@dataclass(frozen=True, eq=False)
class Given(Method):
    """A labelling that is known already, ``int64 [*batch, N]``, where a method asks for one to start from."""

    labels: Tensor
    exact: ClassVar[bool] = False

    def solve(self, model: Model) -> GivenSolution:
        return GivenSolution(model, self.labels)


class GivenSolution(ModeSolution):
    """That labelling."""

    method = "Given"

    def __init__(self, model: Model, labels: Tensor) -> None:
        super().__init__(model)
        self._labels = labels

    def _find(self) -> Found:
        return Found(self._labels)


def judged(solution: Solution, labels: Tensor) -> dict[str, Tensor]:
    """``score``, ``bound``, ``gap`` and ``optimal``, from a method that proves either nothing or everything."""
    score = solution.model.precise_score(labels)
    bound = score if solution.exact else torch.full_like(score, torch.inf)
    return _said(score, bound, torch.full_like(score, solution.exact, dtype=torch.bool))


def _said(score: Tensor, bound: Tensor, optimal: Tensor) -> dict[str, Tensor]:
    gap = torch.where(score == bound, 0.0, bound - score)
    return {"score": score, "bound": bound, "gap": gap, "optimal": optimal}


def proved(score: Tensor, bound: Tensor) -> Tensor:
    """Where no labelling can be better, as far as float64 can tell."""
    return (bound <= score + 2 * ROUNDING * (1 + score.abs())) & score.isfinite()
