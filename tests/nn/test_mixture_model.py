"""Mixtures: evidence and responsibilities against torch's densities, EM against scikit-learn's, and their checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, MixtureModel
from lnz.objectives import em
from tests.suite import equal, random_scores


def test_evidence_is_that_of_torch_and_its_gradient_the_responsibilities() -> None:
    logits, mean, x = random_scores((3,), 0), random_scores((3, 2), 1), random_scores((7, 2), 2)
    weights = logits.log_softmax(-1)
    parts = Independent(Normal(mean, torch.ones_like(mean)), 1)
    likelihoods = parts.log_prob(x.unsqueeze(-2)).requires_grad_()
    p = lnz.mixture(weights, likelihoods)
    equal(p.log_partition, MixtureSameFamily(Categorical(logits=logits), parts).log_prob(x))
    (gradient,) = torch.autograd.grad(p.log_partition.sum(), likelihoods)
    equal(p.marginals[0], gradient)
    equal(p.marginals[0], (weights + likelihoods).softmax(-1))
    assert p.argmax().shape == (7, 1)
    equal(MixtureModel(logits, GaussianEmission(mean))(x).log_partition, p.log_partition)
    far = lnz.mixture(weights, likelihoods.detach() - 1e5)  # densities far below the smallest float
    equal(far.marginals[0], p.marginals[0], atol=1e-7)


def points() -> Tensor:
    truth = MixtureModel(torch.tensor([1.0, 0.0, 0.5]).double(), GaussianEmission(3 * random_scores((3, 2), 1)))
    x, z = truth.sample(300, torch.Generator().manual_seed(0))
    assert z.unique().tolist() == [0, 1, 2]
    return x


@pytest.mark.parametrize("form", ["diag", "full"])
def test_em_goes_the_way_of_scikit_learn(form: str) -> None:
    peers = pytest.importorskip("sklearn.mixture", reason="needs the extra train")
    x, start = points(), random_scores((3, 2), 5)
    covariance = torch.eye(2).double().expand(3, 2, 2) if form == "full" else None
    model = MixtureModel(torch.zeros(3).double(), GaussianEmission(start, covariance))
    result = em(model, x, max_iterations=25, tolerance=0.0)
    theirs = peers.GaussianMixture(
        3, covariance_type=form, tol=0.0, reg_covar=0.0, max_iter=25, weights_init=np.full(3, 1 / 3),
        means_init=start.numpy(), precisions_init=np.tile(np.eye(2), (3, 1, 1)) if form == "full" else np.ones((3, 2)),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(x.numpy())
    assert result.log_evidence[-1] == pytest.approx(300 * theirs.score(x.numpy()), rel=1e-9)
    equal(model.components.mean, torch.from_numpy(theirs.means_), atol=1e-7)
    assert result.bic == pytest.approx(theirs.bic(x.numpy()))
    equal(model(x).marginals[0], torch.from_numpy(theirs.predict_proba(x.numpy())), atol=1e-7)


def test_starts_missing_numbers_and_weights() -> None:
    x = points()
    holes = x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.2, torch.nan)
    model = MixtureModel(torch.zeros(3).double(), GaussianEmission(torch.zeros(3, 2).double()))
    result = em(model.clustered(holes, torch.Generator().manual_seed(0)), holes, pseudocount=0.1)
    assert (torch.tensor(result.objective).diff() >= -1e-9).all()
    symbols = torch.randint(4, (30,), generator=torch.Generator().manual_seed(0))
    weights = torch.randint(1, 4, (30,), generator=torch.Generator().manual_seed(1))
    two = [MixtureModel(torch.zeros(2).double(), CategoricalEmission(random_scores((2, 4), 0))) for _ in range(2)]
    one = em(two[0], symbols, weights=weights.double(), max_iterations=5)
    other = em(two[1], symbols.repeat_interleave(weights), max_iterations=5)
    assert one.log_evidence == pytest.approx(other.log_evidence)
    assert one.observations == other.observations
    assert em(two[0], symbols, restarts=3, generator=torch.Generator().manual_seed(0)).parameters == 1 + 2 * 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lnz.mixture(torch.zeros(3), torch.zeros(2, 3)), ValueError, "log_weights: expected log-probabilities"),
        (lambda: lnz.mixture(torch.zeros(1), torch.zeros(2, 3)), ValueError, r"log_likelihoods: expected shape .* 1\]"),
        (
            lambda: lnz.mixture(torch.zeros(()), torch.zeros(2)),
            ValueError,
            r"log_weights: expected shape \[\*batch, K\]",
        ),
        (lambda: MixtureModel(torch.zeros(2, 2), GaussianEmission(torch.zeros(2, 2))), ValueError, "logits: expected"),
        (lambda: MixtureModel(torch.zeros(2), abs), TypeError, "components: expected an Emission"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_make_no_sense(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def test_observations_that_no_component_makes_are_named() -> None:
    table = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double().log()
    with pytest.raises(lnz.InfeasibleError, match=r"observations of probability 0 in batch entries \[1\]"):
        em(MixtureModel(torch.zeros(2).double(), CategoricalEmission(table)), torch.tensor([0, 1]))
