"""The autograd of a variational value of ln Z: a functional of scores and a state, where the state is held.

A variational method finds a state (messages, or the marginals of a product) and evaluates a functional there. The first
derivative to the scores is taken with the state held: at a stationary point that is the whole derivative (the envelope
theorem), elsewhere it is the derivative of the functional at this state. The second derivative goes through the
iterations that lead to the state. ``vmap`` runs the models of its axis one by one: the batch shape of a model is the
fast way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from lnz.ops.belief.spec import Spec, hold_graph, one_by_one, put_together, taken_apart
from lnz.scores import Model

State = tuple[Tensor, ...]


class Functional(ABC):
    """Settings, as a hashable object, and what is computed with them."""

    @abstractmethod
    def state(self, model: Model) -> State:
        """Iterate to the stopping rule."""

    @abstractmethod
    def value(self, model: Model, state: State) -> Tensor:
        """The value at a state, float64 ``[*batch]``."""

    @abstractmethod
    def gradient(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        """``grad`` times the derivative of the value, the state held, to each of ``model.tensors``; plain torch."""

    def pulled(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        """:meth:`gradient`, where nobody differentiates it: a kernel's, where there is one."""
        return self.gradient(model, state, grad)

    @abstractmethod
    def replayed(self, model: Model, state: State) -> State:
        """The state once more, with the tape of the iterations that lead to it."""


def settled(functional: Functional, model: Model) -> State:
    """The state of ``functional``, held constant in every derivative."""
    if not model.tensors:
        return functional.state(model)
    return _State.apply(functional, taken_apart(model), model.observed, *model.tensors)  # type: ignore[return-value]


def evaluated(functional: Functional, model: Model, state: State) -> Tensor:
    """The value at ``state``, float64 ``[*batch]``, differentiable as said above."""
    if not model.tensors:
        return functional.value(model, state)
    return _Value.apply(functional, taken_apart(model), len(state), model.observed, *state, *model.tensors)  # type: ignore[return-value]


class Answering(Functional):
    """A functional with answers besides its value, which are differentiated through the iterations."""

    @abstractmethod
    def answer(self, model: Model, state: State, which: int | None) -> Tensor:
        """One answer at a state."""

    @abstractmethod
    def plain(self, model: Model, state: State, which: int | None) -> Tensor:
        """The same at a replayed state, in plain torch."""


def answered(functional: Answering, model: Model, state: State, which: int | None) -> Tensor:
    """An answer at ``state``; its derivative goes through the iterations, once it is asked for."""
    if not model.tensors:
        return functional.answer(model, state, which)
    spec = (taken_apart(model), len(state), which)
    return _Answer.apply(functional, spec, model.observed, *state, *model.tensors)  # type: ignore[return-value]


class _State(torch.autograd.Function):
    @staticmethod
    def forward(functional: Functional, spec: Spec, observed: Tensor | None, *tensors: Tensor) -> State:
        with torch.no_grad():
            return functional.state(put_together(tensors, observed, *spec))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: State) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.inputs

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_State, info.batch_size, in_dims, inputs)


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(functional: Functional, spec: Spec, size: int, observed: Tensor | None, *rest: Tensor) -> Tensor:
        return functional.value(put_together(rest[size:], observed, *spec), rest[:size])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.functional, ctx.spec, ctx.size, *tensors = inputs
        hold_graph(ctx)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        observed, *rest = ctx.saved_tensors
        gradients = _Gradient.apply(ctx.functional, ctx.spec, ctx.size, observed, grad, *rest)
        return (None,) * (4 + ctx.size) + tuple(gradients)  # type: ignore[arg-type]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_Value, info.batch_size, in_dims, inputs)


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        functional: Functional, spec: Spec, size: int, observed: Tensor | None, grad: Tensor, *rest: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(functional.pulled(put_together(rest[size:], observed, *spec), rest[:size], grad))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.functional, ctx.spec, ctx.size, *tensors = inputs
        hold_graph(ctx)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> tuple[Tensor | None, ...]:
        observed, grad, *rest = ctx.saved_tensors
        state = tuple(rest[: ctx.size])

        def gradient(grad: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            model = put_together(tensors, observed, *ctx.spec)
            return tuple(ctx.functional.gradient(model, ctx.functional.replayed(model, state), grad))

        pull = torch.func.vjp(gradient, grad, *rest[ctx.size :])[1]
        to_grad, *to_tensors = pull(vectors)
        return None, None, None, None, to_grad, *(None,) * ctx.size, *to_tensors

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_Gradient, info.batch_size, in_dims, inputs)


class _Answer(torch.autograd.Function):
    @staticmethod
    def forward(
        functional: Answering, spec: tuple[Spec, int, int | None], observed: Tensor | None, *rest: Tensor
    ) -> Tensor:
        of, size, which = spec
        return functional.answer(put_together(rest[size:], observed, *of), rest[:size], which)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.functional, (ctx.spec, ctx.size, ctx.which), *tensors = inputs
        hold_graph(ctx)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        observed, *rest = ctx.saved_tensors
        state = tuple(rest[: ctx.size])

        def plain(*tensors: Tensor) -> Tensor:
            model = put_together(tensors, observed, *ctx.spec)
            return ctx.functional.plain(model, ctx.functional.replayed(model, state), ctx.which)

        pull = torch.func.vjp(plain, *rest[ctx.size :])[1]
        return (None,) * (3 + ctx.size) + tuple(pull(grad))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(_Answer, info.batch_size, in_dims, inputs)
