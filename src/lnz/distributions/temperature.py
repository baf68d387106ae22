"""Temperatures, which scores are divided by: a number, or one per batch entry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.checks import check_broadcast, check_positive, concrete


def check_temperature(temperature: float | Tensor, batch_shape: Sequence[int]) -> None:
    """Raise unless it is a positive number, or a tensor of those whose shape broadcasts with ``batch_shape``."""
    if isinstance(temperature, Tensor):
        check_broadcast("temperature", temperature.shape, batch_shape)
        if concrete(temperature) and not (temperature > 0).all():
            where = (~(temperature > 0)).nonzero()[0].tolist()
            got = temperature[tuple(where)].item()
            raise ValueError(f"temperature: expected positive numbers, got {got} at {where}")
    else:
        check_positive("temperature", temperature)


def check_temperatures(temperatures: Sequence[float], parts: int) -> None:
    """Raise unless they are as many positive numbers as there are parts of the scores."""
    if len(temperatures) != parts:
        raise ValueError(f"temperature: expected one for each of {parts} parts of the scores, got {len(temperatures)}")
    for temperature in temperatures:
        check_positive("temperature", temperature)


def divided(scores: Tensor, temperature: float | Tensor, axes: int) -> Tensor:
    """``scores [*batch, …]``, of ``axes`` axes behind those of the batch, by the temperature of each batch entry."""
    if not isinstance(temperature, Tensor):
        return scores / temperature
    temperature = temperature.to(scores.dtype).reshape((*temperature.shape, *(1,) * (axes if temperature.dim() else 0)))
    impossible = torch.isneginf(scores)  # kept out of the quotient: 0 · −inf would be the temperature's gradient
    return (scores.masked_fill(impossible, 0.0) / temperature).masked_fill(impossible, -torch.inf)
