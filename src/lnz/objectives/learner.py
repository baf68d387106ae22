"""What EM asks of a model, and what it returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Learner(Protocol):
    """A model with the two steps of EM, such as :class:`lnz.BayesNet` and :class:`lnz.nn.HiddenMarkovModel`.

    A learner may have more, which :func:`lnz.objectives.em` asks for where it is needed: ``weights=`` of its E step,
    ``drawn`` for restarts, ``tie`` for shared tables, ``stacked``, ``stack_of`` and ``unstacked`` for restarts at once,
    ``merged`` for rows that are equal, ``state_dict`` for states that are saved, ``num_parameters`` and
    ``num_observations`` for AIC and BIC.
    """

    def e_step(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> tuple[Tensor, Any]:
        """The log evidence of ``data``, summed over its rows, and the expected counts given it."""
        ...

    def m_step(self, statistics: Any, pseudocount: float) -> Self:
        """The model with the parameters that maximise the expected log-joint, given those counts."""
        ...

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""
        ...


Model = TypeVar("Model", bound=Learner)


@dataclass(frozen=True)
class EMResult(Generic[Model]):
    """What :func:`lnz.objectives.em` returns, of the best start.

    Attributes:
        model: with its last parameters. A module is changed in place, and is this same object.
        log_evidence: Σ ln p(x) before the first iteration and after each one.
        objective: the same plus the log prior of the parameters: what EM maximises, and never lowers.
        converged: the last iteration raised the objective by no more than the tolerance (and did not lower it by more
            than rounding). That is a stationary point to this accuracy, a local optimum or a saddle; it says nothing of
            other starts.
        starts: the last log evidence of every start, in order.
        parameters: how many free parameters the model has; ``None`` where it does not say.
        observations: how many rows (of sequences, frames) it has seen; ``None`` where it does not say.
    """

    model: Model
    log_evidence: tuple[float, ...]
    objective: tuple[float, ...]
    converged: bool
    starts: tuple[float, ...] = ()
    parameters: int | None = None
    observations: float | None = None

    @property
    def iterations(self) -> int:
        """How many M steps were made (of minibatches: how many passes over the data)."""
        return len(self.objective) - 1

    @property
    def aic(self) -> float:
        """Akaike's information criterion, 2 k − 2 ln L of k free parameters; the smaller the better."""
        return akaike(self.log_evidence[-1], self._known("parameters"))

    @property
    def bic(self) -> float:
        """Schwarz's information criterion, k ln n − 2 ln L of n observations; the smaller the better."""
        return schwarz(self.log_evidence[-1], self._known("parameters"), self._known("observations"))

    def _known(self, what: str) -> float:
        value = getattr(self, what)
        if value is None:
            raise TypeError(f"{type(self.model).__name__} does not say its {what}, which AIC and BIC need")
        return value


def akaike(log_evidence: float, parameters: float) -> float:
    """2 k − 2 ln L of k free parameters."""
    return 2 * parameters - 2 * log_evidence


def schwarz(log_evidence: float, parameters: float, observations: float) -> float:
    """k ln n − 2 ln L of k free parameters and n observations."""
    return parameters * math.log(observations) - 2 * log_evidence


class OldNames:
    """A learner whose steps are called ``expected_statistics`` and ``maximised``, as they once were."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def e_step(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> tuple[Tensor, Any]:
        return self.model.expected_statistics(data, lengths)

    def m_step(self, statistics: Any, pseudocount: float) -> OldNames:
        return OldNames(self.model.maximised(statistics, pseudocount))

    def log_prior(self, pseudocount: float) -> Tensor:
        return torch.as_tensor(self.model.log_prior(pseudocount))
