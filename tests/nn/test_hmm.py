"""HiddenMarkovModel and its emissions: densities, samples, structural zeros, checks. EM: with the objectives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MultivariateNormal, Normal

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel, NeuralEmission
from tests.suite import equal, random_scores


def test_densities_are_those_of_torch() -> None:
    x, mean = random_scores((2, 5, 3), 0), random_scores((4, 3), 1)
    variance = random_scores((4, 3), 2).exp()
    wanted = Normal(mean, variance.sqrt()).log_prob(x.unsqueeze(-2)).sum(-1)
    equal(GaussianEmission(mean, variance)(x), wanted)
    root = random_scores((4, 3, 3), 3)
    covariance = root @ root.mT + torch.eye(3)
    emission = GaussianEmission(mean, covariance)
    equal(emission.covariance, covariance)
    equal(emission(x), MultivariateNormal(mean, covariance).log_prob(x.unsqueeze(-2)))
    logits, symbols = random_scores((4, 6), 4), torch.randint(6, (2, 5), generator=torch.Generator().manual_seed(0))
    equal(CategoricalEmission(logits)(symbols), Categorical(logits=logits).log_prob(symbols.unsqueeze(-1)))


@pytest.mark.parametrize("full", [False, True])
def test_samples_have_the_moments_of_their_states(full: bool) -> None:
    covariance = torch.tensor([[2.0, 0.8], [0.8, 1.0]]).double()
    emission = GaussianEmission(
        torch.tensor([[1.0, -1.0]]).double(), covariance[None] if full else covariance.diagonal()[None]
    )
    x = emission.sample(torch.zeros(20_000, dtype=torch.int64), torch.Generator().manual_seed(0))
    equal(x.mean(0), emission.mean[0], atol=0.05, rtol=0)
    equal(torch.cov(x.T), covariance if full else covariance.diagonal().diag(), atol=0.1, rtol=0)


def test_sampled_states_follow_the_chain() -> None:
    transition = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]]).double()
    emissions = CategoricalEmission(torch.eye(3).double().log())
    model = HiddenMarkovModel(torch.tensor([0.25, 0.75, 0.0]).double().log(), transition.log(), emissions)
    x, z = model.sample(4000, 4, torch.Generator().manual_seed(0))
    assert torch.equal(x, z)
    equal((z[:, 0] == 1).double().mean(), torch.tensor(0.75, dtype=torch.float64), atol=0.03, rtol=0)
    pairs = torch.zeros(3, 3).double().index_put_((z[:, 0], z[:, 1]), torch.ones(4000).double(), accumulate=True)
    equal(pairs / pairs.sum(-1, keepdim=True).clamp(min=1), transition * torch.tensor([1.0, 1.0, 0.0])[:, None],
          atol=0.03, rtol=0)  # fmt: skip
    assert torch.isfinite(model(x).log_evidence).all()


def test_structural_zeros_have_no_gradient_and_survive_training() -> None:
    transition = random_scores((3, 3), 0)
    transition[0, 2] = -torch.inf
    model = HiddenMarkovModel(torch.zeros(3).double(), transition, CategoricalEmission(random_scores((3, 4), 1)))
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    x = torch.randint(4, (2, 6), generator=torch.Generator().manual_seed(0))
    before = float(model(x).log_evidence.sum().detach())
    for _ in range(20):
        optimiser.zero_grad()
        (-model(x).log_evidence.sum()).backward()
        assert model.transition.grad is not None
        assert torch.isfinite(model.transition.grad).all()
        optimiser.step()
    assert torch.isneginf(model.transition).nonzero().tolist() == [[0, 2]]
    assert float(model(x).log_evidence.sum().detach()) > before


def test_padding_may_hold_anything() -> None:
    model = HiddenMarkovModel(
        random_scores((2,), 0), random_scores((2, 2), 1), GaussianEmission(random_scores((2, 3), 2))
    )
    x, lengths = random_scores((3, 5, 3), 3), torch.tensor([5, 0, 2])
    wanted = model(x, lengths).log_evidence
    x[1], x[2, 2:] = torch.nan, torch.inf
    actual = model(x, lengths).log_evidence
    equal(actual, wanted)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(actual.sum(), list(model.parameters())))


def test_a_network_may_be_all_of_the_emissions_or_classify_states() -> None:
    network, x = nn.Linear(3, 2).double(), random_scores((4, 5, 3), 0)
    plain = HiddenMarkovModel(random_scores((2,), 1), random_scores((2, 2), 2), network)
    assert isinstance(plain(x), lnz.HMM)
    prior = torch.tensor([0.3, 0.7]).double().log()
    scaled = NeuralEmission(network, prior)
    equal(scaled(x), network(x).log_softmax(-1) - prior)
    assert {name for name, _ in scaled.named_parameters()} == {"network.weight", "network.bias"}
    with pytest.raises(TypeError, match="NeuralEmission has no sample"):
        scaled.sample(torch.zeros(2, dtype=torch.int64))


ZEROS = torch.zeros


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HiddenMarkovModel(ZEROS(2, 2), ZEROS(2, 2), nn.Identity()), r"initial: expected shape \[K\]"),
        (lambda: HiddenMarkovModel(ZEROS(2), ZEROS(3, 3), nn.Identity()), r"transition: expected shape \[2, 2\]"),
        (lambda: CategoricalEmission(ZEROS(3)), r"logits: expected shape \[K, V\], got \[3\]"),
        (lambda: CategoricalEmission(ZEROS(3, 2))(torch.tensor([2])), r"x: expected labels in \[0, 2\)"),
        (lambda: GaussianEmission(ZEROS(3)), r"mean: expected shape \[K, D\], got \[3\]"),
        (lambda: GaussianEmission(ZEROS(3, 2), ZEROS(3)), r"covariance: expected shape \[3, 2\] or \[3, 2, 2\]"),
        (lambda: GaussianEmission(ZEROS(2, 2), torch.ones(2, 2, 2)), "covariance: .* state 0 singular"),
        (lambda: GaussianEmission(ZEROS(2, 2), prior_variance=0.0), "prior_variance: expected a positive number"),
        (lambda: GaussianEmission(ZEROS(2, 2))(ZEROS(4, 3)), r"x: expected shape .* got \[4, 3\]"),
        (lambda: NeuralEmission(nn.Identity(), steps=0), "steps: expected a positive integer, got 0"),
        (lambda: NeuralEmission(nn.Identity(), ZEROS(2, 3)), r"state_prior: expected shape \[K\], got \[2, 3\]"),
        (lambda: NeuralEmission(nn.Identity(), ZEROS(2))(ZEROS(4, 3)), "state_prior: expected 3 states as .* got 2"),
    ],
)
def test_arguments_that_make_no_sense(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_lengths_must_fit_the_observations() -> None:
    model = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), CategoricalEmission(torch.zeros(2, 3)))
    x = torch.zeros(4, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"lengths: expected the batch shape of x \[4, 5\], got \[3\]"):
        model(x, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"lengths: expected values in \[0, 5\].* got 6 at \[2\]"):
        model(x, torch.tensor([1, 2, 6, 3]))
