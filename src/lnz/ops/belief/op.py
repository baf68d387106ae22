"""Belief propagation as a functional of messages: the Bethe ln Z, whose derivative is the beliefs at these messages.

Where somebody traces, ``lnz::belief_messages`` runs to the stopping rule, ``lnz::belief_partition`` is ln Z at given
messages, and ``lnz::belief_gradient`` its derivative, without a tape over the iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.checks import common_dtype, working_dtype
from lnz.errors import ConvergenceWarning, warn
from lnz.graphs import graph_of
from lnz.ops.belief.gradient import pulled_back
from lnz.ops.belief.reference import Passing, bethe, factor_beliefs, log_sum, node_beliefs
from lnz.ops.belief.schedule import Outcome, Run, iterated, unrolled
from lnz.ops.dispatch import is_eager
from lnz.ops.envelope import Answering, State
from lnz.ops.variational import advice, flatten, unflatten, warn_unless_converged
from lnz.scores import Model


@dataclass(frozen=True)
class Bethe(Answering):
    """The state is messages ``[*batch, M, L]``, and ``[*batch]`` iterations, residual and whether they converged.

    With ``maximise``, it is that of max-product, which has no value.
    """

    run: Run
    maximise: bool = False

    def state(self, model: Model) -> State:
        """Warns, once, where messages have not converged."""
        if is_eager(*model.tensors):
            return settle(model, self.run, self.maximise)
        run = self.run
        settings = run.max_iterations, run.tolerance, run.damping, run.schedule, self.maximise
        return _messages(model.tensors, model.observed, *flatten(model), *settings)

    def value(self, model: Model, state: State) -> Tensor:
        if is_eager(*model.tensors):
            return bethe(Passing(model, log_sum), state[0])
        return _partition(model.tensors, model.observed, state[0], *flatten(model))

    def gradient(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        return pulled_back(model, state[0], grad)

    def pulled(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        if is_eager(*model.tensors):
            return pulled_back(model, state[0], grad)
        return _gradient(model.tensors, model.observed, state[0], grad, *flatten(model))

    def replayed(self, model: Model, state: State) -> State:
        return unrolled(model, self.run, Outcome(*state[:4])), *state[1:]

    def answer(self, model: Model, state: State, which: int | None) -> Tensor:
        """Beliefs of the factors of a group ``[*batch, F, L1, …, Lk]``, or (``None``) of nodes ``[*batch, N, L]``."""
        return self.plain(model, state, which)

    def plain(self, model: Model, state: State, which: int | None) -> Tensor:
        passing = Passing(model, log_sum)
        found = node_beliefs(passing, state[0]) if which is None else factor_beliefs(passing, state[0], which)
        return found.to(model.dtype)

    def ended(self, model: Model, state: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Messages, iterations, residual and whether they converged."""
        messages, iterations, residual, converged, *_ = state
        return messages, iterations, residual, converged


def settle(model: Model, run: Run, maximise: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The state of :class:`Bethe`."""
    outcome = iterated(model, run, maximise=maximise)
    ended = outcome.iterations, outcome.residual, outcome.converged
    warn_unless_at_rest(model, run, *ended, maximise=maximise)
    return outcome.messages, *ended


@torch.library.custom_op("lnz::belief_messages", mutates_args=())
def _messages(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    graph: str,
    weighted: Sequence[bool],
    batch: Sequence[int],
    max_iterations: int,
    tolerance: float,
    damping: float | None,
    schedule: str,
    maximise: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run = Run(max_iterations, tolerance, damping, schedule)  # type: ignore[arg-type]
    return settle(unflatten(tensors, observed, graph, weighted, batch), run, maximise)


@_messages.register_fake
def _(tensors: Sequence[Tensor], observed: Any, graph: str, weighted: Any, batch: Sequence[int], *_: Any) -> Any:
    wiring = graph_of(graph)
    dtype = _accumulating(tensors)
    slots = sum(scope.numel() for scope in wiring.scopes)
    messages = tensors[0].new_empty((*batch, slots, wiring.max_cardinality), dtype=dtype)
    new = tensors[0].new_empty
    return messages, new(batch, dtype=torch.int64), new(batch, dtype=dtype), new(batch, dtype=torch.bool)


def _accumulating(tensors: Sequence[Tensor]) -> torch.dtype:
    return working_dtype(common_dtype(*tensors))


@torch.library.custom_op("lnz::belief_partition", mutates_args=())
def _partition(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    messages: Tensor,
    graph: str,
    weighted: Sequence[bool],
    batch: Sequence[int],
) -> Tensor:
    model = unflatten(tensors, observed, graph, weighted, batch)
    return bethe(Passing(model, log_sum), messages)


@_partition.register_fake
def _(tensors: Sequence[Tensor], observed: Any, messages: Tensor, graph: str, weighted: Any, batch: Any) -> Tensor:
    return tensors[0].new_empty(batch, dtype=torch.float64)


@torch.library.custom_op("lnz::belief_gradient", mutates_args=())
def _gradient(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    messages: Tensor,
    grad: Tensor,
    graph: str,
    weighted: Sequence[bool],
    batch: Sequence[int],
) -> list[Tensor]:
    return pulled_back(unflatten(tensors, observed, graph, weighted, batch), messages, grad)


@_gradient.register_fake
def _(tensors: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


def warn_unless_at_rest(
    model: Model, run: Run, iterations: Tensor, residual: Tensor, converged: Tensor, *, maximise: bool
) -> None:
    """Warn of batch entries that have not converged."""
    what = f"BeliefPropagation, {'max' if maximise else 'sum'}-product"
    others = [name for name in ("sequential", "residual") if name != run.schedule]
    advised = advice(run.damping_for(model), *(f"schedule={name!r}" for name in others[:1]))
    warn_unless_converged(converged, iterations, residual, run.tolerance, what, advised)


def outside(model: Model, value: Tensor) -> Tensor:
    """Where ``value [*batch]`` is below ln Z of every model with a possible labelling and these scores, or above."""
    with torch.no_grad():
        low, high = Passing(model, log_sum).limits
        slack = 1e-3 * (1 + low.abs().maximum(high.abs()))
        return ((value < low - slack) | (value > high + slack)) & ~torch.isneginf(value)


def warn_if_outside(model: Model, value: Tensor, shift: Tensor) -> None:
    """Warn, by name and number, of an ln Z that is :func:`outside` of every bound; ``shift`` is on top of both."""
    beyond = outside(model, value)
    if beyond.any():
        low, high = ((limit + shift)[beyond][0].item() for limit in Passing(model, log_sum).limits)
        warn(
            f"BeliefPropagation: ln Z = {(value + shift)[beyond][0].item():.6g} of {int(beyond.sum())} of "
            f"{beyond.numel()} models is no estimate: whatever its interactions, ln Z lies in [{low:.6g}, {high:.6g}]",
            ConvergenceWarning,
        )
