"""Autograd of every op, in two functions.

:class:`Value` differentiates the value of an op by its gradient, which the op computes from what its pass left.
:class:`Replay` differentiates anything that a reference in plain torch computes as well: the gradients themselves (so
that values can be differentiated any number of times), and whatever an :class:`Answer` is.

A pass gives constants. Each value or gradient taken from it is a node of its own in autograd's graph, so one pass
serves any number of them, and any number of backward calls.

Both functions take ``*inputs`` and keep their signature, which torch would otherwise work out in every call. The
compiler counts the parameters of functions that need no gradient, and traces none that has a ``jvp``: :func:`applied`
calls the former directly, and exchanges a function for its form with tangents in forward mode only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lnz.checks import constant
from lnz.ops.dispatch import is_eager
from lnz.ops.scaffold.batch import Axis, fold
from lnz.ops.scaffold.operator import In, Operator, Out, operator

WITH_TANGENTS: dict[type[torch.autograd.Function], type[torch.autograd.Function]] = {}
"""The same functions with a ``jvp``; :mod:`lnz.ops.scaffold.forward_mode` fills it."""


def applied(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """``function.apply``; with tangents in forward mode, without a node in the graph where nobody differentiates."""
    if forward_ad._current_level >= 0:
        return WITH_TANGENTS[function].apply(*inputs)
    if not torch.is_grad_enabled() or (torch.compiler.is_compiling() and not _any_requires_grad(inputs)):
        return function.forward(*inputs)
    return function.apply(*inputs)


def _any_requires_grad(inputs: Sequence[Any]) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def handed_over(result: Tensor) -> Tensor:
    """An input as the output of a function: a view, but torch refuses a view a tangent of its own."""
    return result.view_as(result) if forward_ad._current_level < 0 else result.clone()


class Differentiable(Generic[In, Out]):
    """An op with a value ``[B]`` that is differentiated by what its pass leaves.

    Args:
        name: of the operators ``lnz::name`` and ``lnz::name_gradient``.
        inputs: the type of what it takes: scores, other tensors, settings.
        outputs: the type of what a pass leaves: tensors, the value first, which may be in a wider dtype than scores.
        scores: how many of the inputs have gradients, the first ones.
        solve: the pass.
        fake: as ``solve``, but only shapes and dtypes count.
        gradient: ``(weight [B] or None for ones, inputs, outputs, wanted)`` to Σ_b weight_b ∂ value_b / ∂ score of each
            score, shaped as these are; anything for scores that are not ``wanted``.
        marginals: ∂ value_b / ∂ score of each score, per entry ``[B, …]``, in plain torch.
        axes: as of :class:`Operator`. Scores may be shared.
    """

    def __init__(
        self,
        name: str,
        inputs: type[In],
        outputs: type[Out],
        *,
        scores: int,
        solve: Callable[[In], Out],
        fake: Callable[[In], Out],
        gradient: Callable[[Tensor | None, In, Out, Sequence[bool]], Sequence[Tensor]],
        marginals: Callable[[In], Sequence[Tensor]],
        axes: Mapping[str, Axis] | None = None,
    ) -> None:
        self.solve = Operator(name, solve, fake, inputs, outputs, axes)
        self.scores, self._compute_gradient, self._marginals = scores, gradient, marginals
        given, made = self.solve.given, self.solve.made
        self._inputs, self._outputs = len(given.names), made.tensors
        left = ", ".join(f"Tensor left_{name}" for name in made.names)
        self.gradient_op = operator(
            f"{name}_gradient",
            f"Tensor? weight, {given.schema}, {left}, bool[] wanted",
            scores,
            self._gradient_of_constants,
            self._gradient_fake,
        )
        self.gradient_op.register_vmap(self._gradient_vmap)

    def value(self, inputs: In, outputs: Out) -> Tensor:
        """The value ``[B]`` that a pass has computed, as a function of the scores."""
        if constant(*inputs[: self.scores]):
            return outputs[0]
        return applied(Value, self, *inputs, *outputs)

    def gradient(self, weight: Tensor | None, inputs: In, outputs: Out, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
        """Σ_b weight_b ∂ value_b / ∂ score of the scores that are ``wanted``, as functions of these and of ``weight``.

        Of scores that are expanded over the batch, with a ``weight`` of ``None``, these are the marginals of entries.
        """
        wanted = tuple(wanted)
        if constant(*inputs[: self.scores], *(() if weight is None else (weight,))):
            return self.compute(wanted, weight, *inputs, *outputs)
        return applied(Replay, self, wanted, weight, *inputs, *outputs)

    def weighted_gradient(
        self, weight: Tensor, flat: Sequence[Any], wanted: Sequence[bool]
    ) -> tuple[Tensor | None, ...]:
        """What backward returns for the scores."""
        wanted = tuple(wanted)
        if not any(wanted):
            return (None,) * self.scores
        found = iter(applied(Replay, self, wanted, weight, *flat))
        return tuple(next(found) if needed else None for needed in wanted)

    # What Replay asks for: a function of (weight, *inputs, *outputs), fast and in plain torch -------------------------

    def compute(self, wanted: tuple[bool, ...], weight: Tensor | None, *flat: Any) -> tuple[Tensor, ...]:
        tensors = [x for x in flat if isinstance(x, Tensor)]
        if is_eager(*tensors, *(() if weight is None else (weight,))):
            inputs, outputs = self._records(flat)
            found = self._compute_gradient(weight, inputs, outputs, wanted)
        else:
            constants = (x.detach() if isinstance(x, Tensor) else x for x in (weight, *flat))
            found = self.gradient_op(*constants, list(wanted))
            found = (found,) if self.scores == 1 else found
        return tuple(x for x, needed in zip(found, wanted, strict=True) if needed)

    def differentiable(self) -> range:
        return range(1 + self.scores)

    def plain(self, wanted: tuple[bool, ...], weight: Tensor | None, *flat: Any) -> tuple[Tensor, ...]:
        inputs, _ = self._records(flat)
        results = []
        for score, each, needed in zip(flat, self._marginals(inputs), wanted, strict=False):
            if needed:
                total = each if weight is None else each * weight.view(-1, *[1] * (each.dim() - 1))
                results.append(total.sum(0, keepdim=True) if len(score) == 1 else total)
        return tuple(results)

    def fold(
        self, size: int, in_dims: Sequence[Any], flat: Sequence[Any], keep_shared: bool = True
    ) -> tuple[list[Any], int, list[bool]]:
        """The arguments of a pass and what it left, the axis of ``vmap`` in their batch; see :func:`.batch.fold`."""
        given, made = self.solve.given, self.solve.made
        tensors = [*flat[: given.tensors], *flat[self._inputs :]]
        dims = [*in_dims[: given.tensors], *in_dims[self._inputs :]]
        axes = given.axes if keep_shared else [Axis(axis.at) for axis in given.axes]
        folded, batch, shared = fold(size, dims, tensors, (*axes, *made.axes))
        settings = flat[given.tensors : self._inputs]
        return [*folded[: given.tensors], *settings, *folded[given.tensors :]], batch, shared

    def vmap(
        self, size: int, in_dims: Sequence[Any], wanted: tuple[bool, ...], weight: Tensor | None, *flat: Any
    ) -> tuple[list[Any], Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]:
        """Folded arguments of :meth:`compute`, and how to take its results apart again.

        Every entry gets scores of its own; gradients are then summed over the entries of a sample that share them.
        """
        folded, batch, shared = self.fold(size, in_dims[1:], flat, keep_shared=False)
        if weight is not None:
            weight = weight.unsqueeze(0) if in_dims[0] is None else weight.movedim(in_dims[0], 0)
            weight = weight.expand(size, batch).flatten()

        def unfold(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
            sums = [s for s, needed in zip(shared, wanted, strict=False) if needed]
            each = [x.unflatten(0, (size, batch)) for x in results]
            return tuple(x.sum(1, keepdim=True) if s else x for x, s in zip(each, sums, strict=True))

        return [weight, *folded], unfold

    # The operator of the gradient -------------------------------------------------------------------------------------

    def _gradient_of_constants(self, weight: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
        *flat, wanted = rest
        inputs, outputs = self._records(flat)
        found = self._compute_gradient(weight, inputs, outputs, wanted)
        return tuple(
            x.new_empty(0) if not needed else x.clone() if any(x is y for y in flat) else x
            for x, needed in zip(found, wanted, strict=True)
        )

    def _gradient_fake(self, weight: Tensor | None, *rest: Any) -> tuple[Tensor, ...]:
        *flat, wanted = rest
        return tuple(
            torch.empty_like(x, memory_format=torch.contiguous_format) if needed else x.new_empty(0)
            for x, needed in zip(flat, wanted, strict=False)
        )

    def _gradient_vmap(self, info: Any, in_dims: tuple[Any, ...], weight: Tensor | None, *rest: Any) -> tuple[Any, Any]:
        *flat, wanted = rest
        arguments, unfold = self.vmap(info.batch_size, in_dims[:-1], tuple(wanted), weight, *flat)
        results = self.gradient_op(*arguments, wanted)
        results = (results,) if self.scores == 1 else results
        found = iter(unfold([x for x, needed in zip(results, wanted, strict=True) if needed]))
        each = tuple(next(found) if needed else x for x, needed in zip(results, wanted, strict=True))
        dims = tuple(0 if needed else None for needed in wanted)
        return (each[0], dims[0]) if self.scores == 1 else (each, dims)

    def _records(self, flat: Sequence[Any]) -> tuple[In, Out]:
        return self.solve.inputs(*flat[: self._inputs]), self.solve.outputs(*flat[self._inputs :])


class Replayable(Protocol):
    """What :class:`Replay` differentiates: tensors computed fast, and once more in plain torch.

    ``which`` says what of it is asked for; ``flat`` are tensors, ``None`` and settings, the same for all methods.
    """

    def compute(self, which: Any, *flat: Any) -> tuple[Tensor, ...]: ...

    def plain(self, which: Any, *flat: Any) -> tuple[Tensor, ...]: ...

    def differentiable(self) -> Sequence[int]:
        """Which of ``flat`` have gradients."""
        ...

    def vmap(
        self, size: int, in_dims: Sequence[Any], which: Any, *flat: Any
    ) -> tuple[Sequence[Any], Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]: ...


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
    """

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
    ) -> None:
        self.op, self.scores, self._plain = Operator(name, compute, fake, inputs, outputs, axes), scores, plain

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

    def vmap(
        self, size: int, in_dims: Sequence[Any], which: None, *flat: Any
    ) -> tuple[list[Any], Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]:
        count = self.op.given.tensors
        folded, batch, _ = fold(size, in_dims[:count], flat[:count], self.op.given.axes)

        def unfold(results: Sequence[Tensor]) -> tuple[Tensor, ...]:
            axes = (axis.at or 0 for axis in self.op.made.axes)
            return tuple(x.unflatten(at, (size, batch)).movedim(at, 0) for x, at in zip(results, axes, strict=True))

        return [*folded, *flat[count:]], unfold


class Value(torch.autograd.Function):
    """The value that a pass has computed, as a function of the scores: ``(op, *inputs, *outputs)``."""

    @staticmethod
    def forward(op: Differentiable[Any, Any], *flat: Any) -> Tensor:
        return handed_over(flat[op._inputs])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.op = inputs[0]
        _save(ctx, inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        op, flat = ctx.op, _saved(ctx)
        wanted = ctx.needs_input_grad[1 : 1 + op.scores]
        gradients = op.weighted_gradient(grad.to(flat[0].dtype), flat, wanted)
        return None, *gradients, *(None,) * (len(flat) - op.scores)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], op: Differentiable[Any, Any], *flat: Any) -> tuple[Any, Any]:
        folded, batch, _ = op.fold(info.batch_size, in_dims[1:], flat)
        return applied(Value, op, *folded).unflatten(0, (info.batch_size, batch)), 0


class Replay(torch.autograd.Function):
    """Tensors that are differentiated through plain torch: ``(what, which, *flat)``."""

    @staticmethod
    def forward(what: Replayable, which: Any, *flat: Any) -> tuple[Tensor, ...]:
        results = what.compute(which, *flat)
        return tuple(handed_over(x) if any(x is y for y in flat) else x for x in results)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.what, ctx.which, *flat = inputs
        _save(ctx, flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat = _saved(ctx)
        function, places = as_function(ctx.what, ctx.which, flat)
        found = torch.func.vjp(function, *(flat[i] for i in places))[1](grads)
        result: list[Tensor | None] = [None] * (2 + len(flat))
        for i, gradient in zip(places, found, strict=True):
            result[2 + i] = gradient
        return tuple(result)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], what: Replayable, which: Any, *flat: Any) -> tuple[Any, Any]:
        folded, unfold = what.vmap(info.batch_size, in_dims[2:], which, *flat)
        results = unfold(applied(Replay, what, which, *folded))
        return results, (0,) * len(results)


for _function in (Value, Replay):
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[attr-defined]


def as_function(
    what: Replayable, which: Any, flat: Sequence[Any]
) -> tuple[Callable[..., tuple[Tensor, ...]], list[int]]:
    """``what.plain`` as a function of those of ``flat`` that have gradients, and their places."""
    places = [i for i in what.differentiable() if flat[i] is not None]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments = list(flat)
        for i, x in zip(places, tensors, strict=True):
            arguments[i] = x
        return what.plain(which, *arguments)

    return function, places


def _save(ctx: Any, flat: Sequence[Any]) -> None:
    tensors = [x if isinstance(x, Tensor) else None for x in flat]
    ctx.settings = [None if isinstance(x, Tensor) else x for x in flat]
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _saved(ctx: Any) -> list[Any]:
    return [s if x is None else x for x, s in zip(ctx.saved_tensors, ctx.settings, strict=True)]
