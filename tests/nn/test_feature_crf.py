"""A CRF on sparse features: its objective by enumeration, its minimum by optimality, and L-BFGS on known minima."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import sparse

from lnz.nn.feature_chain import FeatureObjective, Layout
from lnz.nn.feature_learning import Learning, learn
from lnz.nn.owlqn import owlqn

LENGTHS = [3, 0, 1, 4, 2]
L = 3


def data(seed: int = 0, F: int = 6, real: bool = False, unknown: bool = False):
    random = np.random.default_rng(seed)
    N = sum(LENGTHS)
    dense = (random.random((N, F)) < 0.5) * (random.normal(size=(N, F)) if real else 1.0)
    tags = random.integers(L, size=N)
    if unknown:
        tags[[1, 5]] = -100
    return sparse.csr_matrix(dense), dense, tags


def enumerated(dense, tags, table, edges) -> float:
    """Σ −ln P(tags), by all taggings of each sentence."""
    total, first = 0.0, 0
    for n in LENGTHS:
        scores, gold = dense[first : first + n] @ table, tags[first : first + n]
        every, right = [], []
        for y in itertools.product(range(L), repeat=n):
            score = sum(scores[t, k] for t, k in enumerate(y)) + sum(edges[i, j] for i, j in itertools.pairwise(y))
            every.append(score)
            if all(g in (-100, k) for g, k in zip(gold, y, strict=True)):
                right.append(score)
        total += np.logaddexp.reduce(every) - np.logaddexp.reduce(right)
        first += n
    return total


@pytest.mark.parametrize("options", [{}, {"all_states": True}, {"all_transitions": True}, {"transitions": False}])
@pytest.mark.parametrize(("real", "unknown"), [(False, False), (True, True)])
def test_objective_and_gradient(options, real: bool, unknown: bool) -> None:
    features, dense, tags = data(real=real, unknown=unknown)
    objective = FeatureObjective(features, tags, LENGTHS, L, c2=0.3, **options)
    weights = torch.randn(objective.num_weights, generator=torch.Generator().manual_seed(1))
    value, gradient = objective(weights)

    def exact(w: np.ndarray) -> float:
        table, edges = np.zeros(dense.shape[1] * L), np.zeros(L * L)
        table[objective.states], edges[objective.transitions] = np.split(w, [len(objective.states)])
        return enumerated(dense, tags, table.reshape(-1, L), edges.reshape(L, L)) + 0.3 * (w**2).sum()

    w = weights.double().numpy()
    assert value == pytest.approx(exact(w), rel=1e-5)
    for k in range(0, len(w), 3):
        step = np.zeros_like(w)
        step[k] = 1e-5
        assert gradient[k].item() == pytest.approx((exact(w + step) - exact(w - step)) / 2e-5, rel=1e-3, abs=1e-3)


def test_which_pairs_have_a_weight() -> None:
    features = sparse.csr_matrix(np.array([[1, 0], [1, 1], [0, 1], [1, 0]]))
    tags, lengths = np.array([0, 1, 1, 0]), [2, 1, 1]
    objective = FeatureObjective(features, tags, lengths, 2)
    assert objective.states.tolist() == [0, 1, 3]  # feature 0 with tags 0 and 1, feature 1 with tag 1
    assert objective.transitions.tolist() == [1]  # none over the ends of sentences
    assert FeatureObjective(features, tags, lengths, 2, min_count=2).states.tolist() == [0, 3]
    zero = sparse.csr_matrix(([1.0, 0.0], [0, 0], [0, 1, 2]), (2, 1))
    assert FeatureObjective(zero, np.array([0, 1]), [2], 2).states.tolist() == [0, 1]  # given as 0: occurs
    assert FeatureObjective(features, np.array([0, -100, 1, 0]), lengths, 2).transitions.tolist() == []


def test_layout_holds_every_token_once() -> None:
    lengths = np.random.default_rng(0).integers(0, 40, 3000).tolist()
    layout = Layout(lengths)
    assert len(layout.blocks) > 1
    assert len(np.unique(layout.place)) == sum(lengths)
    token = 0
    starts = {int(s): block.first + k * block.steps for block in layout.blocks for k, s in enumerate(block.sentences)}
    for s, n in enumerate(lengths):
        assert layout.place[token : token + n].tolist() == list(range(starts.get(s, 0), starts.get(s, 0) + n))
        token += n


@pytest.mark.parametrize("c1", [0.0, 0.2])
def test_the_minimum_is_one(c1: float) -> None:
    """The gradient is 0 where a weight is not, and within c1 of 0 where it is."""
    features, _, tags = data(real=True)
    objective = FeatureObjective(features, tags, LENGTHS, L, c2=0.1, all_states=True)
    weights = learn(objective, Learning(c1=c1, c2=0.1, delta=0.0, epsilon=1e-6)).weights
    _, gradient = objective(weights)
    zero = weights == 0
    assert zero.any() == bool(c1)
    torch.testing.assert_close(
        (gradient + c1 * weights.sign())[~zero], torch.zeros(int((~zero).sum())), atol=2e-3, rtol=0
    )
    assert (gradient[zero].abs() <= c1 + 1e-4).all()


def test_stochastic_gradient_comes_to_the_same() -> None:
    features, _, tags = data(real=True)
    objective = FeatureObjective(features, tags, LENGTHS, L, c2=1.0)
    best = learn(objective, Learning(c2=1.0)).weights
    found = learn(objective, Learning("l2sgd", c2=1.0, max_iterations=300, delta=0.0)).weights
    assert objective(found)[0] == pytest.approx(objective(best)[0], rel=1e-2)


class TestOwlqn:
    def test_a_lasso_of_known_solution(self) -> None:
        """½‖x − a‖² + c|x|: soft thresholds."""
        a = torch.tensor([3.0, -0.5, 0.2, -2.0, 1.0])
        *_, last = owlqn(lambda x: (0.5 * float((x - a).square().sum()), x - a), torch.zeros(5), 1.0)
        torch.testing.assert_close(last.point, torch.tensor([2.0, 0.0, 0.0, -1.0, 0.0]))
        assert last.value == pytest.approx(0.5 * (1 + 0.25 + 0.04 + 1 + 1) + 3.0)

    def test_a_badly_scaled_quadratic(self) -> None:
        scale = torch.logspace(-1, 2, 30).double()
        at = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
        steps = owlqn(
            lambda x: (0.5 * float((scale * (x - at) ** 2).sum()), scale * (x - at)), torch.zeros(30).double()
        )
        *_, last = itertools.islice(steps, 300)
        torch.testing.assert_close(last.point, at, rtol=0, atol=1e-4)

    def test_at_the_minimum_there_is_nothing_to_do(self) -> None:
        assert list(owlqn(lambda x: (float(x.dot(x)), 2 * x), torch.zeros(3))) == []
        assert list(owlqn(lambda x: (float(x.sum()), torch.ones(3)), torch.zeros(3), l1=1.0)) == []


def test_early_stopping_keeps_the_best() -> None:
    features, _, tags = data(real=True)
    objective = FeatureObjective(features, tags, LENGTHS, L, c2=0.01)
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    seen: list[torch.Tensor] = []

    def validate(weights: torch.Tensor) -> float:
        seen.append(weights)
        return next(scores)

    found = learn(objective, Learning(c2=0.01, delta=0.0, epsilon=0.0, period=3, patience=2), validate)
    assert found.best == 6
    assert torch.equal(found.weights, seen[1])
    assert [step.score for step in found.steps] == [None, None, 0.1, None, None, 0.5, None, None, 0.4, None, None, 0.3]
    assert math.isfinite(found.steps[-1].objective)
