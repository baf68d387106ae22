"""Ops whose results are differentiated through plain torch, and those that have a fast first derivative besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops.scaffold.autograd import Replay, Value, applied
from lnz.ops.scaffold.batch import fold
from lnz.ops.scaffold.differentiable import Differentiable
from lnz.ops.scaffold.operator import In, Operator, Out


class Answer(Generic[In, Out]):
    """An op whose results are differentiated through its reference only.

    Args:
        op: the operator; its scores may be shared.
        plain: the same in plain torch.
        scores: as of :class:`Differentiable`, as is ``hold``.
        hold: see there.
    """

    separate = False

    def __init__(
        self,
        op: Operator[In, Out],
        plain: Callable[[In], Out],
        *,
        scores: int,
        hold: Callable[[In], object] | None = None,
    ) -> None:
        self.op, self._plain, self.scores, self._hold = op, plain, scores, hold

    def __call__(self, inputs: In) -> Out:
        """The results, as functions of the scores."""
        flat = self.op.given.flatten(inputs)
        if constant(*flat[: self.scores]):
            return self.op(inputs)
        return self.op.outputs(*applied(Replay, self, None, *flat))

    def compute(self, which: None, *flat: Any) -> tuple[Tensor, ...]:
        return tuple(self.op(self.op.given.unflatten(flat)))

    def plain(self, which: None, *flat: Any) -> tuple[Tensor, ...]:
        return tuple(self._plain(self.op.given.unflatten(flat)))

    def differentiable(self) -> range:
        return range(self.scores)

    def held(self, flat: Sequence[Any]) -> object:
        if self._hold is None or torch.compiler.is_compiling():
            return None
        return self._hold(self.op.given.unflatten(flat))

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
        solve: Operator[In, Out],
        *,
        values: int,
        plain: Callable[[In], Sequence[Tensor]],
        **description: Any,
    ) -> None:
        self.values, self._plain = values, plain
        super().__init__(solve, marginals=lambda given: (), **description)

    def mapped(self, inputs: In, outputs: Out) -> tuple[Tensor, ...]:
        """The values that a pass has computed, as functions of the scores."""
        flat = self.solve.given.flatten(inputs)
        if constant(*flat[: self.scores]):
            return tuple(outputs[: self.values])
        values = applied(Value, self, *flat, *outputs)
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
