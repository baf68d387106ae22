"""Forward mode of every op: the functions of :mod:`lnz.ops.scaffold.autograd` with a ``jvp``.

The derivative of a value along directions of the scores is its gradient times the direction (of ln Z: the direction's
expectation). Anything else is differentiated through its reference, whose Jacobian times a vector is the transpose of
the vector-Jacobian product, which is linear, so that no forward mode has to nest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.scaffold import autograd
from lnz.ops.scaffold.autograd import WITH_TANGENTS, Differentiable, _saved, applied, as_function


class Value(autograd.Value):
    """A value."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        flat = _saved(ctx)
        return expectation(ctx.op, flat, tangents[1 : 1 + ctx.op.scores]).to(flat[ctx.op._inputs].dtype)


class Replay(autograd.Replay):
    """What is differentiated through plain torch."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        flat = _saved(ctx)
        function, places = as_function(ctx.what, ctx.which, flat)
        inputs = [flat[i] for i in places]
        along = [torch.zeros_like(flat[i]) if tangents[2 + i] is None else tangents[2 + i] for i in places]
        outputs, pull = torch.func.vjp(function, *inputs)[:2]
        push = torch.func.vjp(pull, tuple(map(torch.zeros_like, outputs)))[1]
        return push(tuple(along))[0]  # type: ignore[arg-type]


WITH_TANGENTS |= {autograd.Value: Value, autograd.Replay: Replay}


def expectation(op: Differentiable[Any, Any], flat: list[Any], along: tuple[Tensor | None, ...]) -> Tensor:
    """Σ over scores of gradient · direction, per entry ``[B]``."""
    batch = len(flat[0])
    expanded = [x.expand(batch, *x.shape[1:]) for x in flat[: op.scores]]
    wanted = tuple(direction is not None for direction in along)
    found = iter(applied(autograd.Replay, op, wanted, None, *expanded, *flat[op.scores :]))
    products = [(next(found) * direction).flatten(1).sum(1) for direction in along if direction is not None]
    return torch.stack(products).sum(0)
