"""Hidden Markov models as estimators: sequences in any form in, labels and numbers out."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from lnz.distributions import HMM
from lnz.nn.sequences import Batch, Sequences, as_batch
from lnz.objectives import EMResult, em
from lnz.objectives.learner import akaike, schwarz

if TYPE_CHECKING:
    from lnz.nn.hmm_emissions import Emissions


class EstimatesSequences:
    """``fit``, ``score``, ``predict`` and ``predict_proba``.

    Sequences are a padded batch ``[B, T, …]``, with ``lengths`` or without; a list of them; one sequence ``[T, …]``; or
    several below each other, whose ``lengths`` add up. Tensors, NumPy arrays and lists are taken. What comes back has
    the form in which the sequences came.
    """

    emissions: Emissions
    initial: nn.Parameter
    training_result: EMResult[Any] | None = None
    """What the last :meth:`fit` found: the objective of each iteration, whether it converged, AIC and BIC."""

    @abstractmethod
    def forward(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        inputs: Tensor | None = None,
        states: Tensor | None = None,
    ) -> HMM:
        """The posterior of a padded batch."""

    @abstractmethod
    def num_parameters(self) -> int:
        """Free parameters."""

    def fit(
        self,
        data: Sequences,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        restarts: int = 1,
        init: Literal["given", "random", "kmeans"] = "given",
        max_iterations: int = 100,
        tolerance: float = 1e-7,
        pseudocount: float = 0.0,
        generator: torch.Generator | None = None,
        states: Sequences | None = None,
        inputs: Sequences | None = None,
    ) -> Self:
        """Itself, with the parameters that :func:`lnz.objectives.em` finds; :attr:`training_result` has its course.

        Args:
            data: sequences in any form.
            lengths: of sequences that are padded, or below each other.
            restarts: how many starts, the first one by ``init``, the others drawn at random; the best is kept.
            init: the parameters as they are; ``"random"``; or ``"kmeans"``, Gaussian means and covariances of clusters.
            max_iterations: M steps at most, of each start.
            tolerance: the relative gain at which to stop.
            pseudocount: the strength of the prior.
            generator: of random numbers.
            states: where some are known, in the form of ``data``: integers, −100 elsewhere. What is maximised is then
                ln p(x, those states).
            inputs: vectors that transitions or emissions are computed from, in the form of ``data``.

        Raises:
            InfeasibleError: observations, or known states, of probability 0.
            TypeError: emissions that have no such start, or no M step.
            ValueError: states out of range; states or inputs of other lengths than the data.
        """
        batch = self._batch("data", data, lengths)
        beside = {
            name: self._beside(name, each, lengths, batch, axes)
            for name, each, axes in (("states", states, 0), ("inputs", inputs, 1))
            if each is not None
        }
        if init not in ("given", "random", "kmeans"):
            raise ValueError(f"init: expected 'given', 'random' or 'kmeans', got {init!r}")
        model: Any = self
        if init == "random":
            model.drawn(batch.x[self._inside(batch)], generator)
        elif init == "kmeans":
            model.clustered(batch.x[self._inside(batch)], generator)
        found = em(
            _Beside(model, beside) if beside else model,
            batch.x,
            batch.lengths,
            max_iterations=max_iterations,
            tolerance=tolerance,
            pseudocount=pseudocount,
            restarts=restarts,
            generator=generator,
        )
        self.training_result = replace(found, model=self)
        return self

    @torch.no_grad()
    def score(
        self,
        data: Sequences,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        inputs: Sequences | None = None,
    ) -> float:
        """ln p(x), summed over all sequences."""
        _, p = self._posterior(data, lengths, inputs)
        return float(p.log_evidence.double().sum())

    def aic(
        self, data: Sequences, lengths: Tensor | Sequence[int] | None = None, *, inputs: Sequences | None = None
    ) -> float:
        """Akaike's information criterion on data, 2 k − 2 ln p(x) of k free parameters; the smaller the better."""
        return akaike(self.score(data, lengths, inputs=inputs), self.num_parameters())

    def bic(
        self, data: Sequences, lengths: Tensor | Sequence[int] | None = None, *, inputs: Sequences | None = None
    ) -> float:
        """Schwarz's information criterion on data, k ln n − 2 ln p(x) of n frames; the smaller the better."""
        frames = float(self._batch("data", data, lengths).lengths.sum())
        return schwarz(self.score(data, lengths, inputs=inputs), self.num_parameters(), frames)

    @torch.no_grad()
    def predict(
        self,
        data: Sequences,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        method: Literal["viterbi", "posterior"] = "viterbi",
        inputs: Sequences | None = None,
    ) -> Tensor | list[Tensor]:
        """A state per frame: those of the best path, or the likeliest one of each frame. −100 over padding."""
        batch, p = self._posterior(data, lengths, inputs)
        if method == "viterbi":
            return batch.back(p.argmax())
        if method != "posterior":
            raise ValueError(f"method: expected 'viterbi' or 'posterior', got {method!r}")
        return batch.back(p.smoothed.argmax(-1).masked_fill(~self._inside(batch), -100))

    @torch.no_grad()
    def predict_proba(
        self,
        data: Sequences,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        inputs: Sequences | None = None,
    ) -> Tensor | list[Tensor]:
        """P(state | x) of each frame, ``[…, K]``; 0 over padding."""
        batch, p = self._posterior(data, lengths, inputs)
        return batch.back(p.smoothed)

    def _posterior(
        self, data: Sequences, lengths: Tensor | Sequence[int] | None, inputs: Sequences | None
    ) -> tuple[Batch, HMM]:
        batch = self._batch("data", data, lengths)
        if inputs is None:
            return batch, self.forward(batch.x, batch.lengths)
        return batch, self.forward(batch.x, batch.lengths, inputs=self._beside("inputs", inputs, lengths, batch, 1))

    def _beside(
        self, name: str, given: Sequences, lengths: Tensor | Sequence[int] | None, batch: Batch, axes: int
    ) -> Tensor:
        """States or inputs as a padded batch like that of the data."""
        found = as_batch(name, given, lengths, axes, self.initial.dtype)
        if found.x.shape[:2] != batch.x.shape[:2] or not torch.equal(found.lengths, batch.lengths.cpu()):
            raise ValueError(
                f"{name}: expected as many and as long sequences as data, {batch.lengths.tolist()[:8]}, got "
                f"{found.lengths.tolist()[:8]}"
            )
        return found.x.to(self.initial.device)

    def _batch(self, name: str, data: Sequences, lengths: Tensor | Sequence[int] | None) -> Batch:
        batch = as_batch(name, data, lengths, getattr(self.emissions, "event_axes", 1), self.initial.dtype)
        return Batch(batch.x.to(self.initial.device), batch.lengths.to(self.initial.device), batch.form)

    @staticmethod
    def _inside(batch: Batch) -> Tensor:
        return torch.arange(batch.x.shape[1], device=batch.x.device) < batch.lengths[:, None]


class _Beside(nn.Module):
    """A model with its states and inputs: a learner of EM, which hands on data and lengths only."""

    def __init__(self, model: Any, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self.tensors = model, tensors

    def e_step(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> tuple[Tensor, Any]:
        return self.model.e_step(data, lengths, **self.tensors)

    def m_step(self, statistics: Any, pseudocount: float) -> Self:
        self.model.m_step(statistics, pseudocount)
        return self

    def log_prior(self, pseudocount: float) -> Tensor:
        return self.model.log_prior(pseudocount)

    def drawn(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        self.model.drawn(data, generator)
        return self

    def num_parameters(self) -> int:
        return self.model.num_parameters()

    def num_observations(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> float:
        return self.model.num_observations(data, lengths)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Beside:
        return _Beside(copy.deepcopy(self.model, memo), self.tensors)  # of which restarts need no copies
