"""Hidden Markov models as estimators: forms of sequences, restarts, k-means; against hmmlearn's likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel
from tests.suite import equal, random_scores


def gaussian(seed: int = 0) -> HiddenMarkovModel:
    emissions = GaussianEmission(3 * random_scores((3, 2), seed + 2))
    return HiddenMarkovModel(random_scores((3,), seed), random_scores((3, 3), seed + 1), emissions)


def data() -> list[torch.Tensor]:
    model = gaussian()
    x, _ = model.sample(3, 80, torch.Generator().manual_seed(0))
    return [x[0], x[1, :50], x[2, :7]]


def test_every_form_of_sequences_gives_the_same() -> None:
    model, each = gaussian(), data()
    lengths = [len(one) for one in each]
    padded = torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=torch.nan)
    wanted = sum(float(model(one[None]).log_evidence) for one in each)
    joined = torch.cat(each)
    for given in (
        (each, None),
        ([one.numpy() for one in each], None),
        (padded, lengths),
        (joined, lengths),
        (joined.numpy(), lengths),
    ):
        assert model.score(*given) == pytest.approx(wanted)
    listed, below = model.predict(each), model.predict(joined, lengths)
    assert isinstance(listed, list)
    assert torch.equal(torch.cat(listed), below)
    assert model.predict(padded, lengths)[1, 50:].eq(-100).all()
    equal(torch.cat(model.predict_proba(each)), model.predict_proba(joined, lengths))
    assert torch.equal(model.predict(each[0]), model(each[0][None]).argmax()[0])
    posterior = model.predict(each[0], method="posterior")
    assert torch.equal(posterior, model(each[0][None]).smoothed[0].argmax(-1))
    with pytest.raises(
        ValueError, match=r"lengths: expected numbers that add up to the 137 rows of data, got \[80, 50\]"
    ):
        model.score(joined, [80, 50])
    with pytest.raises(ValueError, match="method: expected 'viterbi' or 'posterior', got 'best'"):
        model.predict(each, method="best")  # type: ignore[arg-type]


def test_fitting_finds_what_drew_the_data() -> None:
    each = data()
    for init, restarts in (("kmeans", 1), ("random", 8)):
        model = HiddenMarkovModel(torch.zeros(3), torch.zeros(3, 3), GaussianEmission(torch.zeros(3, 2))).double()
        assert (
            model.fit(each, init=init, restarts=restarts, pseudocount=0.1, generator=torch.Generator().manual_seed(1))
            is model
        )  # type: ignore[arg-type]
        assert model.score(each) > gaussian().score(each) - 5
        assert model.training_result is not None
        assert len(model.training_result.starts) == restarts
        assert model.training_result.parameters == 2 + 6 + 12
    full = HiddenMarkovModel(
        torch.zeros(3), torch.zeros(3, 3), GaussianEmission(torch.zeros(3, 2), torch.eye(2).expand(3, 2, 2))
    )
    full = full.double().fit(each, init="kmeans", pseudocount=0.1, generator=torch.Generator().manual_seed(1))
    assert full.score(each) > gaussian().score(each) - 5
    symbols = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), CategoricalEmission(torch.zeros(2, 3)))
    column = np.array([[0], [1], [2], [1], [0]])
    assert symbols.fit(column, [3, 2], init="random").predict(column, [3, 2]).shape == (5,)
    with pytest.raises(TypeError, match="init: expected a GaussianEmission for 'kmeans', got CategoricalEmission"):
        symbols.fit(column[:, 0], init="kmeans")


def test_likelihoods_are_those_of_hmmlearn() -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    each = data()
    x, lengths = torch.cat(each).numpy(), [len(one) for one in each]
    model = gaussian(5)
    theirs = hmm.GaussianHMM(
        3, "diag", init_params="", n_iter=7, tol=-np.inf, min_covar=0, covars_prior=0, means_prior=0, covars_weight=0
    )
    theirs.startprob_ = model.initial.softmax(-1).detach().numpy()
    theirs.transmat_ = model.transition.softmax(-1).detach().numpy()
    theirs.means_, theirs.covars_ = model.emissions.mean.detach().numpy(), model.emissions.covariance.detach().numpy()
    assert model.score(each) == pytest.approx(theirs.score(x, lengths), rel=1e-9)
    assert model.predict(x, lengths).tolist() == theirs.predict(x, lengths).tolist()
    theirs.fit(x, lengths)
    assert model.fit(x, lengths, max_iterations=7, tolerance=0.0) is model
    assert model.training_result is not None
    assert model.training_result.log_evidence[:7] == pytest.approx(list(theirs.monitor_.history)[:7], rel=1e-9)


def with_holes(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.cat(data())
    x = x.masked_fill(torch.rand(x.shape, generator=generator) < 0.3, torch.nan)
    x[5] = torch.nan  # a whole frame
    return x


def rotated(form: str) -> HiddenMarkovModel:
    mean = 3 * random_scores((3, 2), 2)
    covariance = torch.tensor([[2.0, 0.9], [0.9, 1.0]]).double().expand(3, 2, 2)
    given = covariance if form == "full" else covariance.diagonal(dim1=1, dim2=2)
    return HiddenMarkovModel(random_scores((3,), 0), random_scores((3, 3), 1), GaussianEmission(mean, given))


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_what_is_missing_in_a_frame_is_integrated_out(form: str) -> None:
    model, x = rotated(form), with_holes(0)
    log_density = model.emissions(x)
    for frame, found in zip(x, log_density, strict=True):
        there = ~frame.isnan()
        for k in range(3):
            full = model.emissions.covariance[k]
            full = full if form == "full" else full.diag()
            if not there.any():
                assert found[k] == 0
                continue
            part = torch.distributions.MultivariateNormal(model.emissions.mean[k, there], full[there][:, there])
            equal(found[k], part.log_prob(frame[there]))


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_em_with_missing_numbers_never_lowers_the_likelihood_and_ends_where_its_gradient_is_0(form: str) -> None:
    model, x = rotated(form), with_holes(1)
    model.fit(x, max_iterations=2000, tolerance=1e-13)
    assert model.training_result is not None
    assert (torch.tensor(model.training_result.log_evidence).diff() >= -1e-9).all()
    loss = -model(x[None]).log_evidence.sum()
    gradients = torch.autograd.grad(loss, [model.transition, model.emissions.mean, model.emissions.factor])
    assert max(gradient.abs().max() for gradient in gradients) < 1e-3
    again = rotated(form).fit(x, init="kmeans", pseudocount=0.1, generator=torch.Generator().manual_seed(0))
    assert again.score(x) > rotated(form).score(x)


@pytest.mark.parametrize("form", ["diagonal", "full"])
def test_the_prior_adds_so_many_observations_of_its_variance(form: str) -> None:
    """Σ = (scatter + ν ψ) / (weight + ν), of strength ν and variance ψ."""
    x, weights = random_scores((1, 9, 2), 0), random_scores((1, 9, 3), 1).softmax(-1)
    covariance = None if form == "diagonal" else torch.eye(2).double().expand(3, 2, 2)
    emissions = GaussianEmission(torch.zeros(3, 2).double(), covariance, prior_variance=4.0)
    emissions.maximise(x, weights, 2.5)
    for k, w in enumerate(weights[0].T):
        mean = w @ x[0] / w.sum()
        scatter = (w[:, None] * (x[0] - mean)).T @ (x[0] - mean)
        wanted = (scatter + 2.5 * 4.0 * torch.eye(2)) / (w.sum() + 2.5)
        equal(emissions.mean[k], mean)
        equal(emissions.covariance[k], wanted if form == "full" else wanted.diagonal())
