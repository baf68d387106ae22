"""Forward mode of every op: the functions of :mod:`lnz.ops.scaffold.autograd` with a ``jvp``.

The derivative of a value along directions of the scores is its gradient times the direction. Anything else is
differentiated through its reference, whose Jacobian times a vector is the transpose of the vector–Jacobian product,
which is linear, so that no forward mode has to nest.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.scaffold import autograd
from lnz.ops.scaffold.autograd import WITH_TANGENTS, _saved, as_function


class Value(autograd.Value):
    """What a pass has computed."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        return ctx.op.push_forward(_saved(ctx), tangents[1 : 1 + ctx.op.scores])


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
