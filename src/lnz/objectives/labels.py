"""Gold labels in the form that the objectives work on: one label per node, completed where latent."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import check_tensor
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.hmm import HMM
from lnz.distributions.linear_chain import LinearChain
from lnz.distributions.mrf import MRF
from lnz.distributions.second_order_chain import SecondOrderChain
from lnz.distributions.softmax import Softmax
from lnz.errors import InfeasibleError
from lnz.objectives.reduction import impossible
from lnz.scores import as_labelling
from lnz.typing import IGNORE


def as_nodes(p: StructuredDistribution, y: Tensor) -> tuple[StructuredDistribution, Tensor]:
    """The distribution with an event of nodes ``[N]``, and y with −100 at whatever is not gold, padding too.

    Raises:
        TypeError: p is no distribution with scores of single labels, or y no int64 tensor.
        ValueError: y of a wrong shape, or labels out of range.
    """
    check_single_labels(p)
    check_tensor("y", y)
    if isinstance(p, Softmax):
        return p.to_mrf(), p._checked(y).unsqueeze(-1)
    if isinstance(p, MRF):
        return p, as_labelling("y", p.graph, y, p.batch_shape)
    chain = p._chain if isinstance(p, HMM) else p._first_order if isinstance(p, SecondOrderChain) else p
    if isinstance(chain, LinearChain):
        return p, chain._checked(y)
    p._unobserved(y)  # checks
    return p, y


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
    if isinstance(p, MRF):
        return p, as_labelling("y", p.graph, y, p.batch_shape)
    if isinstance(p, Softmax):
        return p.to_mrf(), p._checked(y).unsqueeze(-1)
    if isinstance(p, LinearChain):
        return p.to_mrf(), torch.where(p._inside, p._checked(y), 0)
    raise TypeError(f"{type(p).__name__} is no MRF, which samplers need; families that are: MRF, LinearChain, Softmax")


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
