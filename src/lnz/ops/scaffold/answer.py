"""Ops whose results are differentiated through plain torch, and those that have a fast first derivative besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops.scaffold.autograd import Replay, Value, applied
from lnz.ops.scaffold.batch import Axis, fold
from lnz.ops.scaffold.differentiable import Differentiable
from lnz.ops.scaffold.operator import In, Operator, Out


class Answer(Generic[In, Out]):
    """An op whose results are differentiated through its reference only.

    Args:
        name: of the operator ``lnz::name``.
        inputs: the type of what it takes: scores, other tensors, settings.
        outputs: the type of what it gives: tensors.
        scores: how many of the inputs have gradients, the first ones.
        compute: the op.
        fake: as ``compute``, but only shapes and dtypes count.
        plain: as ``compute``, in plain torch.
        axes: as of :class:`Operator`. Scores may be shared.
        hold: as of :class:`Differentiable`.
    """

    separate = False

    def __init__(
        self,
        name: str,
        inputs: type[In],
        outputs: type[Out],
        *,
        scores: int,
        compute: Callable[[In], Out],
        fake: Callable[[In], Out],
        plain: Callable[[In], Out],
        axes: Mapping[str, Axis] | None = None,
        hold: Callable[[In], object] | None = None,
    ) -> None:
        self.op, self.scores, self._plain = Operator(name, compute, fake, inputs, outputs, axes), scores, plain
        self._hold = hold

    def __call__(self, inputs: In) -> Out:
        """The results, as functions of the scores."""
        if constant(*inputs[: self.scores]):
            return self.op(inputs)
        return self.op.outputs(*applied(Replay, self, None, *inputs))

    def compute(self, which: None, *flat: Any) -> tuple[Tensor, ...]:
        return tuple(self.op(self.op.inputs(*flat)))

    def plain(self, which: None, *flat: Any) -> tuple[Tensor, ...]:
        return tuple(self._plain(self.op.inputs(*flat)))

    def differentiable(self) -> range:
        return range(self.scores)

    def held(self, flat: Sequence[Any]) -> object:
        if self._hold is None or torch.compiler.is_compiling():
            return None
        return self._hold(self.op.inputs(*flat))

    def vmap(
        self, size: int, in_dims: Sequence[Any], which: None, *flat: Any
    ) -> tuple[list[Any], Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]:
        count = self.op.given.tensors
        folded, batch, _ = fold(size, in_dims[:count], flat[:count], self.op.given.axes)

        def unfold(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
            axes = (axis.at or 0 for axis in self.op.made.axes)
            return tuple(x.unflatten(at, (size, batch)).movedim(at, 0) for x, at in zip(results, axes, strict=True))

        return [*folded, *flat[count:]], unfold


class Map(Differentiable[In, Out]):
    """An op with several values of any shape, whose vector–Jacobian product is fast as well.

    Args as of :class:`Differentiable`, but:
        values: how many of the outputs are functions of the scores, the first ones.
        gradient: ``(weights, inputs, outputs, wanted)``, a weight shaped as each value, to the gradients of
            Σ weight · value.
        plain: the values of the inputs, in plain torch.
    """

    def __init__(
        self,
        name: str,
        inputs: type[In],
        outputs: type[Out],
        *,
        values: int,
        plain: Callable[[In], Sequence[Tensor]],
        **description: Any,
    ) -> None:
        self.values, self._plain = values, plain
        super().__init__(name, inputs, outputs, marginals=lambda given: (), **description)

    def mapped(self, inputs: In, outputs: Out) -> tuple[Tensor, ...]:
        """The values that a pass has computed, as functions of the scores."""
        if constant(*inputs[: self.scores]):
            return tuple(outputs[: self.values])
        values = applied(Value, self, *inputs, *outputs)
        return (values,) if isinstance(values, Tensor) else values

    def as_weights(self, grads: Sequence[Tensor], flat: Sequence[Any]) -> Sequence[Tensor]:
        return grads

    def push_forward(self, flat: Sequence[Any], along: Sequence[Tensor | None]) -> Any:
        scores = flat[: self.scores]
        moves = tuple(torch.zeros_like(x) if dx is None else dx for x, dx in zip(scores, along, strict=True))
        values, pull = torch.func.vjp(lambda *scores: self._values(scores, flat), *scores)[:2]
        found = torch.func.vjp(pull, tuple(map(torch.zeros_like, values)))[1](moves)[0]
        return found[0] if self.values == 1 else found

    def plain(self, wanted: tuple[bool, ...], *flat: Any) -> tuple[Tensor, ...]:
        weights, rest = flat[: self.values], flat[self.values :]
        _, pull = torch.func.vjp(lambda *scores: self._values(scores, rest), *rest[: self.scores])[:2]
        return tuple(x for x, needed in zip(pull(weights), wanted, strict=True) if needed)

    def _values(self, scores: Sequence[Tensor], flat: Sequence[Any]) -> tuple[Tensor, ...]:
        return tuple(self._plain(self._records([*scores, *flat[self.scores :]])[0]))
