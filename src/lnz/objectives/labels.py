"""Gold labels in the form that the objectives work on: one label per node, completed where latent."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.distributions.base import StructuredDistribution
from lnz.distributions.mrf import MRF
from lnz.errors import InfeasibleError
from lnz.objectives.reduction import impossible
from lnz.typing import IGNORE


def as_nodes(p: StructuredDistribution, y: Tensor) -> tuple[StructuredDistribution, Tensor]:
    """The distribution with an event of nodes ``[N]``, and y with −100 at whatever is not gold, padding too.

    Raises:
        TypeError: p is no distribution with scores of single labels, or y no int64 tensor.
        ValueError: y of a wrong shape, or labels out of range.
    """
    check_single_labels(p)
    y = p.labelling(y)
    return (p, y) if p.event_shape else (p.to_mrf(), y.unsqueeze(-1))


def check_single_labels(p: object) -> None:
    """Raise unless ``p`` is a structured distribution with scores of single labels."""
    if not isinstance(p, StructuredDistribution):
        families = "MRF, LinearChain, HMM, SecondOrderChain or Softmax"
        raise TypeError(f"p: expected {families}, which have scores of single labels, got {type(p).__name__}")
    _ = p.num_labels  # raises where there are none


def as_mrf(p: StructuredDistribution, y: Tensor) -> tuple[MRF, Tensor]:
    """The same model as an MRF, and y as its labelling: −100 only where latent.

    Raises:
        TypeError: a family that is no MRF.
    """
    check_single_labels(p)
    mrf, y = p.to_mrf(), p.labelling(y)
    y = y if p.inside is None else torch.where(p.inside, y, 0)  # the one label that padding has there
    return mrf, y if p.event_shape else y.unsqueeze(-1)


def completed_by_argmax(p: StructuredDistribution, gold: Tensor) -> Tensor:
    """``gold`` with its latent labels filled in as they score best, without gradient.

    Raises:
        InfeasibleError: no labelling of finite score agrees with gold, naming the batch entries.
    """
    if not p._unobserved(gold).any():
        return gold
    with torch.no_grad():
        try:
            best = p.condition(gold).argmax()
        except InfeasibleError as error:
            raise impossible(error.entries) from error
        return torch.where(gold == IGNORE, best, gold)
