"""Autograd of every op, in two functions.

:class:`Value` differentiates the values of an op by its gradient, which the op computes from what its pass left.
:class:`Replay` differentiates anything that a reference in plain torch computes as well: the gradients themselves (so
that values can be differentiated any number of times), and whatever an ``Answer`` is.

A pass gives constants. Each value or gradient taken from it is a node of its own in autograd's graph, so one pass
serves any number of them, and any number of backward calls.

Both functions take ``*inputs`` and keep their signature, which torch would otherwise work out in every call. The
compiler counts the parameters of functions that need no gradient, and traces none that has a ``jvp``: :func:`applied`
calls the former directly, and exchanges a function for its form with tangents in forward mode only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from lnz.ops.scaffold.differentiable import Differentiable

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


def one_by_one(
    function: Callable[..., Any], size: int, in_dims: Sequence[Any], inputs: Sequence[Any]
) -> tuple[Any, Any]:
    """The ``vmap`` rule of a function whose inputs have no batch axis in common: sample after sample."""
    results = [
        function(*(x.select(d, i) if isinstance(d, int) else x for x, d in zip(inputs, in_dims, strict=True)))
        for i in range(size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    columns = tuple(torch.stack(column) for column in zip(*results, strict=True))
    return columns, (0,) * len(columns)


class Value(torch.autograd.Function):
    """What a pass has computed, as functions of the scores: ``(op, *inputs, *outputs)``."""

    @staticmethod
    def forward(op: Differentiable[Any, Any], *flat: Any) -> Any:
        values = [handed_over(x) for x in op.values_of(flat)]
        return values[0] if len(values) == 1 else tuple(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.op, *flat = inputs
        ctx.held = ctx.op.held(flat)
        _save(ctx, flat)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        op, flat = ctx.op, _saved(ctx)
        gradients = op.pull_back(grads, flat, ctx.needs_input_grad[1 : 1 + op.scores])
        return None, *gradients, *(None,) * (len(flat) - op.scores)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], op: Differentiable[Any, Any], *flat: Any) -> tuple[Any, Any]:
        if op.separate:
            return one_by_one(partial(applied, Value), info.batch_size, in_dims, (op, *flat))
        folded, batch, _ = op.fold(info.batch_size, in_dims[1:], flat)
        values = applied(Value, op, *folded)
        if isinstance(values, Tensor):
            return values.unflatten(0, (info.batch_size, batch)), 0
        return tuple(x.unflatten(0, (info.batch_size, batch)) for x in values), (0,) * len(values)


class Replayable(Protocol):
    """What :class:`Replay` differentiates: tensors computed fast, and once more in plain torch.

    ``which`` says what of it is asked for; ``flat`` are tensors, ``None`` and settings, the same for all methods.

    Attributes:
        separate: whether samples of ``vmap`` are computed one by one, without :meth:`vmap`.
    """

    separate: bool

    def compute(self, which: Any, *flat: Any) -> tuple[Tensor, ...]: ...

    def plain(self, which: Any, *flat: Any) -> tuple[Tensor, ...]: ...

    def differentiable(self) -> Sequence[int]:
        """Which of ``flat`` have gradients."""
        ...

    def held(self, flat: Sequence[Any]) -> object:
        """What must live as long as a derivative may be asked for."""
        ...

    def vmap(
        self, size: int, in_dims: Sequence[Any], which: Any, *flat: Any
    ) -> tuple[Sequence[Any], Callable[[Sequence[Tensor]], tuple[Tensor, ...]]]:
        """``flat`` with an axis in its batch, and how to take the results of :meth:`compute` apart again."""
        ...


class Replay(torch.autograd.Function):
    """Tensors that are differentiated through plain torch: ``(what, which, *flat)``."""

    @staticmethod
    def forward(what: Replayable, which: Any, *flat: Any) -> tuple[Tensor, ...]:
        results = what.compute(which, *flat)
        return tuple(handed_over(x) if any(x is y for y in flat) else x for x in results)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.what, ctx.which, *flat = inputs
        ctx.held = ctx.what.held(flat)
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
        if what.separate:
            return one_by_one(partial(applied, Replay), info.batch_size, in_dims, (what, which, *flat))
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
