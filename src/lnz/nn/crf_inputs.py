"""What a CRF layer is given beside scores: masks and label sets, checked, and the order of the steps in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import check_tensor, concrete
from lnz.errors import InfeasibleError


def as_switches(name: str, given: Tensor, shape: Sequence[int]) -> Tensor:
    """``given`` as bool; raises where it has another shape or holds anything but 0 and 1."""
    check_tensor(name, given)
    if given.shape != torch.Size(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(given.shape)}")
    if given.dtype == torch.bool:
        return given
    on = given == 1
    if concrete(given) and not (on | (given == 0)).all():
        where = (~(on | (given == 0))).nonzero()[0].tolist()
        raise ValueError(f"{name}: expected bool, or 0 and 1, got {given[tuple(where)].item()} at {where}")
    return on


def check_sets(allowed: Tensor, mask: Tensor | None) -> None:
    """Raise unless every step of the ``mask`` has a tag that is ``allowed [B, T, L]``; batch first."""
    empty = ~allowed.any(2)
    empty = empty if mask is None else empty & mask
    if concrete(empty) and empty.any():
        sentence, step = empty.nonzero()[0].tolist()
        raise InfeasibleError(
            f"allowed: expected a tag at every step of the mask, got none in sentence {sentence}, step {step}",
            entries=empty.any(1).nonzero().flatten().tolist(),
        )


def order_of(mask: Tensor | None) -> Tensor | None:
    """The steps of the mask, then the others, ``[B, T]``; None where they are known to be in this order already."""
    if mask is None or (concrete(mask) and not (mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    return mask.int().argsort(dim=1, descending=True, stable=True)


def in_place(values: Tensor, order: Tensor | None) -> Tensor:
    """``values [B, T, …]`` of ordered steps at the steps themselves."""
    if order is None:
        return values
    at = order.reshape(*order.shape, *[1] * (values.dim() - 2)).expand_as(values)
    return torch.zeros_like(values).scatter(1, at, values)


def as_lists(labels: Tensor, lengths: Tensor | None) -> list[list[int]]:
    """The first ``lengths [B]`` of each row of ``labels [B, T]``."""
    rows = labels.tolist()
    return rows if lengths is None else [row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)]
