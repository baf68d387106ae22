"""Networks whose tables are computed from inputs: evidence by enumeration, generalised EM and the gradient, checks."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import lnz
from lnz.nn import NeuralBayesNet
from tests.suite import equal, random_scores

CARDS, PARENTS = [2, 3, 2], [[], [0], [0, 1]]


class Tables(nn.Module):
    """The first table depends on the inputs, the second too, the third is shared."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 6)
        self.third = nn.Parameter(torch.randn(2, 3, 2))
        self.double()

    def forward(self, inputs: Tensor) -> list[Tensor]:
        return [self.first(inputs), self.second(inputs).unflatten(-1, (2, 3)), self.third]


def model(seed: int = 0) -> NeuralBayesNet:
    return NeuralBayesNet(Tables(seed), CARDS, PARENTS)


def observations(rows: int) -> tuple[Tensor, Tensor]:
    inputs = random_scores((rows, 2), 1)
    generator = torch.Generator().manual_seed(0)
    data = model(5)(2 * inputs).sample(generator=generator)
    return data.masked_fill(torch.rand(data.shape, generator=generator) < 0.3, -100), inputs


@torch.no_grad()
def test_evidence_sums_over_what_is_missing() -> None:
    data, inputs = observations(12)
    found = model()(inputs).log_prob(data)
    tables = [logits.log_softmax(-1) for logits in model().network(inputs)]
    for r, row in enumerate(data.tolist()):
        total = []
        for a, b, c in itertools.product(range(2), range(3), range(2)):
            if all(seen in (-100, state) for seen, state in zip(row, (a, b, c), strict=True)):
                total.append(tables[0][r, a] + tables[1][r, a, b] + tables[2][a, b, c])
        equal(found[r], torch.stack(total).logsumexp(0))


def test_generalised_em_rises_to_where_the_gradient_is_0() -> None:
    data, inputs = observations(150)
    net = model().fit(data, inputs, max_iterations=400, tolerance=1e-12)
    result = net.training_result
    assert result is not None
    assert result.model is net
    assert (torch.tensor(result.log_evidence).diff() >= -1e-9 * abs(result.log_evidence[0])).all()
    evidence = net(inputs).log_prob(data).sum()
    assert evidence.item() == pytest.approx(result.log_evidence[-1])
    gradients = torch.autograd.grad(evidence, list(net.parameters()))
    assert max(gradient.abs().max() for gradient in gradients) < 0.05
    assert (result.parameters, result.observations) == (6 + 18 + 12, 150)
    again = model().fit(data, inputs, max_iterations=5, restarts=3, generator=torch.Generator().manual_seed(0))
    assert again.training_result is not None
    assert len(again.training_result.starts) == 3


def test_weights_are_counts_of_rows_and_float32_serves() -> None:
    data, inputs = observations(20)
    weights = torch.randint(1, 4, (20,), generator=torch.Generator().manual_seed(0))
    one = model().fit(data, inputs, weights=weights.double(), max_iterations=3)
    two = model().fit(data.repeat_interleave(weights, 0), inputs.repeat_interleave(weights, 0), max_iterations=3)
    assert one.training_result is not None
    assert two.training_result is not None
    assert one.training_result.log_evidence == pytest.approx(two.training_result.log_evidence, rel=1e-6)
    single = model().float().fit(data, inputs.float(), weights=weights, max_iterations=3)
    assert single.training_result is not None
    assert single.training_result.log_evidence == pytest.approx(one.training_result.log_evidence, rel=1e-4)
    assert {each.dtype for each in single.parameters()} == {torch.float32}


def test_arguments_that_make_no_sense() -> None:
    data, inputs = observations(4)
    with pytest.raises(ValueError, match="inputs: expected 4, one per row of data, got 3"):
        model().fit(data, inputs[:3])
    with pytest.raises(ValueError, match=r"log_cpts\[1\]: expected shape \[\*batch, 2, 2\], of parents \[0\]"):
        NeuralBayesNet(Tables(), [2, 2, 2], PARENTS)(inputs)
    sure = model()
    sure.network.third.data[..., 0] = -torch.inf
    with pytest.raises(lnz.InfeasibleError, match=r"rows \[0\]"):
        sure.fit(torch.tensor([[-100, -100, 0]]), inputs[:1])
