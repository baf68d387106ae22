"""Distributions over sequences of other lengths cannot be compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.distributions import kl_divergence

import lnz
from lnz.distributions import StructuredDistribution
from tests.suite import equal, random_scores

NODE, EDGE, TRIPLE = random_scores((2, 4, 3), 0), random_scores((3, 3), 1), random_scores((3, 3, 3), 2)
SEGMENT = random_scores((2, 4, 2, 3), 3)

FAMILIES: dict[str, Callable[[torch.Tensor | None], StructuredDistribution]] = {
    "LinearChain": lambda lengths: lnz.LinearChain(NODE, EDGE, lengths),
    "SecondOrderChain": lambda lengths: lnz.SecondOrderChain(NODE, EDGE, TRIPLE, lengths),
    "HMM": lambda lengths: lnz.HMM(NODE[0, 0].log_softmax(-1), EDGE.log_softmax(-1), NODE, lengths),
    "SemiMarkov": lambda lengths: lnz.SemiMarkov(SEGMENT, EDGE, lengths),
    "PCFG": lambda lengths: lnz.PCFG(NODE[0, 0], random_scores((3, 6, 6), 5), NODE, lengths),
    "ConstituencyTree": lambda lengths: lnz.ConstituencyTree(random_scores((2, 4, 4, 3), 4), lengths),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_equal_lengths_only(family: str) -> None:
    build, lengths = FAMILIES[family], torch.tensor([4, 2])
    for other in (None, torch.tensor([4, 3]), torch.tensor(4)):
        got = 3 if other is not None and other.dim() else 4
        message = rf"expected two distributions over sequences of equal lengths, got 2 and {got} at \[1\]"
        with pytest.raises(ValueError, match=message):
            kl_divergence(build(lengths), build(other))
        with pytest.raises(ValueError, match="equal lengths"):
            build(other).cross_entropy(build(lengths))
    nothing = torch.zeros(2, dtype=torch.float64)
    equal(kl_divergence(build(lengths), build(lengths.clone())), nothing)
    equal(kl_divergence(build(None), build(torch.tensor(4))), nothing)  # all full, however it is said
