"""Sequences as their users have them, as one padded batch and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.checks import as_integers, check_lengths

Sequences = Any
"""A tensor or array ``[B, T, …]``; one sequence ``[T, …]``, or several below each other with ``lengths``; or a list."""


class Batch(NamedTuple):
    """B sequences, padded.

    Attributes:
        x: ``[B, T, …]``.
        lengths: ``int64 [B]``.
        form: how they were given: ``"padded"``, ``"listed"`` or ``"joined"`` below each other.
    """

    x: Tensor
    lengths: Tensor
    form: str

    def back(self, values: Tensor) -> Tensor | list[Tensor]:
        """``values [B, T, …]`` in the form in which the sequences were given."""
        if self.form == "padded":
            return values
        each = [row[:n] for row, n in zip(values, self.lengths.tolist(), strict=True)]
        return each if self.form == "listed" else torch.cat(each)


def as_batch(
    name: str, data: Sequences, lengths: Tensor | Sequence[int] | None, axes: int, dtype: torch.dtype
) -> Batch:
    """Sequences of observations with ``axes`` axes each; floating point ones as ``dtype``.

    Raises:
        TypeError, ValueError: what is none of the forms; lengths that do not add up.
    """
    if isinstance(data, list | tuple):
        if lengths is not None:
            raise ValueError(f"lengths: expected none beside a list of sequences, whose own count, in {name}")
        each = [_tensor(name, one, dtype) for one in data]
        return _padded(each, "listed")
    x = _tensor(name, data, dtype)
    if axes == 0 and x.dim() == 2 and x.shape[1] == 1 and lengths is not None and int(sum(lengths)) == len(x):
        x = x[:, 0]  # symbols as a column
    if x.dim() == axes + 1:
        sizes = [len(x)] if lengths is None else [int(n) for n in lengths]
        if sum(sizes) != len(x) or min(sizes, default=0) < 0:
            raise ValueError(f"lengths: expected numbers that add up to the {len(x)} rows of {name}, got {sizes[:8]}")
        return _padded(list(x.split(sizes)), "joined")
    if x.dim() != axes + 2:
        raise ValueError(
            f"{name}: expected sequences [B, T{', D' * axes}], or one [T{', D' * axes}], got shape {list(x.shape)}"
        )
    counts = torch.full((len(x),), x.shape[1]) if lengths is None else torch.as_tensor(lengths, dtype=torch.int64)
    return Batch(x, counts, "padded")


def _tensor(name: str, value: object, dtype: torch.dtype) -> Tensor:
    x = torch.as_tensor(value) if isinstance(value, np.ndarray | Tensor | list) else None
    if x is None:
        raise TypeError(f"{name}: expected tensors, arrays or lists, got {type(value).__name__}")
    return x.to(dtype) if x.is_floating_point() else x.long()


def _padded(each: list[Tensor], form: str) -> Batch:
    if not each:
        raise ValueError("expected at least one sequence, got none")
    x = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
    return Batch(x, torch.tensor([len(one) for one in each]), form)


def without_padding(x: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """``x`` with 0 over padding: NaN times a weight of 0 is NaN."""
    if lengths is None:
        return x
    lengths = as_integers("lengths", lengths, x.device)
    if x.shape[: lengths.dim()] != lengths.shape or x.dim() <= lengths.dim():
        raise ValueError(f"lengths: expected the batch shape of x {list(x.shape)}, got {list(lengths.shape)}")
    T = x.shape[lengths.dim()]
    check_lengths(lengths, T)
    outside = torch.arange(T, device=x.device) >= lengths.unsqueeze(-1)
    return x.masked_fill(outside.reshape(*outside.shape, *[1] * (x.dim() - outside.dim())), 0)
