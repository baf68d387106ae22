"""Everything answers under ``torch.inference_mode``, as trainers validate, with kernels on several threads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference import (
    TRWS,
    BeliefPropagation,
    Gibbs,
    IteratedConditionalModes,
    MeanField,
    Method,
    SimulatedAnnealing,
    TreeReweighted,
)

METHODS = [
    BeliefPropagation(5, tolerance=0.0),
    TreeReweighted(5, tolerance=0.0),
    MeanField(5, tolerance=0.0),
    MeanField(5, tolerance=0.0, schedule="parallel"),
]
MODES = [TRWS(max_iterations=3), IteratedConditionalModes(), SimulatedAnnealing(5), BeliefPropagation(5, tolerance=0.0)]


@pytest.fixture(autouse=True)
def several_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def grid(method: Method) -> lnz.MRF:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 24 * 24, 4, generator=generator), torch.eye(4) * 0.3
    return lnz.MRF(lnz.FactorGraph.grid(24, 24, 4), scores, method)


def same(answer: Callable[[], tuple[Tensor, ...]]) -> None:
    expected = answer()
    with torch.inference_mode():
        for one, other in zip(answer(), expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{type(method).__name__} {method.schedule}"
                         if isinstance(method, MeanField) else type(method).__name__)  # fmt: skip
def test_marginals(method: Method) -> None:
    same(lambda: (grid(method).log_partition, grid(method).node_marginals))


@pytest.mark.parametrize("method", MODES, ids=lambda method: type(method).__name__)
def test_best_labellings(method: Method) -> None:
    same(lambda: (grid(method).argmax(),))


def test_samples() -> None:
    def drawn() -> tuple[Tensor]:
        return (grid(Gibbs(warmup=3)).sample((4,), generator=torch.Generator().manual_seed(1)),)

    same(drawn)


def test_sequences() -> None:
    scores = torch.randn(8, 50, 12, generator=torch.Generator().manual_seed(0))
    chain = lnz.LinearChain(scores, scores[0, :12, :12])
    targets = torch.randint(1, 12, (8, 10), generator=torch.Generator().manual_seed(1))
    same(lambda: (lnz.LinearChain(*chain.scores).log_partition, lnz.LinearChain(*chain.scores).node_marginals))
    same(lambda: (lnz.LinearChain(*chain.scores).argmax(), lnz.CTC(scores).log_prob(targets)))
    same(lambda: (lnz.CTC(scores).alignments(targets).argmax(),))
    joint = scores[:, :, None] + scores[:, None, :11]  # [8, 50, 11, 12]
    same(lambda: (lnz.Transducer(joint).log_prob(targets), lnz.Transducer(joint).alignments(targets).argmax()))
