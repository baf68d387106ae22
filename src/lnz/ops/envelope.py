"""Derivatives of a variational value of ln Z: a functional of scores and a state, where the state is held.

A variational method finds a state (messages, or the marginals of a product) and evaluates a functional there. The first
derivative to the scores is taken with the state held: at a stationary point that is the whole derivative (the envelope
theorem), elsewhere it is the derivative of the functional at this state. The second derivative, and that of any other
answer, goes through the iterations that lead to the state. The functions of :mod:`lnz.ops.scaffold.autograd` do both.
``vmap`` runs the models of its axis one by one: the batch shape of a model is the fast way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.ops.dispatch import is_eager
from lnz.ops.scaffold.autograd import Replay, Value, applied, one_by_one
from lnz.ops.variational import flatten, model_of
from lnz.scores import Model

State = tuple[Tensor, ...]
Spec = tuple[FactorGraph, list[bool], list[int]]
"""A model but for its tensors: the graph, which entries are ``Weighted``, the batch shape."""


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


class Answering(Functional):
    """A functional with answers besides its value, which are differentiated through the iterations."""

    @abstractmethod
    def answer(self, model: Model, state: State, which: int | None) -> Tensor:
        """One answer at a state."""

    @abstractmethod
    def plain(self, model: Model, state: State, which: int | None) -> Tensor:
        """The same at a replayed state, in plain torch."""


def settled(functional: Functional, model: Model) -> State:
    """The state of ``functional``, held constant in every derivative."""
    return constants(lambda model, _: functional.state(model), model, ())


def evaluated(functional: Functional, model: Model, state: State) -> Tensor:
    """The value at ``state``, float64 ``[*batch]``, differentiable as said above."""
    (value,) = constants(lambda model, state: (functional.value(model, state),), model, state)
    if not model.tensors:
        return value
    held = Held(functional, spec_of(model), len(model.tensors))
    return _applied(Value, held, *model.tensors, model.observed, *state, value)


def answered(functional: Answering, model: Model, state: State, which: int | None) -> Tensor:
    """An answer at ``state``; its derivative goes through the iterations, once it is asked for."""
    if not model.tensors:
        return functional.answer(model, state, which)
    held = HeldAnswer(functional, spec_of(model), len(model.tensors))
    (found,) = _applied(Replay, held, which, *model.tensors, model.observed, *state)
    return found


def spec_of(model: Model) -> Spec:
    return model.graph, *flatten(model)[1:]


def _applied(function: Any, *inputs: Any) -> Any:
    """``function.apply``, whose ``vmap`` rule is needed without gradients too: what it computes has no other."""
    return applied(function, *inputs) if torch.compiler.is_compiling() else function.apply(*inputs)


def constants(compute: Callable[[Model, State], State], model: Model, state: State) -> State:
    """``compute(model, state)``, without derivatives."""
    spec, tensors = spec_of(model), [tensor.detach() for tensor in model.tensors]
    if torch.compiler.is_compiling() or is_eager(*tensors):
        with torch.no_grad():
            return compute(model_of(tensors, model.observed, *spec), state)
    return Constants.apply(compute, spec, len(state), model.observed, *state, *tensors)  # type: ignore[return-value]


class Constants(torch.autograd.Function):
    """What :func:`constants` gives, to those who transform or trace."""

    @staticmethod
    def forward(compute: Any, spec: Spec, size: int, observed: Tensor | None, *rest: Tensor) -> State:
        with torch.no_grad():
            return compute(model_of(rest[size:], observed, *spec), rest[:size])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: State) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.inputs

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return one_by_one(Constants.apply, info.batch_size, in_dims, inputs)


@dataclass(frozen=True)
class Held:
    """What :class:`~lnz.ops.scaffold.autograd.Value` asks: the value of a model at a state.

    ``flat`` are the tensors of the model, so many of which are ``scores``; what was observed; the state; the value.
    """

    functional: Any
    spec: Spec
    scores: int
    separate = True

    def values_of(self, flat: Sequence[Any]) -> Sequence[Tensor]:
        return flat[-1:]

    def held(self, flat: Sequence[Any]) -> object:
        """Nothing more: the graph is part of this."""
        return None

    def pull_back(
        self, grads: Sequence[Tensor], flat: Sequence[Any], wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        if not any(wanted):
            return (None,) * self.scores
        return _applied(Replay, HeldGradient(self.functional, self.spec, self.scores), None, *grads, *flat[:-1])

    def models(self, flat: Sequence[Any]) -> tuple[Model, State]:
        return model_of(flat[: self.scores], flat[self.scores], *self.spec), tuple(flat[self.scores + 1 :])


class HeldGradient(Held):
    """What :class:`~lnz.ops.scaffold.autograd.Replay` asks: a weight, before the others, times the gradient."""

    def compute(self, which: None, weight: Tensor, *flat: Any) -> tuple[Tensor, ...]:
        return tuple(self.functional.pulled(*self.models(flat), weight))

    def plain(self, which: None, weight: Tensor, *flat: Any) -> tuple[Tensor, ...]:
        model, state = self.models(flat)
        return tuple(self.functional.gradient(model, self.functional.replayed(model, state), weight))

    def differentiable(self) -> Sequence[int]:
        return range(1 + self.scores)


class HeldAnswer(Held):
    """What :class:`~lnz.ops.scaffold.autograd.Replay` asks: the answer ``which``."""

    def compute(self, which: int | None, *flat: Any) -> tuple[Tensor, ...]:
        return (self.functional.answer(*self.models(flat), which),)

    def plain(self, which: int | None, *flat: Any) -> tuple[Tensor, ...]:
        model, state = self.models(flat)
        return (self.functional.plain(model, self.functional.replayed(model, state), which),)

    def differentiable(self) -> Sequence[int]:
        return range(self.scores)
