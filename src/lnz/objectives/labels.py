"""Gold labels in the form that the objectives work on: one label per node, completed where latent."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.distributions.base import StructuredDistribution
from lnz.distributions.linear_chain import LinearChain
from lnz.distributions.mrf import MRF
from lnz.distributions.softmax import Softmax
from lnz.typing import IGNORE


def as_nodes(p: StructuredDistribution, y: Tensor) -> tuple[StructuredDistribution, Tensor]:
    """The distribution with an event of nodes ``[N]``, and y with −100 at whatever is not gold, padding too."""
    if isinstance(p, Softmax):
        p._check(y)
        return p.to_mrf(), y.unsqueeze(-1)
    if isinstance(p, LinearChain):
        return p, p._checked(y)
    return p, y


def as_mrf(p: StructuredDistribution, y: Tensor) -> tuple[MRF, Tensor]:
    """The same model as an MRF, and y as its labelling: −100 only where latent.

    Raises:
        TypeError: a family that is no MRF.
    """
    if isinstance(p, MRF):
        return p, y
    if isinstance(p, Softmax):
        p._check(y)
        return p.to_mrf(), y.unsqueeze(-1)
    if isinstance(p, LinearChain):
        return p.to_mrf(), torch.where(p._inside, p._checked(y), 0)
    raise TypeError(f"{type(p).__name__} is no MRF, which samplers need; families that are: MRF, LinearChain, Softmax")


def completed_by_argmax(p: StructuredDistribution, gold: Tensor) -> Tensor:
    """``gold`` with its latent labels filled in as they score best, without gradient."""
    if not p._unobserved(gold).any():
        return gold
    with torch.no_grad():
        return torch.where(gold == IGNORE, p.condition(gold).argmax(), gold)
