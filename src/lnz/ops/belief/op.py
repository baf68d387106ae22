"""Registration and autograd of belief propagation.

``lnz::belief_messages`` runs to the stopping rule, ``lnz::belief_partition`` is the Bethe ln Z at given messages, and
``lnz::belief_gradient`` its derivative, the beliefs, without a tape over the iterations; the second derivative is
taken through the iterations, unrolled in ``reference.py``'s terms. ``vmap`` runs the models of its axis one by one:
the batch shape of a model is the fast way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.checks import common_dtype, working_dtype
from lnz.errors import ConvergenceWarning, warn
from lnz.graphs import graph_of
from lnz.ops.belief.gradient import pulled_back
from lnz.ops.belief.reference import Passing, bethe, log_sum
from lnz.ops.belief.schedule import Outcome, Run, iterated, unrolled
from lnz.ops.belief.spec import (
    Spec,
    advice,
    hold_graph,
    one_by_one,
    put_together,
    taken_apart,
    warn_unless_converged,
)
from lnz.scores import Model


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
    model = put_together(tensors, observed, graph, weighted, batch)
    run = Run(max_iterations, tolerance, damping, schedule)  # type: ignore[arg-type]
    outcome = iterated(model, run, maximise=maximise)
    state = outcome.iterations, outcome.residual, outcome.converged
    warn_unless_at_rest(model, run, *state, maximise=maximise)
    return outcome.messages, *state


def warn_unless_at_rest(
    model: Model, run: Run, iterations: Tensor, residual: Tensor, converged: Tensor, *, maximise: bool
) -> None:
    """Warn of batch entries that have not converged."""
    what = f"BeliefPropagation, {'max' if maximise else 'sum'}-product"
    others = [name for name in ("sequential", "residual") if name != run.schedule]
    advised = advice(run.damping_for(model), *(f"schedule={name!r}" for name in others[:1]))
    warn_unless_converged(converged, iterations, residual, run.tolerance, what, advised)


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
    model = put_together(tensors, observed, graph, weighted, batch)
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
    return pulled_back(put_together(tensors, observed, graph, weighted, batch), messages, grad)


@_gradient.register_fake
def _(tensors: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


def outside(model: Model, value: Tensor) -> Tensor:
    """Where ``value [*batch]`` is below ln Z of every model with a possible labelling and these scores, or above."""
    with torch.no_grad():
        low, high = Passing(model, log_sum).limits
        slack = 1e-3 * (1 + low.abs().maximum(high.abs()))
        return ((value < low - slack) | (value > high + slack)) & ~torch.isneginf(value)


def warn_if_outside(model: Model, value: Tensor) -> None:
    """Warn, by name and number, of an ln Z that is :func:`outside` of every bound."""
    beyond = outside(model, value)
    if beyond.any():
        low, high = (limit[beyond][0].item() for limit in Passing(model, log_sum).limits)
        warn(
            f"BeliefPropagation: ln Z = {value[beyond][0].item():.6g} of {int(beyond.sum())} of {beyond.numel()} "
            f"models is no estimate: whatever its interactions, ln Z lies in [{low:.6g}, {high:.6g}]",
            ConvergenceWarning,
        )


class _Messages(torch.autograd.Function):
    """Messages, iterations, residual and whether they converged, held constant in every derivative."""

    @staticmethod
    def forward(spec: Spec, run: tuple[Any, ...], observed: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _messages(tensors, observed, *spec, *run)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.inputs

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_Messages, info.batch_size, in_dims, inputs)


class _LogPartition(torch.autograd.Function):
    """ln Z at given messages."""

    @staticmethod
    def forward(
        spec: Spec, run: Any, observed: Tensor | None, messages: Tensor, iterations: Tensor, *tensors: Tensor
    ) -> Tensor:
        return _partition(tensors, observed, messages, *spec)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.spec, ctx.run, *tensors = inputs
        hold_graph(ctx)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        observed, messages, iterations, *tensors = ctx.saved_tensors
        gradients = _apply(_Gradient, ctx.spec, ctx.run, observed, messages, iterations, grad, *tensors)
        return None, None, None, None, None, *gradients

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_LogPartition, info.batch_size, in_dims, inputs)


class _Gradient(torch.autograd.Function):
    """``grad`` times the beliefs at given messages; its own derivative goes through the iterations that led to them."""

    @staticmethod
    def forward(
        spec: Spec,
        run: Any,
        observed: Tensor | None,
        messages: Tensor,
        iterations: Tensor,
        grad: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(_gradient(tensors, observed, messages, grad, *spec))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec, ctx.run, *tensors = inputs
        hold_graph(ctx)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> tuple[Tensor | None, ...]:
        observed, messages, iterations, grad, *tensors = ctx.saved_tensors

        def gradient(grad: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            model = put_together(tensors, observed, *ctx.spec)
            outcome = Outcome(messages, iterations, messages, messages)
            return tuple(pulled_back(model, unrolled(model, Run(*ctx.run[:-1]), outcome), grad))

        pull = torch.func.vjp(gradient, grad, *tensors)[1]
        return None, None, None, None, None, *pull(vectors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_Gradient, info.batch_size, in_dims, inputs)


def _apply(function: Any, *inputs: Any) -> Any:
    """``function.apply``, or its forward where that is all it takes: torch.compile fails on ``*tensors`` there."""
    tracked = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    return function.apply(*inputs) if tracked or not torch.compiler.is_compiling() else function.forward(*inputs)


def solved(model: Model, run: Run, *, maximise: bool = False) -> Outcome:
    """Messages at the stopping rule; warns, once, where they have not converged."""
    settings = (run.max_iterations, run.tolerance, run.damping, run.schedule, maximise)
    if not model.tensors:
        return iterated(model, run, maximise=maximise)
    return Outcome(*_apply(_Messages, taken_apart(model), settings, model.observed, *model.tensors))


def log_partition(model: Model, run: Run, outcome: Outcome) -> Tensor:
    """The Bethe ln Z of sum-product messages, float64 ``[*batch]``; its gradient is the beliefs at these messages."""
    if not model.tensors:
        return bethe(Passing(model, log_sum), outcome.messages)
    settings = (run.max_iterations, run.tolerance, run.damping, run.schedule, False)
    return _apply(
        _LogPartition,
        taken_apart(model),
        settings,
        model.observed,
        outcome.messages,
        outcome.iterations,
        *model.tensors,
    )
