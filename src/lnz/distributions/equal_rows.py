"""Equal rows of discrete data as one row and its weight: what a sum over rows costs is then the different ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class EqualRows(NamedTuple):
    """The different rows of data, in an order that depends on nothing else.

    Attributes:
        rows: ``int64 [U, N]``.
        weights: how often each counts, ``float64 [U]``.
        index: which of them each row of the data is, ``int64 [R]``.
    """

    rows: Tensor
    weights: Tensor
    index: Tensor


def equal_rows(data: Tensor, weights: Tensor | None = None) -> EqualRows:
    """Merge equal rows of integers ``data [R, N]``, which count ``weights [R]`` times, or once. O(R (N + log R))."""
    index = _numbered(data)
    count = int(index.max()) + 1 if len(index) else 0
    place = torch.arange(len(index), device=data.device)
    one = place.new_zeros(count).scatter_(0, index, place)
    each = torch.ones(len(index), dtype=torch.float64, device=data.device) if weights is None else weights.double()
    total = torch.zeros(count, dtype=torch.float64, device=data.device).index_add_(0, index, each.to(data.device))
    return EqualRows(data[one], total, index)


def mostly_equal(data: Tensor) -> bool:
    """Whether merging equal rows leaves three quarters of them at most."""
    return 4 * len(_hashes(data).unique()) <= 3 * len(data)


def _numbered(data: Tensor) -> Tensor:
    """The same number for equal rows, 0, 1, …, ``int64 [R]``; rows that share a hash are seen to differ."""
    index = _hashes(data).unique(return_inverse=True)[1]
    place = torch.arange(len(data), device=data.device)
    some = place.new_zeros(len(data)).scatter_(0, index, place)  # one row of each number
    if len(data) and not torch.equal(data[some[index]], data):
        index = data.unique(dim=0, return_inverse=True)[1]
    return index


def _hashes(data: Tensor) -> Tensor:
    """A random linear function of each row, modulo 2^64: ``int64 [R]``."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**63), 2**63 - 1, (data.shape[1],), generator=generator) | 1
    return (data @ factors) if data.is_cpu else (data * factors.to(data.device)).sum(-1)
