"""Small networks that several tests ask."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

import lnz
from tests.suite import random_scores


def network(seed: int = 0, batch: tuple[int, ...] = ()) -> lnz.BayesNet:
    """Five variables, one collider and one loop."""
    cards, parents = [2, 3, 2, 2, 3], [[], [0], [0], [1, 2], [3]]
    tables = [
        random_scores((*batch, *(cards[n] for n in (*above, v))), seed + v).log_softmax(-1)
        for v, above in enumerate(parents)
    ]
    return lnz.BayesNet(cards, parents, tables, names=list("abcde"))


def rows_of(net: lnz.BayesNet) -> Tensor:
    return torch.tensor(list(itertools.product(*map(range, net.cardinalities))))


def holes(net: lnz.BayesNet, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    y = net.sample((count,), generator=generator)
    return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.4, -100)


def sure() -> lnz.BayesNet:
    """The second variable is the first, which is always 0."""
    tables = [torch.tensor([1.0, 0.0]).log(), torch.eye(2).log()]
    return lnz.BayesNet([2, 2], [[], [0]], tables, names=["rain", "wet"], states=[["no", "yes"]] * 2)
