"""Ops with values that are differentiated by what their pass leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic

import torch
from torch import Tensor

from lnz.checks import constant
from lnz.ops.dispatch import is_eager
from lnz.ops.scaffold.autograd import Replay, Value, applied
from lnz.ops.scaffold.batch import Axis, fold
from lnz.ops.scaffold.operator import In, Operator, Out, operator


def contiguous(like: Tensor) -> Tensor:
    """An empty tensor of this shape."""
    return torch.empty_like(like, memory_format=torch.contiguous_format)


class Differentiable(Generic[In, Out]):
    """An op with a value ``[B]`` that is differentiated by what its pass leaves.

    Args:
        solve: the pass, the operator ``lnz::NAME``. It takes scores, other tensors, settings; scores may be shared. It
            leaves the value first, which may be in a wider dtype than scores, and whatever backward needs.
        scores: how many of the inputs have gradients, the first ones.
        gradient: ``(weight [B] or None for ones, inputs, outputs, wanted)`` to Σ_b weight_b ∂ value_b / ∂ score of each
            score, shaped as these are; anything for scores that are not ``wanted``.
        marginals: ∂ value_b / ∂ score of each score, per entry ``[B, …]``, in plain torch.
        hold: of the inputs, what must live as long as a derivative may be asked for.
        room: an empty tensor laid out in memory as the gradient of a score; by default, contiguous.
    """

    values = 1
    separate = False

    def __init__(
        self,
        solve: Operator[In, Out],
        *,
        scores: int,
        gradient: Callable[[Any, In, Out, Sequence[bool]], Sequence[Tensor]],
        marginals: Callable[[In], Sequence[Tensor]],
        hold: Callable[[In], object] | None = None,
        room: Callable[[Tensor], Tensor] = contiguous,
    ) -> None:
        self.solve, self.scores, self._compute_gradient, self._marginals = solve, scores, gradient, marginals
        self._hold, self._room = hold, room
        given, made = self.solve.given, self.solve.made
        self._inputs, self._outputs = len(given.names), made.tensors
        weights = ", ".join(f"Tensor? weight_{i}" for i in range(self.values))
        left = ", ".join(f"Tensor left_{name}" for name in made.names)
        self.gradient_op = operator(
            f"{solve.name}_gradient",
            f"{weights}, {given.schema}, {left}, bool[] wanted",
            scores,
            self._gradient_of_constants,
            self._gradient_fake,
        )
        self.gradient_op.register_vmap(self._gradient_vmap)

    def value(self, inputs: In, outputs: Out) -> Tensor:
        """The value ``[B]`` that a pass has computed, as a function of the scores."""
        flat = self.solve.given.flatten(inputs)
        if constant(*flat[: self.scores]):
            return outputs[0]
        return applied(Value, self, *flat, *outputs)

    def gradient(self, weight: Tensor | None, inputs: In, outputs: Out, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
        """Σ_b weight_b ∂ value_b / ∂ score of the scores that are ``wanted``, as functions of these and of ``weight``.

        Of scores that are expanded over the batch, with a ``weight`` of ``None``, these are the marginals of entries.
        """
        wanted, flat = tuple(wanted), self.solve.given.flatten(inputs)
        if constant(*flat[: self.scores], *(() if weight is None else (weight,))):
            return self.compute(wanted, weight, *flat, *outputs)
        return applied(Replay, self, wanted, weight, *flat, *outputs)

    # What Value asks for: functions of (*inputs, *outputs) ------------------------------------------------------------

    def values_of(self, flat: Sequence[Any]) -> Sequence[Tensor]:
        return flat[self._inputs : self._inputs + self.values]

    def pull_back(
        self, grads: Sequence[Tensor], flat: Sequence[Any], wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        """What backward returns for the scores."""
        wanted = tuple(wanted)
        if not any(wanted):
            return (None,) * self.scores
        found = iter(applied(Replay, self, wanted, *self.as_weights(grads, flat), *flat))
        return tuple(next(found) if needed else None for needed in wanted)

    def as_weights(self, grads: Sequence[Tensor], flat: Sequence[Any]) -> Sequence[Tensor]:
        """What comes back for the values, in the dtype of the scores."""
        return [grad.to(flat[0].dtype) for grad in grads]

    def push_forward(self, flat: Sequence[Any], along: Sequence[Tensor | None]) -> Tensor:
        """Σ over scores of gradient · direction, per entry ``[B]``: of ln Z, the expectation of the direction."""
        batch = len(flat[0])
        expanded = [x.expand(batch, *x.shape[1:]) for x in flat[: self.scores]]
        wanted = tuple(direction is not None for direction in along)
        found = iter(applied(Replay, self, wanted, None, *expanded, *flat[self.scores :]))
        products = [(next(found) * direction).flatten(1).sum(1) for direction in along if direction is not None]
        return torch.stack(products).sum(0).to(self.values_of(flat)[0].dtype)

    def fold(
        self, size: int, in_dims: Sequence[Any], flat: Sequence[Any], keep_shared: bool = True
    ) -> tuple[list[Any], int, list[bool]]:
        """``flat``, the axis of ``vmap`` in its batch; see :func:`.batch.fold`."""
        given, made = self.solve.given, self.solve.made
        tensors = [*flat[: given.tensors], *flat[self._inputs :]]
        dims = [*in_dims[: given.tensors], *in_dims[self._inputs :]]
        axes = given.axes if keep_shared else [Axis(axis.at) for axis in given.axes]
        folded, batch, shared = fold(size, dims, tensors, (*axes, *made.axes))
        settings = flat[given.tensors : self._inputs]
        return [*folded[: given.tensors], *settings, *folded[given.tensors :]], batch, shared

    # What Replay asks for: functions of (*weights, *inputs, *outputs) -------------------------------------------------

    def compute(self, wanted: tuple[bool, ...], *flat: Any) -> tuple[Tensor, ...]:
        if is_eager(*(x for x in flat if isinstance(x, Tensor))):
            found = self._gradient_now(wanted, flat)
        else:
            constants = (x.detach() if isinstance(x, Tensor) else x for x in flat)
            found = self.gradient_op(*constants, list(wanted))
            found = (found,) if self.scores == 1 else found
        return tuple(x for x, needed in zip(found, wanted, strict=True) if needed)

    def plain(self, wanted: tuple[bool, ...], weight: Tensor | None, *flat: Any) -> tuple[Tensor, ...]:
        results = []
        for score, each, needed in zip(flat, self._marginals(self._records(flat)[0]), wanted, strict=False):
            if needed:
                total = each if weight is None else each * weight.view(-1, *[1] * (each.dim() - 1))
                results.append(total.sum(0, keepdim=True) if len(score) == 1 else total)
        return tuple(results)

    def differentiable(self) -> range:
        return range(self.values + self.scores)

    def held(self, flat: Sequence[Any]) -> object:
        if self._hold is None or torch.compiler.is_compiling():
            return None
        return self._hold(self._records(flat[-self._inputs - self._outputs :])[0])

    def vmap(
        self, size: int, in_dims: Sequence[Any], wanted: tuple[bool, ...], *flat: Any
    ) -> tuple[list[Any], Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]:
        """Every entry gets scores of its own; gradients are summed over the entries of a sample that share them."""
        weights, rest = flat[: self.values], flat[self.values :]
        folded, batch, shared = self.fold(size, in_dims[self.values :], rest, keep_shared=False)

        def own(weight: Tensor | None, dim: int | None) -> Tensor | None:
            if weight is None:
                return None
            weight = weight.unsqueeze(0) if dim is None else weight.movedim(dim, 0)
            return weight.expand(size, batch, *weight.shape[2:]).flatten(0, 1)

        def unfold(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
            sums = [s for s, needed in zip(shared, wanted, strict=False) if needed]
            each = [x.unflatten(0, (size, batch)) for x in results]
            return tuple(x.sum(1, keepdim=True) if s else x for x, s in zip(each, sums, strict=True))

        return [*map(own, weights, in_dims), *folded], unfold

    # The operator of the gradient -------------------------------------------------------------------------------------

    def _gradient_now(self, wanted: Sequence[bool], flat: Sequence[Any]) -> Sequence[Tensor]:
        weights = flat[: self.values]
        given, left = self._records(flat[self.values :])
        return self._compute_gradient(weights[0] if self.values == 1 else weights, given, left, wanted)

    def _gradient_of_constants(self, *arguments: Any) -> tuple[Tensor, ...]:
        *flat, wanted = arguments
        return tuple(
            x.new_empty(0) if not needed else x.clone() if any(x is y for y in flat) else x
            for x, needed in zip(self._gradient_now(wanted, flat), wanted, strict=True)
        )

    def _gradient_fake(self, *arguments: Any) -> tuple[Tensor, ...]:
        *flat, wanted = arguments
        return tuple(
            self._room(x) if needed else x.new_empty(0) for x, needed in zip(flat[self.values :], wanted, strict=False)
        )

    def _gradient_vmap(self, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        *flat, wanted = arguments
        folded, unfold = self.vmap(info.batch_size, in_dims[:-1], tuple(wanted), *flat)
        results = self.gradient_op(*folded, wanted)
        results = (results,) if self.scores == 1 else results
        found = iter(unfold([x for x, needed in zip(results, wanted, strict=True) if needed]))
        each = tuple(next(found) if needed else x for x, needed in zip(results, wanted, strict=True))
        dims = tuple(0 if needed else None for needed in wanted)
        return (each[0], dims[0]) if self.scores == 1 else (each, dims)

    def _records(self, flat: Sequence[Any]) -> tuple[In, Out]:
        return self.solve.given.unflatten(flat[: self._inputs]), self.solve.outputs(*flat[self._inputs :])
