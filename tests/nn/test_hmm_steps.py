"""The E step of hidden Markov models is the gradient of the evidence, and densities are right wherever means lie."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, distributions

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel
from tests.suite import equal, random_scores

DOUBLE = torch.float64


def gradient(p: lnz.HMM) -> list[Tensor]:
    leaves = [scores.detach().clone().requires_grad_() for scores in p.scores]
    evidence = lnz.HMM(*leaves, lengths=p.lengths, validate_args=False).log_evidence
    return list(torch.autograd.grad(evidence.sum(), leaves))


@pytest.mark.parametrize("lengths", [None, [5, 0, 1]])
@pytest.mark.parametrize("tables", [(3, 3), (4, 3, 3), (3, 4, 3, 3)])
@pytest.mark.parametrize("first", [(3,), (3, 3)])
@pytest.mark.parametrize("scale", [1.0, 400.0])
def test_expected_counts_are_the_gradient_of_the_evidence(
    lengths: list[int] | None, tables: tuple[int, ...], first: tuple[int, ...], scale: float
) -> None:
    """Also of scores of a range that the kernels leave to logarithms, and of tables with zeros."""
    transition = (scale * random_scores(tables, 1)).log_softmax(-1)
    transition[..., 0, 2] = -torch.inf
    p = lnz.HMM(
        random_scores(first, 0).log_softmax(-1),
        transition.log_softmax(-1),
        scale * random_scores((3, 5, 3), 2),
        None if lengths is None else torch.tensor(lengths),
    )
    for found, wanted in zip(p.expected_counts(), gradient(p), strict=True):
        assert found.shape == wanted.shape
        assert not found.requires_grad
        equal(found, wanted)


def test_expected_counts_of_sequences_of_no_step_and_of_one() -> None:
    for steps in (0, 1):
        p = lnz.HMM(torch.zeros(2).log_softmax(-1), torch.zeros(2, 2).log_softmax(-1), torch.zeros(3, steps, 2))
        initial, transition, states = p.expected_counts()
        assert initial.sum() == 3 * steps
        assert not transition.any()
        assert states.shape == (3, steps, 2)


def test_symbols_are_counted_where_they_are_seen() -> None:
    logits = random_scores((2, 3), 0)
    x = torch.tensor([[0, 1, -100, 2], [2, 2, 1, 0]])
    emission = CategoricalEmission(logits)
    table = logits.log_softmax(-1)
    for b, row in enumerate(x.tolist()):
        for t, symbol in enumerate(row):
            equal(emission(x)[b, t], torch.zeros(2, dtype=DOUBLE) if symbol < 0 else table[:, symbol])
    weights = torch.rand(2, 4, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    emission.maximise(x, weights, 0.0)
    counts = torch.stack([weights[x == symbol].sum(0) for symbol in range(3)], 1)
    equal(emission.logits.exp(), counts / counts.sum(1, keepdim=True))


@pytest.mark.parametrize("form", ["diagonal", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1e6, 1.0), (0.0, 1e3), (1e8, 1e-3), (0.0, 1e-6)])
def test_densities_are_right_wherever_means_lie(form: str, dtype: torch.dtype, offset: float, spread: float) -> None:
    """``spread`` is how far means are apart, in standard deviations; ``offset`` that of all of them from 0."""
    mean = offset + spread * random_scores((3, 2), 0).to(dtype)
    root = torch.eye(2) + 0.3 * random_scores((3, 2, 2), 1).tril(-1)
    full = (root @ root.mT).to(dtype)
    covariance = full if form == "full" else full.diagonal(dim1=-2, dim2=-1)
    x = mean[torch.tensor([[0, 1, 2, 0, 1]])] + random_scores((1, 5, 2), 2).to(dtype)
    found = GaussianEmission(mean, covariance)(x).detach()
    wanted = distributions.MultivariateNormal(
        mean.double(), full.double() if form == "full" else covariance.double().diag_embed()
    ).log_prob(x.double().unsqueeze(-2))
    digits = 1e-10 if dtype == DOUBLE else 1e-4
    assert ((found.double() - wanted).abs() <= digits * (1 + wanted.abs())).all()


@pytest.mark.parametrize("form", ["diagonal", "full"])
@pytest.mark.parametrize("shape", [(0, 2), (3, 0, 2), (2,)])
def test_densities_of_no_observation_and_of_one(form: str, shape: tuple[int, ...]) -> None:
    mean = torch.zeros(4, 2, dtype=DOUBLE)
    emission = GaussianEmission(mean, torch.eye(2, dtype=DOUBLE).repeat(4, 1, 1) if form == "full" else None)
    found = emission(torch.zeros(shape, dtype=DOUBLE))
    assert found.shape == (*shape[:-1], 4)
    equal(found, torch.full_like(found, -math.log(2 * math.pi)))


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_gradients_of_densities(form: str) -> None:
    mean, x = random_scores((2, 3), 0), random_scores((4, 3), 1)
    covariance = torch.ones(2, 3, dtype=DOUBLE) if form == "diagonal" else torch.eye(3, dtype=DOUBLE).repeat(2, 1, 1)
    emission = GaussianEmission(mean, covariance)
    names = [name for name, _ in emission.named_parameters()]

    def density(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(emission, dict(zip(names, values, strict=True)), (x,))

    values = [value.detach().clone().requires_grad_() for value in emission.parameters()]
    assert torch.autograd.gradcheck(density, (x.requires_grad_(), *values))
    assert torch.autograd.gradgradcheck(density, (x, *values))


@pytest.mark.parametrize("far", [math.inf, 1e200])
def test_observations_beyond_all_numbers_have_probability_0(far: float) -> None:
    model = HiddenMarkovModel(
        torch.zeros(2, dtype=DOUBLE), torch.zeros(2, 2, dtype=DOUBLE), GaussianEmission(torch.eye(2, dtype=DOUBLE))
    )
    with pytest.raises(lnz.InfeasibleError, match=r"observations of probability 0 .*\[1\]"):
        model.e_step(torch.tensor([[[0.0, 1.0]], [[far, 0.0]]], dtype=DOUBLE))
