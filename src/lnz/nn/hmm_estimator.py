"""Hidden Markov models as estimators: sequences in any form in, labels and numbers out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from lnz.distributions import HMM
from lnz.nn.sequences import Batch, Sequences, as_batch
from lnz.objectives import EMResult, em

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
    def forward(self, x: Tensor, lengths: Tensor | Sequence[int] | None = None) -> HMM:
        """The posterior of a padded batch."""

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
    ) -> Self:
        """Itself, with the parameters that :func:`lnz.objectives.em` finds; see there, and :attr:`training_result`.

        Args:
            data: sequences in any form.
            lengths: see there.
            restarts: how many starts, the first one by ``init``, the others drawn at random; the best is kept.
            init: the parameters as they are; ``"random"``; or ``"kmeans"``, Gaussian means and covariances of clusters.
            max_iterations: M steps at most, of each start.
            tolerance: the relative gain at which to stop.
            pseudocount: the strength of the prior.
            generator: of random numbers.

        Raises:
            TypeError: emissions that have no such start, or no M step.
        """
        batch = self._batch("data", data, lengths)
        if init not in ("given", "random", "kmeans"):
            raise ValueError(f"init: expected 'given', 'random' or 'kmeans', got {init!r}")
        model: Any = self
        if init == "random":
            model.drawn(batch.x[self._inside(batch)], generator)
        elif init == "kmeans":
            model.clustered(batch.x[self._inside(batch)], generator)
        self.training_result = em(
            model,
            batch.x,
            batch.lengths,
            max_iterations=max_iterations,
            tolerance=tolerance,
            pseudocount=pseudocount,
            restarts=restarts,
            generator=generator,
        )
        return self

    @torch.no_grad()
    def score(self, data: Sequences, lengths: Tensor | Sequence[int] | None = None) -> float:
        """ln p(x), summed over all sequences."""
        batch = self._batch("data", data, lengths)
        return float(self.forward(batch.x, batch.lengths).log_evidence.double().sum())

    @torch.no_grad()
    def predict(
        self,
        data: Sequences,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        method: Literal["viterbi", "posterior"] = "viterbi",
    ) -> Tensor | list[Tensor]:
        """A state per frame: those of the best path, or the likeliest one of each frame. −100 over padding."""
        batch = self._batch("data", data, lengths)
        p = self.forward(batch.x, batch.lengths)
        if method == "viterbi":
            return batch.back(p.argmax())
        if method != "posterior":
            raise ValueError(f"method: expected 'viterbi' or 'posterior', got {method!r}")
        return batch.back(p.smoothed.argmax(-1).masked_fill(~self._inside(batch), -100))

    @torch.no_grad()
    def predict_proba(self, data: Sequences, lengths: Tensor | Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """P(state | x) of each frame, ``[…, K]``; 0 over padding."""
        batch = self._batch("data", data, lengths)
        return batch.back(self.forward(batch.x, batch.lengths).smoothed)

    def _batch(self, name: str, data: Sequences, lengths: Tensor | Sequence[int] | None) -> Batch:
        batch = as_batch(name, data, lengths, getattr(self.emissions, "event_axes", 1), self.initial.dtype)
        return Batch(batch.x.to(self.initial.device), batch.lengths.to(self.initial.device), batch.form)

    @staticmethod
    def _inside(batch: Batch) -> Tensor:
        return torch.arange(batch.x.shape[1], device=batch.x.device) < batch.lengths[:, None]
