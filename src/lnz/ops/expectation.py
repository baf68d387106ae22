"""Expectations of sums over parts, whose derivatives are covariances: what chains and semi-Markov chains share.

The kernels serve tensors on the CPU that nothing traces or transforms. A recursion in plain torch, of which they are
the fast form, gives the second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops import unobserved, use_kernels
from lnz.ops.jit.threads import side_by_side
from lnz.ops.jit.work import arrays
from lnz.ops.jit.work import shares_of as shares
from lnz.ops.precision import accumulator

_SHARED = 2**15  # pairs of labels from which threads share the work

Function = tuple[Tensor, Tensor] | None
"""Values of the parts, shaped as their scores; ``None`` stands for −ln P(y), whose expectation is the entropy."""


class Family(NamedTuple):
    """What an operation supplies.

    Attributes:
        kernels: imports its module of kernels, which has ``Inputs``, ``Function``, ``Gradient``, ``expectation`` and
            ``gradient``.
        reference: E[f] ``[B]`` from scores of the first kind, of edges, lengths and the function, differentiable twice.
        marginals: Σ grad_b · the marginals in the shapes of the values, from the same and ``grad [B]``; differentiable.
    """

    kernels: Callable[[], ModuleType]
    reference: Callable[[Tensor, Tensor, Tensor, Function], Tensor]
    marginals: Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]


def serves(*tensors: Tensor) -> bool:
    """Whether the kernels do, which take any floating point dtype: half precision in float32."""
    return use_kernels() and unobserved(*tensors)


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
        return _value(family, part, edge, lengths, None if u is None or v is None else (u, v))

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
        return _gradient(family, part, edge, lengths, function, grad)
    wide = accumulator(part)
    values = None if function is None else (function[0].to(wide), function[1].to(wide))
    _, pull = torch.func.vjp(lambda x, a: family.reference(x.to(wide), a.to(wide), lengths, values), part, edge)[:2]
    return pull(grad.to(wide))


def _given(
    family: Family, part: Tensor, edge: Tensor, lengths: Tensor, function: Function
) -> tuple[Any, Any, list[tuple[int, int]]]:
    """Arguments of the kernels, and the ranges of the batch that threads share."""
    kernels, dtype = family.kernels(), torch.float64  # in which they compute: they need not be compiled for others
    scores = part.to(dtype), edge.to(dtype)
    values = scores if function is None else (function[0].to(dtype), function[1].to(dtype))
    B, threads = len(part), torch.get_num_threads() if part.numel() * part.shape[-1] >= _SHARED else 1
    inputs = kernels.Inputs(*arrays(*scores, lengths))
    return inputs, kernels.Function(function is None, *arrays(*values)), list(shares(B, threads)) if B else []


def _value(family: Family, part: Tensor, edge: Tensor, lengths: Tensor, function: Function) -> Tensor:
    inputs, values, parts = _given(family, part, edge, lengths, function)
    total = torch.empty(len(part), dtype=torch.float64)
    run, out = family.kernels().expectation, total.numpy()

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: run(inputs, values, first, last, out)

    side_by_side([task(*span) for span in parts])
    return total


def _gradient(
    family: Family, part: Tensor, edge: Tensor, lengths: Tensor, function: Function, grad: Tensor
) -> tuple[Tensor, Tensor]:
    inputs, values, parts = _given(family, part, edge, lengths, function)
    at_part, shared = np.empty_like(inputs[0]), len(edge) == 1  # then every thread adds up a table of its own
    tables = np.zeros((len(parts) if shared else 1, *edge.shape))
    kernels, weight = family.kernels(), grad.contiguous().numpy()

    def task(k: int, first: int, last: int) -> Callable[[], None]:
        result = kernels.Gradient(weight, at_part, tables[k if shared else 0])
        return lambda: kernels.gradient(inputs, values, first, last, result)

    side_by_side([task(k, *span) for k, span in enumerate(parts)])
    return torch.from_numpy(at_part).to(part.dtype), torch.from_numpy(tables.sum(0)).to(edge.dtype)
