"""Calls into the kernels of expectations; see :mod:`lnz.ops.expectation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.ops.jit.threads import side_by_side
from lnz.ops.jit.work import arrays, shares_of

_SHARED = 2**15  # pairs of labels from which threads share the work

Function = tuple[Tensor, Tensor] | None


class Recursion(NamedTuple):
    """The kernels of an operation and the named tuples that they take.

    Attributes:
        inputs: of scores of parts, scores of edges, lengths.
        function: of whether it is −ln P(y), values of parts, values of edges.
        gradient: of the weight ``[B]``, and room for the gradients.
        value: ``(inputs, function, first, last, out)``.
        slopes: ``(inputs, function, first, last, gradient)``.
    """

    inputs: Callable[..., Any]
    function: Callable[..., Any]
    gradient: Callable[..., Any]
    value: Callable[..., None]
    slopes: Callable[..., None]


def expectation(kernels: Recursion, part: Tensor, edge: Tensor, lengths: Tensor, function: Function) -> Tensor:
    """E[f] ``[B]``, float64."""
    inputs, values, parts = _given(kernels, part, edge, lengths, function)
    total = torch.empty(len(part), dtype=torch.float64)
    out = total.numpy()

    def task(first: int, last: int) -> Callable[[], None]:
        return lambda: kernels.value(inputs, values, first, last, out)

    side_by_side([task(*span) for span in parts])
    return total


def covariances(
    kernels: Recursion, part: Tensor, edge: Tensor, lengths: Tensor, function: Function, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ_b grad_b ∂ E[f] / ∂ scores, in the shapes and dtypes of these."""
    inputs, values, parts = _given(kernels, part, edge, lengths, function)
    at_part, shared = np.empty_like(inputs[0]), len(edge) == 1  # then every thread adds up a table of its own
    tables = np.zeros((len(parts) if shared else 1, *edge.shape))
    weight = grad.contiguous().numpy()

    def task(k: int, first: int, last: int) -> Callable[[], None]:
        result = kernels.gradient(weight, at_part, tables[k if shared else 0])
        return lambda: kernels.slopes(inputs, values, first, last, result)

    side_by_side([task(k, *span) for k, span in enumerate(parts)])
    return torch.from_numpy(at_part).to(part.dtype), torch.from_numpy(tables.sum(0)).to(edge.dtype)


def _given(
    kernels: Recursion, part: Tensor, edge: Tensor, lengths: Tensor, function: Function
) -> tuple[Any, Any, list[tuple[int, int]]]:
    """Arguments of the kernels, and the ranges of the batch that threads share."""
    scores = part.double(), edge.double()  # in which they compute: they need not be compiled for others
    values = scores if function is None else (function[0].double(), function[1].double())
    threads = torch.get_num_threads() if part.numel() * part.shape[-1] >= _SHARED else 1
    inputs = kernels.inputs(*arrays(*scores, lengths))
    return inputs, kernels.function(function is None, *arrays(*values)), list(shares_of(len(part), threads))
