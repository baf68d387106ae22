"""One batch entry of a model as its kernel reads it: views of the scores as given, nothing expanded."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lnz.scores import Model


def batch_indices(model: Model) -> list[tuple[int, ...]]:
    """The index of every batch entry, in flat order."""
    return list(itertools.product(*map(range, model.batch_shape)))


def image_of(tensor: Tensor, event: int, index: tuple[int, ...]) -> Tensor:
    """The view of ``tensor [*own batch, *event]`` that batch entry ``index`` reads; ``event`` counts dimensions."""
    own = tensor.shape[: max(0, tensor.dim() - event)]
    return tensor[tuple(i if size > 1 else 0 for i, size in zip(index[len(index) - len(own) :], own, strict=True))]


def key_from(generator: torch.Generator | None) -> Tensor:
    """A key of Philox, two times 32 bits in ``int64 [2]``."""
    device = None if generator is None else generator.device
    drawn = int(torch.randint(2**62, (), generator=generator, device=device))
    return torch.tensor([drawn % 2**32, drawn >> 32])
