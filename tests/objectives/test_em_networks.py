"""EM for Bayesian networks with holes: monotone, kin to the gradient, published likelihoods, restarts, tied tables."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch
from torch import Tensor

import lnz
from lnz.nn import CategoricalEmission, GaussianEmission, HiddenMarkovModel
from lnz.objectives import em
from tests import memory
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


def tree_of(data: Tensor) -> list[list[int]]:
    """Parents of a tree-augmented naive Bayes classifier (Friedman, Geiger & Goldszmidt 1997), the class first.

    The tree of the features is the one of the largest sum of I(X_i; X_j | class), of the rows that have all three.
    """
    features = range(1, data.shape[1])
    graph = networkx.Graph()
    for i, j in itertools.combinations(features, 2):
        cells = data[:, [0, i, j]]
        counts = torch.zeros(2, 2, 2, dtype=torch.float64)
        for c, a, b in cells[(cells >= 0).all(-1)].tolist():
            counts[c, a, b] += 1
        joint = (counts + 1e-9) / (counts + 1e-9).sum()
        apart = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True) / joint.sum((1, 2), keepdim=True)
        graph.add_edge(i, j, weight=float((joint * (joint / apart).log()).sum()))
    tree = networkx.maximum_spanning_tree(graph)
    above = dict(networkx.bfs_predecessors(tree, 1))
    return [[], [0], *([0, above[i]] for i in features if i != 1)]


@pytest.mark.data
def test_votes_are_classified_by_a_tree_augmented_naive_bayes(shared_data: Path) -> None:
    """Ten folds of the same votes: 93 to 95 % right, as published, by EM over the missing cells."""
    votes = np.load(shared_data / "discrete_votes/votes.npz", allow_pickle=False)
    data = torch.from_numpy(votes["X"]).long()
    data = data.masked_fill(data < 0, -100)[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))]
    right = 0
    for fold in range(10):
        held = torch.arange(len(data)) % 10 == fold
        parents = tree_of(data[~held])
        tables = [torch.full([2] * (len(above) + 1), 0.5, dtype=torch.float64).log() for above in parents]
        result = em(lnz.BayesNet([2] * 17, parents, tables), data[~held], pseudocount=1.0, max_iterations=50)
        assert (torch.tensor(result.objective).diff() >= -1e-9).all()
        asked = data[held].clone()
        asked[:, 0] = -100
        party = result.model.condition(asked).node_marginals[:, 0, :2].argmax(-1)
        right += int((party == data[held, 0]).sum())
    assert 0.92 < right / len(data) < 0.965


def alarm(shared_data: Path) -> lnz.BayesNet:
    return lnz.BayesNet.from_bif(shared_data / "bayesnets/alarm.bif.gz")


def distance(truth: lnz.BayesNet, net: lnz.BayesNet) -> float:
    """The total variation of tables, their rows as likely as their parents are in truth, summed over variables."""
    joint = truth.condition(torch.full((len(truth.names),), -100)).marginals
    return sum(
        float((joint[v].sum(-1) * (table.exp() - other.exp()).abs().sum(-1) / 2).sum())
        for v, (table, other) in enumerate(zip(truth.log_cpts, net.log_cpts, strict=True))
    )


@pytest.mark.data
def test_rows_with_holes_teach_more_than_the_complete_ones_alone(shared_data: Path) -> None:
    """ALARM, 1,000 rows, a tenth of the cells missing at random: few rows are complete."""
    truth, generator = alarm(shared_data), torch.Generator().manual_seed(0)
    data = truth.sample((1000,), generator=generator)
    data = data.masked_fill(torch.rand(data.shape, generator=generator) < 0.1, -100)
    complete = data[(data >= 0).all(-1)]
    assert 5 < len(complete) < 60
    result = em(truth.drawn(data, generator), data, max_iterations=30)
    assert (torch.tensor(result.log_evidence).diff() >= -1e-9 * abs(result.log_evidence[-1])).all()
    assert distance(truth, result.model) < distance(truth, truth.fit(complete)) / 3


@pytest.mark.slow
@pytest.mark.data
def test_em_and_the_expected_gradient_end_at_the_same_point(shared_data: Path) -> None:
    """ALARM with three hidden variables, 2,000 rows: L-BFGS on the log evidence, and EM, from one start.

    A prior of half a count keeps the tables off the boundary, where no gradient vanishes.
    """
    truth, generator, count = alarm(shared_data), torch.Generator().manual_seed(1), 0.5
    data = truth.sample((2000,), generator=generator)
    hidden = [truth.names.index(name) for name in ("HYPOVOLEMIA", "LVEDVOLUME", "STROKEVOLUME")]
    data[:, hidden] = -100
    tables = [(table.exp() + 0.1).log().log_softmax(-1) for table in truth.log_cpts]
    first = lnz.BayesNet(truth.cardinalities, truth.parents, tables)
    result = em(first, data, pseudocount=count, max_iterations=1000, tolerance=1e-13)
    logits = [table.clone().requires_grad_() for table in tables]
    rows, weights = torch.unique(data, dim=0, return_counts=True)

    def objective() -> Tensor:
        net = lnz.BayesNet(truth.cardinalities, truth.parents, [each.log_softmax(-1) for each in logits])
        return (net.log_prob(rows) * weights).sum() + net.log_prior(count)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -objective()
        value.backward()
        return value

    optimizer = torch.optim.LBFGS(
        logits, max_iter=400, history_size=20, tolerance_grad=1e-5, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )
    optimizer.step(loss)
    assert float(objective().detach()) == pytest.approx(result.objective[-1], abs=1e-3)
    for v, (one, two) in enumerate(zip(logits, result.model.log_cpts, strict=True)):
        equal(one.softmax(-1), two.exp(), rtol=0.0, atol=2e-3)
        if v in hidden:
            assert ((two.exp() - 1 / truth.cardinalities[v]).abs() > 0.02).any()  # no uniform table
    # at the end of EM the expected gradient is 0: counts are in proportion to the tables
    counts = result.model.expected_statistics(data, reduce=True)
    for table, each in zip(result.model.log_cpts, counts, strict=True):
        smoothed = each + count
        equal(smoothed - smoothed.sum(-1, keepdim=True) * table.exp(), torch.zeros_like(each), rtol=0.0, atol=1e-2)


_MEMORY = """
import sys, torch, lnz
from tests.memory import peak

net, generator = lnz.BayesNet.from_bif(sys.argv[1]), torch.Generator().manual_seed(0)
data = net.sample((100_000,), generator=generator)
data[torch.rand(data.shape, generator=generator) < 0.1] = -100
net.e_step(data[:20_000])
before = peak()
evidence, counts = net.e_step(data)
net.m_step(counts)
print(peak() - before, len(torch.unique((data < 0).long() @ (2 ** torch.arange(data.shape[1])))), float(evidence))
"""


@memory.linux
@pytest.mark.slow
@pytest.mark.data
def test_memory_of_an_iteration_does_not_grow_with_rows(shared_data: Path) -> None:
    """ALARM, 100,000 rows, most with holes of their own: a copy of the tables per row would take 690 MB."""
    path = str(shared_data / "bayesnets/alarm.bif.gz")
    grown, patterns, evidence = map(float, memory.run(_MEMORY, path).split())
    assert patterns > 50_000
    assert math.isfinite(evidence)
    assert grown < 60e6  # beyond 20,000 rows; the data are 30 MB, and each row's evidence is returned
