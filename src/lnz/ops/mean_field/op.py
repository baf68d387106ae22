"""Mean field as a functional of q; its derivative is the probabilities of joint labels under q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lnz.ops.belief.decode import decoded
from lnz.ops.belief.gradient import gathered
from lnz.ops.belief.schedule import Run, iterated
from lnz.ops.envelope import Functional, State
from lnz.ops.mean_field.kernel import GridMeanField, serves
from lnz.ops.mean_field.reference import Expectation, MeanField, blocks, product
from lnz.scores import Model

Schedule = Literal["parallel", "coordinate"]

RESCUE = Run(max_iterations=100, tolerance=1e-6, damping=0.5, schedule="flooding")
"""How max-product is run for a start without violations."""


@dataclass(frozen=True)
class MeanFieldFunctional(Functional):
    """The state is q ``[*batch, N, L]``, iterations, residual and whether the start was decoded, each ``[*batch]``."""

    max_iterations: int
    tolerance: float
    damping: float
    schedule: Schedule
    restarts: int
    seed: int

    def state(self, model: Model) -> State:
        mean_field = _solver(model)
        generator = torch.Generator().manual_seed(self.seed)
        best = self._iterated(mean_field, mean_field.start(), self.schedule)
        value = mean_field.bound(best[0])
        for _ in range(self.restarts - 1):
            noise = torch.rand(best[0].shape, generator=generator, dtype=torch.float64).to(best[0])
            trial = self._iterated(mean_field, mean_field.start(-2 * (-noise.log()).log()), self.schedule)
            best, value = _better(best, value, trial, mean_field.bound(trial[0]))
        redone = torch.isneginf(value)
        if redone.any():
            messages = iterated(model, RESCUE, maximise=True).messages
            trial = self._iterated(mean_field, _indicator(decoded(model, messages), best[0]), "coordinate")
            best, _ = _better(best, value, trial, mean_field.bound(trial[0]))
        return *best, redone

    def _iterated(self, mean_field: MeanField | GridMeanField, q: Tensor, schedule: Schedule) -> State:
        """q, iterations and residual from a start."""
        if isinstance(mean_field, GridMeanField):
            return mean_field.iterated(q, self.max_iterations, self.tolerance, self.damping, schedule == "parallel")
        batch = mean_field.finite.batch
        iterations = torch.zeros(batch, dtype=torch.int64, device=q.device)
        residual = torch.full(batch, torch.inf, dtype=q.dtype, device=q.device)
        for _ in range(self.max_iterations):
            active = residual > self.tolerance if self.tolerance else torch.ones_like(residual, dtype=torch.bool)
            if not active.any():
                break
            new = self.swept(mean_field, q, schedule)
            residual = torch.where(active, (new - q).abs().flatten(-2).amax(-1) if q[..., 0].numel() else 0.0, residual)
            q = torch.where(active[..., None, None], new, q)
            iterations += active
        return q, iterations, residual

    def swept(self, mean_field: MeanField, q: Tensor, schedule: Schedule) -> Tensor:
        """q after one iteration: every node once."""
        for block in blocks(mean_field, schedule):
            q = mean_field.updated(q, block, self.damping)
        return q

    def value(self, model: Model, state: State) -> Tensor:
        return _solver(model).bound(state[0])

    def gradient(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        return gathered(Expectation(model), state[0], grad, product)

    def replayed(self, model: Model, state: State) -> State:
        """The same q, with the tape of as many iterations as it took, made onward from there.

        At a fixed point they change nothing, and their derivative is the truncated series of the implicit one.
        """
        mean_field = MeanField(model)
        q = state[0]
        for iteration in range(int(state[1].max()) if state[1].numel() else 0):
            new = self.swept(mean_field, q, self.schedule)
            q = torch.where((iteration < state[1])[..., None, None], new, q)
        return state[0] + (q - q.detach()), *state[1:]


def hardened(model: Model, q: Tensor) -> Tensor:
    """The mode of q, ``int64 [*batch, N]``, improved by coordinate ascent until no single label can be bettered."""
    mean_field = MeanField(model)
    labels, q = q.argmax(-1), _indicator(q.argmax(-1), q)
    score = model.score(labels)
    while True:
        for block in blocks(mean_field, "coordinate"):
            q = mean_field.updated(q, block, harden=True)
        improved = q.argmax(-1)
        new = model.score(improved)
        if not (new > score).any():
            return labels
        labels = torch.where((new > score).unsqueeze(-1), improved, labels)
        score = torch.maximum(score, new)


def _solver(model: Model) -> MeanField | GridMeanField:
    """What makes updates and the bound without gradients."""
    return (GridMeanField if serves(model) else MeanField)(model)


def _indicator(labels: Tensor, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, like.shape[-1]).to(like.dtype)


def _better(best: State, value: Tensor, trial: State, other: Tensor) -> tuple[State, Tensor]:
    """Per batch entry, the state of the larger value."""
    wins = other > value
    kept = tuple(
        torch.where(wins[(...,) + (None,) * (a.dim() - wins.dim())], b, a) for a, b in zip(best, trial, strict=True)
    )
    return kept, torch.maximum(value, other)
