"""What every family says of an argument that makes no sense, whoever checks it."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.distributions import StructuredDistribution

EDGES = torch.zeros(3, 3)
CHAIN = lnz.LinearChain(torch.zeros(2, 4, 3), EDGES)
FAMILIES: dict[str, StructuredDistribution] = {
    "Softmax": lnz.Softmax(torch.zeros(2, 3)),
    "LinearChain": CHAIN,
    "SecondOrderChain": lnz.SecondOrderChain(torch.zeros(2, 4, 3), EDGES, torch.zeros(3, 3, 3)),
    "SemiMarkov": lnz.SemiMarkov(torch.zeros(2, 4, 2, 3), EDGES),
    "ConstituencyTree": lnz.ConstituencyTree(torch.zeros(2, 4, 4, 3)),
    "PCFG": lnz.PCFG(torch.zeros(2), torch.zeros(2, 4, 4), torch.zeros(3, 4, 2)),
    "HMM": lnz.HMM(EDGES[0].log_softmax(-1), EDGES.log_softmax(-1), torch.zeros(2, 4, 3)),
    "MRF": CHAIN.to_mrf(),
    "CTCAlignments": lnz.CTC(torch.zeros(2, 4, 3)).alignments(torch.tensor([1])),
    "TransducerAlignments": lnz.Transducer(torch.zeros(2, 4, 2, 3)).alignments(torch.tensor([1])),
}
families = pytest.mark.parametrize("p", FAMILIES.values(), ids=FAMILIES)


@families
@pytest.mark.parametrize(("k", "error"), [(1.5, ValueError), ("3", TypeError), (None, TypeError)])
def test_k_that_is_no_integer(p: StructuredDistribution, k: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"k: expected a positive integer, got {k!r}"):
        p.topk(k)  # type: ignore[arg-type]


@families
@pytest.mark.parametrize("y", [[0], None])
def test_labellings_that_are_no_tensor(p: StructuredDistribution, y: object) -> None:
    for call in (p.log_prob, p.score, p.condition):
        with pytest.raises(TypeError, match=f"y: expected a torch.Tensor, got {type(y).__name__}"):
            call(y)  # type: ignore[arg-type]
