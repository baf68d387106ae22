"""Mean field as a functional of q; its derivative is the probabilities of joint labels under q."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lnz.ops.belief.decode import decoded
from lnz.ops.belief.gradient import gathered
from lnz.ops.belief.schedule import Run, iterated
from lnz.ops.dispatch import Kernels
from lnz.ops.envelope import Functional, State
from lnz.ops.mean_field.reference import Expectation, MeanField, blocks, product
from lnz.scores import Model

KERNELS = Kernels("mean_field")
KERNELS.register("cpu", "lnz.ops.mean_field.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))

Schedule = Literal["parallel", "coordinate"]

RESCUE = Run(max_iterations=100, tolerance=1e-6, damping=0.5, schedule="flooding")
"""How max-product is run for a start without violations."""


class Solver(Protocol):
    """As :class:`.reference.MeanField`; a backend's may serve some models only."""

    def start(self, noise: Tensor | None = None) -> Tensor: ...

    def iterated(
        self, q: Tensor, limit: int, tolerance: float, damping: float, parallel: bool
    ) -> tuple[Tensor, ...]: ...

    def bound(self, q: Tensor) -> Tensor: ...


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
        mean_field = solver(model)
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

    def _iterated(self, mean_field: Solver, q: Tensor, schedule: Schedule) -> State:
        """q, iterations and residual from a start."""
        return mean_field.iterated(q, self.max_iterations, self.tolerance, self.damping, schedule == "parallel")

    def value(self, model: Model, state: State) -> Tensor:
        return solver(model).bound(state[0])

    def gradient(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        return gathered(Expectation(model), state[0], grad, product)

    def replayed(self, model: Model, state: State) -> State:
        """The same q, with the tape of as many iterations as it took, made onward from there.

        At a fixed point they change nothing, and their derivative is the truncated series of the implicit one.
        """
        mean_field = MeanField(model)
        q = state[0]
        for iteration in range(int(state[1].max()) if state[1].numel() else 0):
            new = mean_field.swept(q, self.schedule == "parallel", self.damping)
            q = torch.where((iteration < state[1])[..., None, None], new, q)
        return state[0] + (q - q.detach()), *state[1:]


def hardened(model: Model, q: Tensor) -> Tensor:
    """The mode of q, ``int64 [*batch, N]``, improved by coordinate ascent until no single label can be bettered."""
    mean_field = MeanField(model)
    labels, q = q.argmax(-1), _indicator(q.argmax(-1), q)
    score = model.score(labels)
    while True:
        for block in blocks(mean_field, False):
            q = mean_field.updated(q, block, harden=True)
        improved = q.argmax(-1)
        new = model.score(improved)
        if not (new > score).any():
            return labels
        labels = torch.where((new > score).unsqueeze(-1), improved, labels)
        score = torch.maximum(score, new)


def solver(model: Model) -> Solver:
    """What makes updates and the bound without gradients."""
    find = KERNELS.find("solver", *model.tensors)
    found = find(model) if find else None
    return MeanField(model) if found is None else found


def _indicator(labels: Tensor, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, like.shape[-1]).to(like.dtype)


def _better(best: State, value: Tensor, trial: State, other: Tensor) -> tuple[State, Tensor]:
    """Per batch entry, the state of the larger value."""
    wins = other > value
    kept = tuple(
        torch.where(wins[(...,) + (None,) * (a.dim() - wins.dim())], b, a) for a, b in zip(best, trial, strict=True)
    )
    return kept, torch.maximum(value, other)
