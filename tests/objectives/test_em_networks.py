"""EM for Bayesian networks with holes: monotone, kin to the gradient, published likelihoods, restarts, tied tables."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel
from lnz.objectives import em
from tests.suite import equal, random_scores


def network(seed: int, dtype: torch.dtype = torch.float64) -> lnz.BayesNet:
    """Up to six variables of up to three states, up to two parents each."""
    generator = torch.Generator().manual_seed(seed)

    def below(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    cards = [2 + below(2) for _ in range(3 + below(4))]
    parents = [sorted({below(v) for _ in range(below(3))}) if v else [] for v in range(len(cards))]
    tables = [
        random_scores(tuple(cards[n] for n in (*above, v)), seed + v).log_softmax(-1).to(dtype)
        for v, above in enumerate(parents)
    ]
    return lnz.BayesNet(cards, parents, tables)


def holes(net: lnz.BayesNet, rows: int, share: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    y = net.sample((rows,), generator=generator)
    return y.masked_fill(torch.rand(y.shape, generator=generator) < share, -100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(100))
def test_the_likelihood_never_falls(seed: int, dtype: torch.dtype) -> None:
    net = network(seed, dtype)
    data = holes(net, 30, 0.4, seed)
    result = em(net.drawn(data, torch.Generator().manual_seed(seed)), data, max_iterations=8)
    rises = torch.tensor(result.log_evidence).diff()
    assert (rises >= -1e-9 * abs(result.log_evidence[-1])).all()
    assert result.model.dtype == dtype
    assert result.model.log_prob(data).sum().item() == pytest.approx(result.log_evidence[-1], rel=1e-5)


def test_the_gradient_of_what_the_m_step_maximises_is_the_expected_gradient() -> None:
    """At the current tables Q: ∂/∂Q E_{z | y}[ln Q(z, y)] = ∂/∂Q ln Q(y)."""
    net = network(3)
    data = holes(net, 20, 0.5, 4)
    tables = [table.exp().requires_grad_() for table in net.log_cpts]
    p = lnz.BayesNet(net.cardinalities, net.parents, [table.log() for table in tables], normalised=False)
    evidence = torch.autograd.grad(p.condition(data).log_partition.sum(), tables)
    counts = net.expected_statistics(data, reduce=True)
    joint = sum((c * table.log()).sum() for c, table in zip(counts, tables, strict=True))
    for one, two in zip(evidence, torch.autograd.grad(joint, tables), strict=True):
        equal(one, two)


def test_full_rows_take_one_iteration_to_their_frequencies() -> None:
    net = network(5)
    data = net.sample((200,), generator=torch.Generator().manual_seed(0))
    result = em(net, data)
    assert result.converged
    assert result.iterations == 2
    for one, two in zip(result.model.log_cpts, net.fit(data).log_cpts, strict=True):
        equal(one, two)


def test_restarts_keep_the_best_start_and_follow_the_seed() -> None:
    net = lnz.BayesNet(
        [2, 2, 2, 2], [[], [0], [0], [0]], [torch.full((2,), 0.5).log()] + [torch.full((2, 2), 0.5).log()] * 3
    )
    truth = lnz.BayesNet(
        net.cardinalities,
        net.parents,
        [torch.tensor([0.3, 0.7]).log()] + [torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()] * 3,
    )
    data = truth.sample((300,), generator=torch.Generator().manual_seed(0))
    data[:, 0] = -100
    stuck = em(net, data)  # the states of a uniform latent table stay equal
    results = [
        em(net, data, restarts=4, generator=torch.Generator().manual_seed(1), max_iterations=500) for _ in range(2)
    ]
    assert results[0].log_evidence == results[1].log_evidence
    assert len(results[0].starts) == 4
    assert results[0].log_evidence[-1] == max(results[0].starts) > stuck.log_evidence[-1] + 1


def test_tied_tables_are_one() -> None:
    net = network(7)
    cards, parents = [2, 3, 3, 3], [[], [0], [0], [0]]
    tables = [random_scores(shape, v).log_softmax(-1) for v, shape in enumerate([(2,), (2, 3), (2, 3), (2, 3)])]
    net = lnz.BayesNet(cards, parents, tables)
    data = holes(net, 200, 0.3, 1)
    result = em(
        net.m_step(net.tied(net.expected_statistics(data, reduce=True), [[1, 2, 3]])),
        data,
        tied=[[1, 2, 3]],
        max_iterations=20,
    )
    for variable in (2, 3):
        equal(result.model.log_cpts[1], result.model.log_cpts[variable])
    assert (torch.tensor(result.log_evidence).diff() >= -1e-9).all()
    assert result.parameters == 1 + 2 * 2
    assert em(net, data, max_iterations=1).parameters == 1 + 3 * 2 * 2
    with pytest.raises(ValueError, match=r"tied\[0\]: expected variables with tables of one shape"):
        em(net, data, tied=[[0, 1]])


def test_weights_are_counts_of_rows() -> None:
    net = network(8)
    data = holes(net, 20, 0.4, 2)
    weights = torch.randint(1, 5, (20,), generator=torch.Generator().manual_seed(0))
    one = em(net, data, weights=weights.double(), max_iterations=5)
    two = em(net, data.repeat_interleave(weights, 0), max_iterations=5)
    assert one.log_evidence == pytest.approx(two.log_evidence)
    assert one.observations == two.observations == weights.sum()
    assert one.aic == pytest.approx(2 * one.parameters - 2 * one.log_evidence[-1])
    assert one.bic == pytest.approx(math.log(one.observations) * one.parameters - 2 * one.log_evidence[-1])


def test_minibatches_come_close_in_few_passes() -> None:
    net = network(9)
    data = holes(net, 2000, 0.3, 3)
    start = net.drawn(data, torch.Generator().manual_seed(0))
    full = em(start, data, max_iterations=5)
    steps = em(start, data, batch_size=100, max_iterations=5, generator=torch.Generator().manual_seed(0))
    best = em(start, data, max_iterations=200)
    assert full.log_evidence[0] == steps.log_evidence[0]
    assert best.log_evidence[-1] - steps.log_evidence[-1] < 0.5 * (best.log_evidence[-1] - full.log_evidence[-1]) + 2


def test_a_dirichlet_prior_is_a_pseudocount() -> None:
    net = network(10)
    data = holes(net, 40, 0.4, 5)
    result = em(net, data, pseudocount=0.5, max_iterations=30)
    assert (torch.tensor(result.objective).diff() >= -1e-9).all()
    assert all(torch.isfinite(table).all() for table in result.model.log_cpts)


def test_what_is_impossible_stays_so_and_is_no_parameter() -> None:
    tables = [torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]).log()]
    net = lnz.BayesNet([2, 3], [[], [0]], tables)
    data = torch.tensor([[-100, 0], [-100, 1], [-100, 2], [-100, 1]])
    result = em(net, data, pseudocount=0.1, restarts=2, generator=torch.Generator().manual_seed(0))
    assert torch.isneginf(result.model.log_cpts[1]).tolist() == [[False, False, True], [True, False, False]]
    assert result.parameters == 1 + 2


def test_hidden_markov_models_restart_too() -> None:
    truth = HiddenMarkovModel(torch.zeros(2), 3 * torch.eye(2), GaussianEmission(torch.tensor([[-2.0], [2.0]])))
    x, _ = truth.sample(3, 60, torch.Generator().manual_seed(0))
    flat = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), GaussianEmission(torch.zeros(2, 1)))
    stuck = em(flat, x).log_evidence[-1]
    model = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), GaussianEmission(torch.zeros(2, 1)))
    result = em(model, x, restarts=4, generator=torch.Generator().manual_seed(1))
    assert result.model is model
    assert result.log_evidence[-1] > stuck + 10
    assert float(model(x).log_evidence.sum()) == pytest.approx(result.log_evidence[-1], rel=1e-5)
    assert (result.parameters, result.observations) == (1 + 2 + 4, 180)
    symbols = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), CategoricalEmission(torch.zeros(2, 3)))
    assert em(symbols, torch.randint(3, (2, 9)), restarts=2).parameters == 1 + 2 + 4


def test_what_a_model_lacks_is_named() -> None:
    model = HiddenMarkovModel(torch.zeros(2), torch.zeros(2, 2), CategoricalEmission(torch.zeros(2, 3)))
    for settings in ({"tied": [[0, 1]]}, {"batch_size": 2}, {"weights": torch.ones(2)}):
        with pytest.raises(TypeError, match=f"{next(iter(settings))}: HiddenMarkovModel has no"):
            em(model, torch.zeros(2, 4, dtype=torch.int64), **settings)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model: expected one with an E step and an M step, such as lnz\.BayesNet"):
        em(lnz.LinearChain(torch.zeros(2, 3), torch.zeros(3, 3)), torch.zeros(2, 2))  # type: ignore[type-var]


class _Coin:
    """A learner with the old names: the probability of heads."""

    def __init__(self, share: float) -> None:
        self.share = share

    def expected_statistics(self, data: Tensor, lengths: object = None) -> tuple[Tensor, Tensor]:
        return (data * math.log(self.share) + (1 - data) * math.log(1 - self.share)).sum(), data.mean()

    def maximised(self, statistics: Tensor, pseudocount: float) -> _Coin:
        return _Coin(float(statistics))

    def log_prior(self, pseudocount: float) -> Tensor:
        return torch.zeros(())


def test_the_old_names_of_the_steps_serve() -> None:
    result = em(_Coin(0.9), torch.tensor([0.0, 1.0, 1.0, 0.0]))  # type: ignore[type-var]
    assert result.model.share == 0.5
    assert result.converged
    with pytest.raises(TypeError, match="_Coin does not say its parameters"):
        _ = result.aic


def answers(path: Path) -> tuple[Tensor, Tensor]:
    """Rows with the class missing, and how often each counts."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    items = [name for name in rows[0] if name != "count"]
    data = torch.tensor([[int(row[name] == "yes") for name in items] for row in rows])
    return data, torch.tensor([float(row.get("count", 1)) for row in rows]).double()


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [("carcinoma", 2, -317.2568), ("carcinoma", 3, -293.705), ("pleural", 2, -891.1428)],
)
def test_published_likelihoods_of_latent_classes(shared_data: Path, name: str, classes: int, published: float) -> None:
    data, counts = answers(shared_data / f"latent_class/{name}.csv")
    net = lnz.latent_class(classes, [2] * data.shape[1])
    result = em(
        net, data, weights=counts, restarts=50, max_iterations=2000, tolerance=1e-10,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert result.log_evidence[-1] == pytest.approx(published, abs=1e-3)
    assert result.parameters == classes - 1 + classes * data.shape[1]
    assert result.model.classes(data).shape == (len(data), classes)


def test_votes_are_classified_by_naive_bayes(shared_data: Path) -> None:
    """Ten folds of the congressional votes of 1984, 392 of which are missing: about 90 % right."""
    votes = np.load(shared_data / "discrete_votes/votes.npz", allow_pickle=False)
    data = torch.from_numpy(votes["X"]).long()  # the party first
    data = data.masked_fill(data < 0, -100)[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
    right = 0
    for fold in range(10):
        held = torch.arange(len(data)) % 10 == fold
        model = em(lnz.naive_bayes(2, [2] * 16), data[~held], pseudocount=1.0, max_iterations=50).model
        right += int((model.classes(data[held, 1:]).argmax(-1) == data[held, 0]).sum())
    assert 0.88 < right / len(data) < 0.93
