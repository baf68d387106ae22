"""EM for hidden Markov models: published and hand-made traces, rising objectives, and its kinship with the gradient."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel, NeuralEmission
from lnz.objectives import em
from tests.suite import equal, random_scores


def categorical(K: int, V: int, seed: int = 0) -> HiddenMarkovModel:
    scores = (random_scores(shape, seed + i) for i, shape in enumerate([(K,), (K, K), (K, V)]))
    initial, transition, emission = scores
    return HiddenMarkovModel(initial, transition, CategoricalEmission(emission))


def gaussian(K: int, D: int, form: str, seed: int = 0) -> HiddenMarkovModel:
    covariance = None if form == "diagonal" else torch.eye(D).double().expand(K, D, D)
    emissions = GaussianEmission(random_scores((K, D), seed + 2), covariance)
    return HiddenMarkovModel(random_scores((K,), seed), random_scores((K, K), seed + 1), emissions)


def network(K: int, D: int, prior: bool) -> HiddenMarkovModel:
    torch.manual_seed(0)
    if prior:
        body = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, K)).double()
        emissions = NeuralEmission(body, torch.full((K,), 1 / K).double().log(), steps=5)
    else:
        emissions = NeuralEmission(Shifted(K, D).double(), steps=5)
    return HiddenMarkovModel(random_scores((K,), 0), random_scores((K, K), 1), emissions)


class Shifted(nn.Module):
    """ln of a standard normal density around a mean that is a network of the state."""

    def __init__(self, K: int, D: int) -> None:
        super().__init__()
        self.states = nn.Embedding(K, 3)
        self.mean = nn.Linear(3, D)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(self.states.weight.tanh())
        return -0.5 * ((x.unsqueeze(-2) - mean).square() + math.log(2 * math.pi)).sum(-1)


LENGTHS = torch.tensor([7, 1, 4, 0, 7])


def symbols(V: int) -> Tensor:
    x = torch.randint(V, (5, 7), generator=torch.Generator().manual_seed(1))
    return x.masked_fill(torch.arange(7) >= LENGTHS[:, None], 12345)  # padding may hold anything


def vectors(D: int) -> Tensor:
    return random_scores((5, 7, D), 7).masked_fill((torch.arange(7) >= LENGTHS[:, None])[..., None], torch.nan)


CASES = {
    "categorical": lambda: (categorical(3, 4), symbols(4)),
    "diagonal": lambda: (gaussian(2, 3, "diagonal"), vectors(3)),
    "full": lambda: (gaussian(2, 2, "full"), vectors(2)),
    "scaled likelihoods": lambda: (network(2, 3, prior=True), vectors(3)),
    "network of a density": lambda: (network(2, 3, prior=False), vectors(3)),
}
cases = pytest.mark.parametrize("case", CASES)


@cases
@pytest.mark.parametrize("pseudocount", [0.0, 0.7])
def test_it_never_lowers_its_objective_and_raises_it(case: str, pseudocount: float) -> None:
    model, x = CASES[case]()
    result = em(model, x, LENGTHS, max_iterations=15, tolerance=0.0, pseudocount=pseudocount)
    assert result.model is model
    assert result.iterations == 15 or result.converged
    assert len(result.log_evidence) == len(result.objective) == result.iterations + 1
    assert all(b >= a - 1e-9 * abs(a) for a, b in zip(result.objective, result.objective[1:], strict=False))
    assert result.objective[-1] > result.objective[0] + 0.1
    equal(model(x, LENGTHS).log_evidence.sum(), torch.tensor(result.log_evidence[-1], dtype=torch.float64))
    if pseudocount == 0:
        assert result.objective == result.log_evidence


@cases
def test_the_gradient_of_its_objective_is_that_of_the_evidence(case: str) -> None:
    """At Q^t: ∇ E_{z ~ Q^t(z|x)} ln Q(z, x) = ∇ ln Q(x) (the expected gradient)."""
    model, x = CASES[case]()
    parameters = list(model.parameters())
    evidence = model(x, LENGTHS).log_evidence.sum()
    wanted = torch.autograd.grad(evidence, parameters)
    total, counts = model.expected_statistics(x, LENGTHS)
    equal(total, evidence)
    p = model(x, LENGTHS)
    held = (counts.initial, counts.transition, counts.states)
    objective = sum((count * scores).sum() for count, scores in zip(held, p.scores, strict=True))
    for a, w in zip(torch.autograd.grad(objective, parameters), wanted, strict=True):
        equal(a, w)


@pytest.mark.parametrize("case", ["categorical", "diagonal", "full"])
def test_where_it_converges_the_gradient_vanishes(case: str) -> None:
    model, x = CASES[case]()
    result = em(model, x, LENGTHS, max_iterations=1000, tolerance=1e-13, pseudocount=0.5)
    assert result.converged
    objective = model(x, LENGTHS).log_evidence.sum() + model.log_prior(0.5)
    equal(objective, torch.tensor(result.objective[-1], dtype=torch.float64))
    for gradient in torch.autograd.grad(objective, list(model.parameters())):
        assert gradient.abs().max() < 1e-3


# Traces ------------------------------------------------------------------------------------------------------------


def observed_chain() -> HiddenMarkovModel:
    """Two states that are seen as they are: states and symbols are one."""
    emissions = CategoricalEmission(torch.eye(2, dtype=torch.float64).log())
    return HiddenMarkovModel(torch.zeros(2).double(), torch.zeros(2, 2).double(), emissions)


@pytest.mark.data
def test_the_published_trace_of_libdai(shared_data: Path) -> None:
    """Its network of two observed variables is a chain of two steps; it learns P(x_1 | x_0), pseudocount 1."""
    published = json.loads((shared_data / "libdai_reference" / "em_reference.json").read_text())["2var"]
    x = torch.tensor([[row["0"], row["1"]] for row in published["data"]])
    model = observed_chain()
    result = em(model, x, pseudocount=1.0)
    wanted = published["log_likelihood_per_iter"]
    equal(torch.tensor(result.log_evidence), torch.tensor(wanted), rtol=0, atol=1e-4)
    learned = torch.tensor(published["learned"]["tables"][0], dtype=torch.float64).reshape(2, 2)
    equal(model.transition.softmax(-1), learned, atol=1e-11)
    equal(model.emissions(x).exp(), nn.functional.one_hot(x, 2).double())  # no pseudocount for what is impossible


def test_observed_states_are_counted_in_one_step() -> None:
    x = torch.tensor([[0, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1]])
    model = observed_chain()
    result = em(model, x)
    assert result.converged
    assert result.iterations == 2
    equal(model.initial.softmax(-1), torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))
    equal(model.transition.softmax(-1), torch.tensor([[2 / 4, 2 / 4], [2 / 5, 3 / 5]], dtype=torch.float64))
    wanted = sum(n * math.log(p) for n, p in ((2, 2 / 3), (1, 1 / 3), (4, 1 / 2), (2, 2 / 5), (3, 3 / 5)))
    assert result.log_evidence[-1] == pytest.approx(wanted, abs=1e-12)


def test_one_state_is_maximum_likelihood() -> None:
    x = random_scores((4, 6, 3), 0)
    rows = x.flatten(0, 1)
    for covariance in (None, torch.eye(3).double()[None]):
        emissions = GaussianEmission(torch.zeros(1, 3).double(), covariance)
        em(HiddenMarkovModel(torch.zeros(1).double(), torch.zeros(1, 1).double(), emissions), x)
        equal(emissions.mean[0], rows.mean(0))
        full = torch.cov(rows.T, correction=0)
        equal(emissions.covariance[0], full.diagonal() if covariance is None else full)


def test_one_step_by_hand() -> None:
    """A mixture of two coins, thrown once each: responsibilities and their weighted counts."""
    bias, prior = [0.6, 0.3], [0.5, 0.5]
    model = HiddenMarkovModel(
        torch.tensor(prior).double().log(),
        torch.zeros(2, 2).double(),
        CategoricalEmission(torch.tensor([[b, 1 - b] for b in bias], dtype=torch.float64).log()),
    )
    x = torch.tensor([[0], [0], [1]])
    before = model.transition.clone()
    em(model, x, max_iterations=1)
    heads, tails = 0.6 / 0.9, 0.4 / 1.1  # P(first coin | x)
    first = 2 * heads + tails
    equal(model.initial.softmax(-1)[0], torch.tensor(first / 3, dtype=torch.float64))
    equal(model.emissions.logits.softmax(-1)[0, 0], torch.tensor(2 * heads / first, dtype=torch.float64))
    assert torch.equal(model.transition, before)  # never used: no counts, so it stays


def test_it_recovers_a_model_from_its_samples() -> None:
    truth = HiddenMarkovModel(
        torch.tensor([0.8, 0.2]).double().log(),
        torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log(),
        GaussianEmission(torch.tensor([[-1.0, 0.0], [1.0, 2.0]]).double(), torch.full((2, 2), 0.25).double()),
    )
    x, z = truth.sample(100, 50, torch.Generator().manual_seed(0))
    assert x.shape == (100, 50, 2)
    model = gaussian(2, 2, "full")
    with torch.no_grad():
        model.emissions.mean.copy_(torch.tensor([[-0.1, 0.0], [0.1, 0.0]]))
        model.transition.zero_()
        model.initial.zero_()
    result = em(model, x)
    assert result.converged
    assert result.log_evidence[-1] > float(truth(x).log_evidence.sum().detach())
    equal(model.emissions.mean, truth.emissions.mean, atol=0.05, rtol=0)
    equal(model.emissions.covariance, 0.25 * torch.eye(2).double().expand(2, 2, 2), atol=0.05, rtol=0)
    equal(model.transition.softmax(-1), truth.transition.softmax(-1), atol=0.05, rtol=0)
    assert (model(x).argmax() == z).double().mean() > 0.95


def test_missing_symbols_say_nothing() -> None:
    x = symbols(4).masked_fill(torch.arange(7) >= LENGTHS[:, None], 0)
    one, two = categorical(3, 4), categorical(3, 4)
    padded = x.masked_fill(torch.arange(7) >= LENGTHS[:, None], -100)
    a, b = em(one, x, LENGTHS, max_iterations=1), em(two, padded, max_iterations=1)
    assert a.log_evidence[0] == pytest.approx(b.log_evidence[0], abs=1e-9)
    equal(one.emissions.logits, two.emissions.logits)


def test_what_is_frozen_or_impossible_stays() -> None:
    model, x = categorical(3, 4), symbols(4)
    with torch.no_grad():
        model.transition[0, 2] = model.transition[2, 0] = -torch.inf
    frozen = model.emissions.logits.requires_grad_(False).clone()
    em(model, x, LENGTHS, max_iterations=5, pseudocount=1.0)
    assert torch.equal(model.emissions.logits, frozen)
    assert torch.isneginf(model.transition).nonzero().tolist() == [[0, 2], [2, 0]]


def test_a_state_that_shrinks_to_a_point_is_named() -> None:
    x = torch.zeros(1, 8, 2).double()
    x[0, 4:] = random_scores((4, 2), 0) + 9
    model = gaussian(2, 2, "diagonal")
    with torch.no_grad():
        model.emissions.mean.copy_(torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
    with pytest.raises(ValueError, match="that of state 0 singular; a pseudocount above 0"):
        em(model, x)
    assert em(gaussian(2, 2, "full"), x, pseudocount=1.0).objective[-1] > -math.inf


@pytest.mark.parametrize("full", [False, True])
def test_float32_data_far_from_0_are_learnt_as_in_float64(full: bool) -> None:
    """Means of 1e4 are rounded to 1e-3 in float32: of 3 states with standard deviations of 0.1 that is too much."""
    x = 1e4 + 0.1 * torch.randn(1, 400, 1, generator=torch.Generator().manual_seed(0)).double()
    x = x.float()
    results = []
    for dtype in (torch.float32, torch.float64):
        mean, covariance = x[0, :3].double(), torch.full((3, 1, 1) if full else (3, 1), 0.01, dtype=torch.float64)
        emissions = GaussianEmission(mean, covariance)
        model = HiddenMarkovModel(random_scores((3,), 0), random_scores((3, 3), 1), emissions).to(dtype)
        results.append(em(model, x.to(dtype)))
        assert {p.dtype for p in model.parameters()} == {dtype}
        rises = torch.tensor(results[-1].objective, dtype=torch.float64).diff()
        assert (rises >= -1e-9 * abs(results[-1].objective[-1])).all()
        equal(model.emissions.mean.double(), torch.full((3, 1), 1e4).double(), rtol=0, atol=0.2)
    single, double = results
    assert single.objective[-1] == pytest.approx(double.objective[-1], abs=0.2)  # of rounded starting points
    assert single.converged == double.converged


def test_a_fall_is_no_convergence() -> None:
    class Worse(HiddenMarkovModel):
        def maximised(self, statistics: object, pseudocount: float = 0.0) -> Worse:
            with torch.no_grad():
                self.emissions.mean += 1
            return self

    model = Worse(torch.zeros(2), torch.zeros(2, 2), GaussianEmission(torch.tensor([[0.0], [1.0]])))
    with pytest.warns(lnz.errors.ConvergenceWarning, match="em: iteration 1 lowered the objective from .* to .*, by"):
        result = em(model, torch.zeros(1, 5, 1))
    assert not result.converged
    assert result.iterations == 1
    assert result.objective[1] < result.objective[0]


def test_states_of_little_weight_are_learnt_too() -> None:
    x, weights = random_scores((1, 6, 2), 0), torch.zeros(1, 6, 3).double()
    weights[0, :, 0], weights[0, 2, 1], weights[0, 4, 1] = 1.0, 1e-3, 3e-3
    for covariance in (None, torch.eye(2).double().expand(3, 2, 2)):
        emissions = GaussianEmission(torch.full((3, 2), 9.0).double(), covariance)
        emissions.maximise(x, weights, 0.1)
        wanted = torch.stack((x[0].mean(0), 0.25 * x[0, 2] + 0.75 * x[0, 4], torch.full((2,), 9.0).double()))
        equal(emissions.mean, wanted)
    symbols = CategoricalEmission(torch.zeros(3, 6).double())
    symbols.maximise(torch.arange(6)[None], weights, 0.0)
    equal(symbols.logits.softmax(-1)[1], torch.tensor([0, 0, 0.25, 0, 0.75, 0], dtype=torch.float64))


def test_advice_is_not_what_is_set_already() -> None:
    x = torch.randn(1, 20, 2, generator=torch.Generator().manual_seed(0)).double()
    x[0, 7] = 1e12
    advice = r"singular; pseudocount=1 with prior_variance=1 is nothing beside it: rescale the observations, leave out"
    with pytest.raises(ValueError, match=advice):
        em(gaussian(1, 2, "full"), x, pseudocount=1.0)
    x[0, 7, 0] = 1e200
    with pytest.raises(ValueError, match="state 0 beyond the range of torch.float64: rescale the observations"):
        gaussian(1, 2, "diagonal").emissions.maximise(x, torch.ones(1, 20, 1).double(), 1.0)


def test_what_cannot_be_maximised_is_refused() -> None:
    x = symbols(4)
    p = lnz.HMM(torch.zeros(2).log_softmax(-1), torch.zeros(2, 2).log_softmax(-1), torch.zeros(3, 2))
    with pytest.raises(TypeError, match=r"model: expected one with an E step and an M step, .* got HMM"):
        em(p, x)
    plain = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), lambda x: torch.zeros(*x.shape, 2))
    with pytest.raises(TypeError, match=r"emissions: expected an Emission, .* -model\(x\).log_evidence.mean\(\)"):
        em(plain, x, LENGTHS)
    with pytest.raises(TypeError, match="emissions: expected an Emission, which can be drawn from"):
        plain.sample(1, 2)
    with pytest.raises(ValueError, match=r"data: expected observations to learn from, got none, of shape \[0, 5\]"):
        em(categorical(2, 4), x.new_zeros(0, 5))
    with pytest.raises(TypeError, match="data: expected a torch.Tensor, got list"):
        em(categorical(2, 4), [[0, 1]])
    with pytest.raises(ValueError, match="max_iterations: expected a positive integer, got 0"):
        em(categorical(2, 4), x, LENGTHS, max_iterations=0)
    with pytest.raises(ValueError, match="pseudocount: expected a number of at least 0, got -1"):
        em(categorical(2, 4), x, LENGTHS, pseudocount=-1.0)
    model = observed_chain()
    with torch.no_grad():
        model.transition[0, 1] = -torch.inf
    with pytest.raises(lnz.InfeasibleError, match=r"observations of probability 0 in batch entries \[1\]"):
        em(model, torch.tensor([[0, 0], [0, 1]]))


def test_a_saddle_point_on_the_way_is_not_taken_for_the_end() -> None:
    truth = HiddenMarkovModel(
        torch.tensor([0.7, 0.3]).log(),
        torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log(),
        CategoricalEmission(torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]]).log()),
    )
    x, _ = truth.sample(60, 40, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(1)
    logits = [torch.randn(shape, generator=draw) for shape in ((2,), (2, 2), (2, 3))]
    for dtype in (torch.float32, torch.float64):
        model = HiddenMarkovModel(*logits[:2], CategoricalEmission(logits[2])).to(dtype)
        passing = em(model, x)
        assert not passing.converged
        reached = em(model, x, max_iterations=500)
        assert reached.converged
        assert reached.log_evidence[-1] > passing.log_evidence[-1] + 150


def test_by_gradient_it_reaches_the_same() -> None:
    """Any callable serves as emissions, and the structural zeros stay zeros."""
    x = symbols(4)
    model = categorical(2, 4, seed=3)
    result = em(model, x, LENGTHS, max_iterations=500, tolerance=1e-10)
    start = categorical(2, 4, seed=3)
    plain = HiddenMarkovModel(start.initial.detach(), start.transition.detach(), start.emissions.forward)
    optimiser = torch.optim.LBFGS([*plain.parameters(), *start.emissions.parameters()], 1.0, 300,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -plain(x, LENGTHS).log_evidence.sum()
        value.backward()
        return value

    optimiser.step(loss)
    assert -float(loss().detach()) == pytest.approx(result.log_evidence[-1], abs=0.5)
