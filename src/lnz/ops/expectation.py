"""Expectations of sums over parts, whose derivatives are covariances: what chains and semi-Markov chains share.

Kernels serve tensors that nothing traces or transforms. A recursion in plain torch, of which they are the fast form,
gives the second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels, is_eager
from lnz.ops.precision import accumulator

Function = tuple[Tensor, Tensor] | None
"""Values of the parts, shaped as their scores; ``None`` stands for −ln P(y), whose expectation is the entropy."""


class Family(NamedTuple):
    """What an operation supplies.

    Attributes:
        kernels: its backends, with the verbs ``expectation(part, edge, lengths, function)``, E[f] ``[B]`` in float64,
            and ``covariances(part, edge, lengths, function, grad)``, its gradients by the scores, of any dtype.
        reference: E[f] ``[B]`` from scores of the first kind, of edges, lengths and the function, differentiable twice.
        marginals: Σ grad_b · the marginals in the shapes of the values, from the same and ``grad [B]``; differentiable.
    """

    kernels: Kernels
    reference: Callable[[Tensor, Tensor, Tensor, Function], Tensor]
    marginals: Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]


def serves(family: Family, *tensors: Tensor) -> bool:
    """Whether kernels do, which take any floating point dtype, and compute in float64."""
    if not is_eager(*tensors):
        return False
    single = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)
    return family.kernels.find("expectation", *single) is not None


def _kernel(family: Family, verb: str, part: Tensor) -> Callable[..., Any]:
    found = family.kernels.find(verb, part.to(torch.promote_types(part.dtype, torch.float32)))
    assert found is not None, "expected what serves says"
    return found


def expected(family: Family, part: Tensor, edge: Tensor, lengths: Tensor, function: Function) -> Tensor:
    """E[f] ``[B]`` in float64, by the kernels; differentiable.

    Args:
        family: the operation.
        part: scores of nodes or segments, ``[B, T, …, L]``.
        edge: ``[B or 1, S, L, L]``.
        lengths: ``[B]``.
        function: finite.
    """
    values = (None, None) if function is None else function
    return Expectation.apply(family, part, edge, lengths, *values)  # type: ignore[return-value]


class Expectation(torch.autograd.Function):
    """:func:`expected`: by the scores its gradient is the covariances with each part, by the function the marginals."""

    @staticmethod
    def forward(
        ctx: Any, family: Family, part: Tensor, edge: Tensor, lengths: Tensor, u: Tensor | None, v: Tensor | None
    ) -> Tensor:
        ctx.family = family
        ctx.save_for_backward(part, edge, lengths, u, v)
        function = None if u is None or v is None else (u, v)
        return _kernel(family, "expectation", part)(part, edge, lengths, function)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        part, edge, lengths, u, v = ctx.saved_tensors
        function = None if u is None else (u, v)
        of_scores = of_function = (None, None)
        if any(ctx.needs_input_grad[1:3]):
            of_scores = _covariances(ctx.family, part, edge, lengths, function, grad)
        if function is not None and any(ctx.needs_input_grad[4:]):
            of_function = ctx.family.marginals(part, edge, lengths, function, grad.to(part.dtype))
        return None, *of_scores, None, *of_function


def _covariances(
    family: Family, part: Tensor, edge: Tensor, lengths: Tensor, function: Function, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """grad · the covariances with every part, summed to the shapes of the scores; differentiable."""
    if not torch.is_grad_enabled():
        return _kernel(family, "covariances", part)(part, edge, lengths, function, grad)
    wide = accumulator(part)
    values = None if function is None else (function[0].to(wide), function[1].to(wide))
    _, pull = torch.func.vjp(lambda x, a: family.reference(x.to(wide), a.to(wide), lengths, values), part, edge)[:2]
    return pull(grad.to(wide))


def surprisal(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Σ P (−ln Q) over the last axis where Q > 0, and Σ P where Q = 0, a constant."""
    impossible = torch.isneginf(log_q)
    weight = log_p.exp()
    value = -(weight * log_q.masked_fill(impossible, 0.0)).sum(-1)
    return value, (weight.detach() * impossible).sum(-1)
