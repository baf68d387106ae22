"""Expectation–maximisation: maximum likelihood of models with hidden variables, without a step size."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lnz.checks import check_generator, check_integer, check_tensor, check_weights
from lnz.inference.base import Method
from lnz.inference.sampling.sampler import Sampler
from lnz.objectives import processes
from lnz.objectives.em_iterations import ROUNDING, Settings, iterations, stepwise
from lnz.objectives.em_state import EMState, Start, parameters, with_parameters
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
    method: Method | None = None,
    state: EMState | None = None,
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

    Where ``torch.distributed`` is initialised (``torchrun``), each process passes rows of its own, and all learn the
    same model, from the start of the first one: evidence and statistics are summed over processes in float64. Rows of a
    network are never exchanged; frames of a hidden Markov model and observations of a mixture are, for the M step.

    Rows of a network that are equal, and symbols of a mixture, are worked on once, with their number as a weight: the
    same likelihood, of as many observations, at the cost of the different ones; not so under a sampler, nor in
    minibatches.

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
            Those of a network run at once, as one batch of tables; those of other models in turn.
        tied: groups of variables of a network whose tables are one and the same; see :meth:`lnz.BayesNet.tie`.
        weights: ``[R]``, how often each row counts.
        batch_size: rows of a minibatch; ``None``, all of them at once.
        generator: of random starts and of the order of minibatches; ``None`` is torch's default one.
        progress: called after every iteration with the number of the start, of the iteration, and the objective.
        method: of inference, for the E step of a network; ``None`` is the network's own. Where it is approximate, so is
            the evidence, and it may fall: belief propagation has Bethe's, mean field a lower bound, a sampler none
            (NaN, and all iterations are made).
        state: kept up to date in every iteration; a saved one is resumed exactly.

    Raises:
        InfeasibleError: observations of probability 0 under the model, naming the batch entries.
        TypeError: a model, or emissions of a model, without an M step, or without what a setting needs.
        ValueError: settings out of range; a maximum that is not attained (a Gaussian that shrinks to a point).

    Warns:
        ConvergenceWarning: an iteration lowered the objective by more than rounding, which EM never does: the M step
            did not maximise. It stops there, not converged.
    """
    learner: Any = model if isinstance(model, Learner) else _of_old_names(model)
    _check(learner, model, data, weights, generator)
    for name, value in (("max_iterations", max_iterations), ("restarts", restarts), ("batch_size", batch_size)):
        if value is not None:
            check_integer(name, value)
    for name, value in (("tolerance", tolerance), ("pseudocount", pseudocount)):
        if not value >= 0:
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    for name, wanted, needed in (
        ("restarts", restarts > 1, "drawn"),
        ("tied", tied is not None, "tie"),
        ("batch_size", batch_size is not None, "combined"),
        ("method", method is not None, "with_inference"),
        ("state", state is not None, "state_dict"),
    ):
        if wanted and not hasattr(learner, needed):
            raise TypeError(f"{name}: {type(model).__name__} has no {needed}(), which this needs")
    if batch_size is not None and processes.several():
        raise ValueError("batch_size: expected None where several processes learn together")
    learner = learner if tied is None else learner.tie(tied)
    own = getattr(learner, "inference", None)
    learner = learner if method is None else learner.with_inference(method)
    used = getattr(learner, "inference", None)
    if restarts > 1 and isinstance(used, Sampler):
        raise ValueError(f"restarts: expected 1 with {type(used).__name__}, whose starts have no evidence to compare")
    count = getattr(learner, "num_parameters", None)  # before any of them becomes 0
    free = None if count is None else count()
    module = isinstance(model, nn.Module)
    narrow = None if module or not hasattr(learner, "to") else learner.dtype
    learner = learner if narrow is None else learner.to(torch.float64)
    state = EMState() if state is None else state
    with torch.no_grad(), _in_double(model, data) as (x, least):
        state.resume(_starts(learner, x, restarts, generator), generator)
        settings = Settings(
            x,
            lengths,
            weights,
            pseudocount,
            max_iterations,
            tolerance,
            None if used is not None and not used.exact else least if narrow is None else ROUNDING,
            _merged(learner, x, lengths, weights),
        )
        stack = restarts > 1 and batch_size is None and hasattr(learner, "stacked")
        for numbers in [range(restarts)] if stack else [[number] for number in range(restarts)]:
            if batch_size is None:
                passes = iterations(state, numbers, settings, stack=stack)
            else:
                passes = stepwise(state, numbers[0], settings, batch_size, generator)
            for number in itertools.chain.from_iterable(passes):
                if progress is not None:
                    objective = state.starts[number].objective
                    progress(number, len(objective) - 1, objective[-1])
        best = max(state.starts, key=lambda start: start.objective[-1])
        if module and best.learner is not learner:
            model.load_state_dict(best.learner.state_dict())  # pyright: ignore[reportAttributeAccessIssue]
        found: Any = model if module else best.learner
    found = found.model if isinstance(found, OldNames) else found if narrow is None else found.to(narrow)
    found = found if method is None else found.with_inference(own)
    return _result(found, best, state, free, _observed(found, data, lengths, weights))


def _check(
    learner: Any, model: object, data: Tensor, weights: Tensor | None, generator: torch.Generator | None
) -> None:
    check_tensor("data", data)
    check_generator(generator)
    if not data.numel():
        raise ValueError(f"data: expected observations to learn from, got none, of shape {list(data.shape)}")
    if weights is None:
        return
    if "weights" not in signature(learner.e_step).parameters:
        raise TypeError(f"weights: {type(model).__name__} has no E step that takes them")
    check_weights("weights", weights, len(data))


def _merged(learner: Any, data: Tensor, lengths: object, weights: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """The different rows and their weights, where rows are discrete; under a sampler, each row has draws of its own."""
    sampled = isinstance(getattr(learner, "inference", None), Sampler)
    if sampled or lengths is not None or not hasattr(learner, "merged"):
        return None

    def merged() -> tuple[Tensor, Tensor] | None:
        return learner.merged(data, weights)

    return processes.attempted(merged) if processes.several() else merged()


def _starts(learner: Any, data: Tensor, restarts: int, generator: torch.Generator | None) -> list[Any]:
    """The model as it is given, and others drawn at random; of several processes, those of the first one."""

    def copied() -> Any:
        return copy.deepcopy(learner) if isinstance(learner, nn.Module) else learner

    found = [learner, *(copied().drawn(data, generator) for _ in range(restarts - 1))]
    if processes.several():
        for number, each in enumerate(found):
            tensors = {name: value.detach().clone() for name, value in parameters(each).items()}
            processes.same(tensors.values())
            found[number] = with_parameters(each, tensors)
    return found


def _observed(model: Any, data: Tensor, lengths: Tensor | Sequence[int] | None, weights: Tensor | None) -> float | None:
    count = getattr(model, "num_observations", None)
    if count is None:
        return None
    number = float(count(data, lengths, **({} if weights is None else {"weights": weights})))
    return float(processes.summed(torch.tensor(number).double())[0]) if processes.several() else number


def _result(model: Any, best: Start, state: EMState, free: int | None, observed: float | None) -> EMResult[Any]:
    return EMResult(
        model,
        tuple(best.log_evidence),
        tuple(best.objective),
        best.converged,
        tuple(start.log_evidence[-1] for start in state.starts),
        free,
        observed,
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
