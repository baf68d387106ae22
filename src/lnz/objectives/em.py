"""Expectation–maximisation: maximum likelihood of models with hidden variables, without a step size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from lnz.checks import check_integer, check_tensor
from lnz.errors import ConvergenceWarning, warn


@runtime_checkable
class Learner(Protocol):
    """What :func:`em` asks of a model: its E step and its M step."""

    def expected_statistics(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> tuple[Tensor, Any]:
        """The log evidence of ``data``, summed over its rows, and the expected counts given it (E step)."""
        ...

    def maximised(self, statistics: Any, pseudocount: float) -> Self:
        """The model with the parameters that maximise the expected log-joint, given those counts (M step)."""
        ...

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""
        ...


Model = TypeVar("Model", bound=Learner)


@dataclass(frozen=True)
class EMResult(Generic[Model]):
    """What :func:`em` returns.

    Attributes:
        model: with its last parameters. A module is changed in place, and is this same object.
        log_evidence: Σ ln p(x) before the first iteration and after each one.
        objective: the same plus the log prior of the parameters: what EM maximises, and never lowers.
        converged: the last iteration raised the objective by no more than the tolerance (and did not lower it by more
            than rounding). That is a stationary point to this accuracy, a local optimum or a saddle; it says nothing of
            other starts.
    """

    model: Model
    log_evidence: tuple[float, ...]
    objective: tuple[float, ...]
    converged: bool

    @property
    def iterations(self) -> int:
        """How many M steps were made."""
        return len(self.objective) - 1


def em(
    model: Model,
    data: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-7,
    pseudocount: float = 0.0,
) -> EMResult[Model]:
    """Maximise Σ ln p(x) over the parameters of a model with hidden variables z.

    Each iteration computes the expected counts under Q^t(z | x) (E step) and then Q^{t+1} = argmax_Q E ln Q(z, x), in
    closed form where the family has one (M step). At Q^t the gradient of what the M step maximises is that of the log
    evidence, so training by gradient on ``log_evidence`` uses the same statistics; EM needs no step size and never
    lowers the objective (Dempster, Laird & Rubin 1977; Neal & Hinton 1998).

    EM finds a local optimum, that of where it starts, and others may be far better: states that start equal stay equal,
    so start from parameters drawn at random, and take the best evidence of several starts. Close to a saddle point it
    is slow: dozens of iterations may each raise the objective by less than a millionth before it leaves.

    A ``torch.nn.Module`` is in float64 while it learns, where the device has it, and gets its dtypes back at the end:
    in float32, the steps close to an optimum are smaller than the rounding of data far from 0.

    Args:
        model: :class:`lnz.nn.HiddenMarkovModel`, or any :class:`Learner`. Parameters with ``requires_grad=False`` stay.
        data: the observations; ``[*batch, T, …]`` for a hidden Markov model.
        lengths: integers ``[*batch]``, of sequences that are padded to T.
        max_iterations: M steps at most.
        tolerance: stop once an iteration raises the objective by no more than this share of its size (of 1, below 1).
        pseudocount: a count added for every possible outcome, as if it had been observed so often: the posterior mode
            under a Dirichlet prior of pseudocount + 1 (what it means for other families, they say).

    Raises:
        InfeasibleError: observations of probability 0 under the model, naming the batch entries.
        TypeError: a model, or emissions of a model, without a closed-form M step.
        ValueError: settings out of range; a maximum that is not attained (a Gaussian that shrinks to a point).

    Warns:
        ConvergenceWarning: an iteration lowered the objective by more than rounding, which EM never does: the M step
            did not maximise. It stops there, not converged.
    """
    if not isinstance(model, Learner):
        raise TypeError(
            f"model: expected one with an E step and an M step, such as lnz.nn.HiddenMarkovModel, got "
            f"{type(model).__name__}; a distribution holds the scores of its data, not the parameters behind them"
        )
    check_tensor("data", data)
    if not data.numel():
        raise ValueError(f"data: expected observations to learn from, got none, of shape {list(data.shape)}")
    check_integer("max_iterations", max_iterations)
    for name, value in (("tolerance", tolerance), ("pseudocount", pseudocount)):
        if not value >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    log_evidence: list[float] = []
    objective: list[float] = []
    converged = False
    with torch.no_grad(), _in_double(model, data) as (x, rounding):
        while True:
            evidence, statistics = model.expected_statistics(x, lengths)
            log_evidence.append(float(evidence))
            objective.append(float(evidence) + float(model.log_prior(pseudocount)))
            if len(objective) > 1:
                raised, size = objective[-1] - objective[-2], max(1.0, abs(objective[-1]))
                converged = -max(tolerance, rounding) * size <= raised <= tolerance * size
                if raised < 0 and not converged:
                    warn(
                        f"em: iteration {len(objective) - 1} lowered the objective from {objective[-2]:.6g} to "
                        f"{objective[-1]:.6g}, by more than rounding: an M step that does not maximise",
                        ConvergenceWarning,
                    )
                    break
            if converged or len(objective) > max_iterations:
                break
            model = model.maximised(statistics, pseudocount)
    return EMResult(model, tuple(log_evidence), tuple(objective), converged)


@contextmanager
def _in_double(model: Learner, data: Tensor) -> Iterator[tuple[Tensor, float]]:
    """The data in float64, and the model too for as long; and how far rounding may lower an objective of size 1."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    narrow = [each for each in tensors if each.is_floating_point() and each.dtype != torch.float64]
    if not isinstance(model, nn.Module) or any(each.device.type == "mps" for each in (data, *tensors)):
        yield data, 1e-9 if data.dtype == torch.float64 else 1e-4
        return
    dtypes = [each.dtype for each in narrow]
    try:
        for each in narrow:
            each.data = each.data.double()
        yield data.double() if data.is_floating_point() else data, 1e-9
    finally:
        for each, dtype in zip(narrow, dtypes, strict=True):
            each.data = each.data.to(dtype)
