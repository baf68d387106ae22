"""Belief propagation on 4-neighbour grids: registration, autograd, and the calls into the kernel.

``lnz::grid_belief`` iterates and gives the Bethe ln Z, node beliefs and messages; ``lnz::grid_belief_gradient`` the
beliefs in the form of the scores, which is its gradient. What is computed is defined by
:mod:`lnz.ops.belief.reference`, through which the second derivative goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.graphs import graph_of
from lnz.ops.belief.gradient import pulled_back
from lnz.ops.belief.op import warn_if_outside, warn_unless_at_rest
from lnz.ops.belief.reference import Passing, log_sum, node_beliefs
from lnz.ops.belief.schedule import Outcome, Run, unrolled
from lnz.ops.belief.spec import Spec, hold_graph, one_by_one, put_together, taken_apart
from lnz.ops.grid_belief.forms import covers
from lnz.ops.grid_belief.kernel import prepared_for
from lnz.ops.grid_belief.solve import converge, pull_back, slots_of
from lnz.scores import Model


def serves(model: Model, run: Run) -> bool:
    """Whether the kernel covers a model and a schedule."""
    return run.schedule == "flooding" and covers(model)


@torch.library.custom_op("lnz::grid_belief", mutates_args=())
def _solved(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    model = put_together(tensors, observed, graph, weighted, batch)
    run = Run(max_iterations, tolerance, damping, schedule)  # type: ignore[arg-type]
    result = converge(model, prepared_for(model), run, maximise)
    warn_unless_at_rest(model, run, *result[3:], maximise=maximise)
    if run.tolerance and not maximise and not result[-1].all():
        warn_if_outside(model, result[0])
    return result  # type: ignore[return-value]


@_solved.register_fake
def _(tensors: Sequence[Tensor], observed: Any, graph: str, weighted: Any, batch: Sequence[int], *_: Any) -> Any:
    new, wiring = tensors[0].new_empty, graph_of(graph)
    grid, labels, count = wiring.grid_layout, wiring.max_cardinality, math.prod(batch)
    assert grid is not None
    messages = new(4, count, grid.height, labels, grid.width)
    iterations, residual, converged = new(batch, dtype=torch.int64), new(batch), new(batch, dtype=torch.bool)
    log_z = new(batch, dtype=torch.float64)
    return log_z, new(*batch, wiring.num_nodes, labels), messages, iterations, residual, converged


@torch.library.custom_op("lnz::grid_belief_gradient", mutates_args=())
def _gradient(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    messages: Tensor,
    log_z: Tensor,
    grad: Tensor,
    graph: str,
    weighted: Sequence[bool],
    batch: Sequence[int],
) -> list[Tensor]:
    model = put_together(tensors, observed, graph, weighted, batch)
    return pull_back(model, prepared_for(model), messages, grad.masked_fill(torch.isneginf(log_z), 0.0))


@_gradient.register_fake
def _(tensors: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


class _GridBelief(torch.autograd.Function):
    """What :class:`GridOutcome` holds. ln Z has the beliefs as its gradient at fixed messages."""

    @staticmethod
    def forward(spec: Spec, run: tuple[Any, ...], observed: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _solved(tensors, observed, *spec, *run)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec, ctx.run, observed, *tensors = inputs
        hold_graph(ctx)
        log_z, _, messages, *ended = output
        iterations = ended[0]
        ctx.mark_non_differentiable(messages, *ended)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(observed, messages, iterations, log_z, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, at_beliefs: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        observed, messages, iterations, log_z, *tensors = ctx.saved_tensors
        gradients: list[Tensor | None] = [None] * len(tensors)
        if grad is not None:
            gradients = list(
                _GridGradient.apply(ctx.spec, ctx.run, observed, messages, iterations, log_z.detach(), grad, *tensors)
            )
        if at_beliefs is not None:

            def beliefs(*tensors: Tensor) -> Tensor:
                model = put_together(tensors, observed, *ctx.spec)
                at = unrolled(model, Run(*ctx.run[:-1]), Outcome(messages, iterations, log_z, log_z))
                return node_beliefs(Passing(model, log_sum), at).to(at_beliefs.dtype)

            pulled = torch.func.vjp(beliefs, *tensors)[1](at_beliefs)
            gradients = [p if g is None else g + p for g, p in zip(gradients, pulled, strict=True)]
        return None, None, None, *gradients

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_GridBelief, info.batch_size, in_dims, inputs)


class _GridGradient(torch.autograd.Function):
    """``grad`` times the beliefs at given messages; its own derivative goes through the iterations that led to them."""

    @staticmethod
    def forward(
        spec: Spec,
        run: Any,
        observed: Tensor | None,
        messages: Tensor,
        iterations: Tensor,
        log_z: Tensor,
        grad: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(_gradient(tensors, observed, messages, log_z, grad, *spec))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec, ctx.run, observed, messages, iterations, _, grad, *tensors = inputs
        hold_graph(ctx)
        ctx.save_for_backward(observed, messages, iterations, grad, *tensors)

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> tuple[Tensor | None, ...]:
        observed, messages, iterations, grad, *tensors = ctx.saved_tensors

        def gradient(grad: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            model = put_together(tensors, observed, *ctx.spec)
            at = unrolled(model, Run(*ctx.run[:-1]), Outcome(messages, iterations, messages, messages))
            return tuple(pulled_back(model, at, grad))

        pull = torch.func.vjp(gradient, grad, *tensors)[1]
        return None, None, None, None, None, None, *pull(vectors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_GridGradient, info.batch_size, in_dims, inputs)


@dataclass(frozen=True, eq=False)
class GridOutcome:
    """Bethe ln Z (float64) and ends of iterations ``[*batch]``, node beliefs ``[*batch, N, L]``, messages."""

    log_partition: Tensor
    beliefs: Tensor
    messages: Tensor
    iterations: Tensor
    residual: Tensor
    converged: Tensor


def solved(model: Model, run: Run, *, maximise: bool = False) -> GridOutcome:
    """Iterate to the stopping rule; warns, once, where messages have not converged. ``model`` is one :func:`serves`."""
    settings = (run.max_iterations, run.tolerance, run.damping, run.schedule, maximise)
    return GridOutcome(*_GridBelief.apply(taken_apart(model), settings, model.observed, *model.tensors))


def slots(model: Model, outcome: GridOutcome, *, maximise: bool = False) -> Tensor:
    """The messages as :mod:`lnz.ops.belief` lays them out, ``[*batch, M, L]``, normalised, in logarithms."""
    return slots_of(model, prepared_for(model), outcome.messages, maximise)
