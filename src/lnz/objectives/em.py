"""Expectation–maximisation: maximum likelihood of models with hidden variables, without a step size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lnz.checks import check_generator, check_integer, check_tensor
from lnz.objectives.em_iterations import ROUNDING, Steps, iterations, stepwise
from lnz.objectives.learner import EMResult, Learner, OldNames

Model = TypeVar("Model", bound=Learner)


def em(
    model: Model,
    data: Tensor,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-7,
    pseudocount: float = 0.0,
    restarts: int = 1,
    tied: Sequence[Sequence[int]] | None = None,
    weights: Tensor | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> EMResult[Model]:
    """Maximise Σ ln p(x) over the parameters of a model with hidden variables z.

    Each iteration computes the expected counts under Q^t(z | x) (E step) and then Q^{t+1} = argmax_Q E ln Q(z, x), in
    closed form where the family has one (M step). At Q^t the gradient of what the M step maximises is that of the log
    evidence, so training by gradient on ``log_evidence`` uses the same statistics; EM needs no step size and never
    lowers the objective (Dempster, Laird & Rubin 1977; Neal & Hinton 1998).

    EM finds a local optimum, that of where it starts, and others may be far better: states that start equal stay equal,
    so start from parameters drawn at random, and take the best of several ``restarts``. Close to a saddle point it
    is slow: dozens of iterations may each raise the objective by less than a millionth before it leaves.

    With ``batch_size`` an iteration is a pass over the data in minibatches, each of which moves running averages of the
    expected counts and is followed by an M step (stepwise EM: Cappé & Moulines 2009; Neal & Hinton 1998 for its kin).
    It takes fewer passes over many rows; the objective may fall on the way.

    A ``torch.nn.Module`` is in float64 while it learns, where the device has it, and gets its dtypes back at the end:
    in float32, the steps close to an optimum are smaller than the rounding of data far from 0.

    Args:
        model: :class:`lnz.BayesNet`, :class:`lnz.nn.HiddenMarkovModel`, or any
            :class:`~lnz.objectives.learner.Learner`. Parameters with ``requires_grad=False`` stay.
        data: the observations: rows ``[R, N]`` of a network, −100 for what is missing; ``[*batch, T, …]`` for a hidden
            Markov model.
        lengths: integers ``[*batch]``, of sequences that are padded to T.
        max_iterations: M steps at most.
        tolerance: stop once an iteration raises the objective by no more than this share of its size (of 1, below 1).
        pseudocount: a count added for every possible outcome, as if it had been observed so often: the posterior mode
            under a Dirichlet prior of pseudocount + 1 (what it means for other families, they say).
        restarts: how many starts: the model as it is given, and others drawn at random; the best objective is kept.
        tied: groups of variables of a network whose tables are one and the same.
        weights: ``[R]``, how often each row counts.
        batch_size: rows of a minibatch; ``None``, all of them at once.
        generator: of random starts and of the order of minibatches; ``None`` is torch's default one.
        progress: called after every iteration with the number of the start, of the iteration, and the objective.

    Raises:
        InfeasibleError: observations of probability 0 under the model, naming the batch entries.
        TypeError: a model, or emissions of a model, without a closed-form M step.
        ValueError: settings out of range; a maximum that is not attained (a Gaussian that shrinks to a point).

    Warns:
        ConvergenceWarning: an iteration lowered the objective by more than rounding, which EM never does: the M step
            did not maximise. It stops there, not converged.
    """
    learner: Any = model if isinstance(model, Learner) else _of_old_names(model)
    check_tensor("data", data)
    check_generator(generator)
    if not data.numel():
        raise ValueError(f"data: expected observations to learn from, got none, of shape {list(data.shape)}")
    check_integer("max_iterations", max_iterations)
    check_integer("restarts", restarts)
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    for name, value in (("tolerance", tolerance), ("pseudocount", pseudocount)):
        if not value >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    for name, wanted, method in (
        ("restarts", restarts > 1, "drawn"),
        ("tied", tied is not None, "tied"),
        ("batch_size", batch_size is not None, "combined"),
        ("weights", weights is not None, "combined"),
    ):
        if wanted and not hasattr(learner, method):
            raise TypeError(f"{name}: {type(model).__name__} has no {method}(), which this needs")
    settings = {} if weights is None else {"weights": weights}
    count = getattr(learner, "num_parameters", None)  # before any of them becomes 0
    parameters = None if count is None else count(*([tied] if tied is not None else []))
    module = isinstance(model, nn.Module)
    narrow = None if module or not hasattr(learner, "to") else learner.dtype
    learner = learner if narrow is None else learner.to(torch.float64)
    with torch.no_grad(), _in_double(model, data) as (x, least):
        runs, rounding = [], least if narrow is None else ROUNDING
        for start in range(restarts):
            # a module is changed in place: the given one by the first start, copies by the others
            first = copy.deepcopy(learner) if module and start else learner
            first = first.drawn(x, generator) if start else first
            steps = Steps(first, lengths, pseudocount, tied, settings)
            if batch_size is None:
                passes = iterations(steps, x, max_iterations, tolerance, rounding)
            else:
                passes = stepwise(steps, x, batch_size, max_iterations, tolerance, generator)
            log_evidence: list[float] = []
            objective: list[float] = []
            for last in passes:
                log_evidence.append(last.log_evidence)
                objective.append(last.objective)
                if progress is not None:
                    progress(start, len(objective) - 1, last.objective)
            runs.append(EMResult(last.model, tuple(log_evidence), tuple(objective), last.converged))
        best = max(runs, key=lambda run: run.objective[-1])
        if module and best is not runs[0]:
            model.load_state_dict(best.model.state_dict())  # pyright: ignore[reportAttributeAccessIssue]
        found: Any = model if module else best.model
    found = found.model if isinstance(found, OldNames) else found if narrow is None else found.to(narrow)
    seen = getattr(found, "num_observations", None)
    return EMResult(
        found,
        best.log_evidence,
        best.objective,
        best.converged,
        tuple(run.log_evidence[-1] for run in runs),
        parameters,
        None if seen is None else seen(data, lengths, **settings),
    )


def _of_old_names(model: object) -> OldNames:
    if all(hasattr(model, name) for name in ("expected_statistics", "maximised", "log_prior")):
        return OldNames(model)
    raise TypeError(
        f"model: expected one with an E step and an M step, such as lnz.BayesNet or lnz.nn.HiddenMarkovModel, got "
        f"{type(model).__name__}; a distribution holds the scores of its data, not the parameters behind them"
    )


@contextmanager
def _in_double(model: object, data: Tensor) -> Iterator[tuple[Tensor, float]]:
    """The data in float64, and the model too for as long; and how far rounding may lower an objective of size 1."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    narrow = [each for each in tensors if each.is_floating_point() and each.dtype != torch.float64]
    if not isinstance(model, nn.Module) or any(each.device.type == "mps" for each in (data, *tensors)):
        yield data, ROUNDING if data.dtype == torch.float64 else 1e-4
        return
    dtypes = [each.dtype for each in narrow]
    try:
        for each in narrow:
            each.data = each.data.double()
        yield data.double() if data.is_floating_point() else data, ROUNDING
    finally:
        for each, dtype in zip(narrow, dtypes, strict=True):
            each.data = each.data.to(dtype)
