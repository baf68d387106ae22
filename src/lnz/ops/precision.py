"""The precision ladder: the dtype of the scores, then float64, then logarithms, for each batch entry as far as it must.

Kernels work in the exponential domain, which is fast and has a limited range. They say per entry whether everything
stayed *in range*; an entry that did not is computed again on the next rung, and nothing else is. An op says how to run
a rung; :func:`climb` selects, runs and writes back.

The last rung works in logarithms and serves any finite scores, −inf, and passes NaN on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lnz.ops.scaffold.batch import select

Inputs = TypeVar("Inputs", bound=tuple[Any, ...])  # a named tuple
Results = tuple[Tensor, ...]

OWN, DOUBLE, LOGARITHMS = 0, 1, 2
"""The rungs, as :func:`climb` reports them."""


def accumulator(scores: Tensor) -> torch.dtype:
    """The dtype for a reference to run in: the rounding errors of anything less than float64 add up over the steps."""
    return torch.float32 if scores.device.type == "mps" else torch.float64


def astype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The same inputs with all floating point tensors in ``dtype``."""
    convert = (x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
    return inputs._make(convert)  # type: ignore[attr-defined]


def entries(inputs: Inputs, which: Tensor, axes: Sequence[int] = ()) -> Inputs:
    """Some batch entries of all tensors, along their first axis or ``axes``."""
    at = (*axes, *(0,) * (len(inputs) - len(axes)))
    selected = (select(x, which, axis) if isinstance(x, Tensor) else x for x, axis in zip(inputs, at, strict=True))
    return inputs._make(selected)  # type: ignore[attr-defined]


class Climbed(NamedTuple):
    """Results in the dtypes of the first rung.

    Attributes:
        results: of all entries.
        rung: uint8 ``[B]``, the rung that each entry took: ``OWN``, ``DOUBLE`` or ``LOGARITHMS``.
    """

    results: Results
    rung: Tensor


def climb(
    inputs: Inputs,
    kernel: Callable[[Inputs], tuple[Results, Tensor]],
    double: Callable[[Inputs], tuple[Results, Tensor]] | None,
    logarithms: Callable[[Inputs], Results],
    *,
    inputs_at: Sequence[int] = (),
    results_at: Sequence[int] = (),
) -> Climbed:
    """Run ``kernel`` on all entries, ``double`` on those that left the range, and ``logarithms`` on the rest.

    Args:
        inputs: a named tuple of batched tensors; those of batch size 1 are shared.
        kernel: from inputs to results, and which entries came out in range, bool ``[B]``; the results of others are
            overwritten. Results may be float64 whatever the inputs are.
        double: the same from inputs in float64; ``None`` where that is what the kernel has been given.
        logarithms: from inputs to results; serves every entry. Results that a rung above the first leaves out, at the
            end, are 0 for its entries.
        inputs_at: the batch axes of the inputs, where they are not all 0.
        results_at: the batch axes of the results, where they are not all 0.
    """
    results, in_range = kernel(inputs)
    rung = torch.zeros(in_range.shape, dtype=torch.uint8, device=in_range.device)
    if in_range.all():
        return Climbed(results, rung)
    left = (~in_range).nonzero()[:, 0]
    if double is not None:
        better, in_range = double(astype(entries(inputs, left, inputs_at), torch.float64))
        _write(results, better, left, results_at)
        rung[left] = DOUBLE
        left = left[~in_range]
    if len(left):
        _write(results, logarithms(entries(inputs, left, inputs_at)), left, results_at)
        rung[left] = LOGARITHMS
    return Climbed(results, rung)


def rungs_above(rung: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each rung above the first that :func:`climb` reports, with its entries."""
    if rung.any():
        for above in (DOUBLE, LOGARITHMS):
            which = (rung == above).nonzero()[:, 0]
            if len(which):
                yield above, which


def _write(results: Results, better: Results, which: Tensor, axes: Sequence[int]) -> None:
    at = (*axes, *(0,) * (len(results) - len(axes)))
    for i, (old, axis) in enumerate(zip(results, at, strict=True)):
        if i < len(better):
            old.index_copy_(axis, which, better[i].to(old.dtype))
        else:
            old.index_fill_(axis, which, 0)
