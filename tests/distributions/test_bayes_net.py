"""BayesNet: the shared suite over random networks; evidence, statistics, sampling, names, and its checks."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.distributions import statistics
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(cardinalities: list[int], parents: list[list[int]], tables: list[Tensor]) -> Instance:
    """Scores of any size: the suite perturbs, cools and forbids them, which no log-probabilities survive."""
    return Instance(
        tuple(tables),
        lambda *leaves: lnz.BayesNet(cardinalities, parents, leaves, normalised=False),
        lambda *leaves: oracles.bayes_net(cardinalities, parents, leaves),
    )


def random_parents(draw: st.DrawFn, nodes: int) -> list[list[int]]:
    """Up to two parents each, before the variable in some order."""
    order = draw(st.permutations(range(nodes)))
    parents: list[list[int]] = [[] for _ in range(nodes)]
    for place, variable in enumerate(order):
        parents[variable] = draw(st.lists(st.sampled_from(order[:place]), max_size=2, unique=True)) if place else []
    return parents


@st.composite
def nets(draw: st.DrawFn) -> Instance:
    cards = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    parents, seed = random_parents(draw, len(cards)), draw(seeds)
    batch, impossible = draw(batch_shapes), draw(impossibilities)
    tables = [
        random_scores((*draw(st.sampled_from([(), batch])), *(cards[n] for n in (*above, v))), seed + v, impossible / 2)
        for v, above in enumerate(parents)
    ]
    return instance(cards, parents, tables)


class TestRandomNetworks(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return nets()

    @staticmethod
    def example() -> Instance:
        parents = [[], [0], [0, 1]]
        shapes = [(2, 2), (2, 2, 2), (2, 2, 2, 2)]
        return instance([2, 2, 2], parents, [random_scores(shape, v) for v, shape in enumerate(shapes)])

    @staticmethod
    def empties() -> dict[str, Instance]:
        return {
            "batch": instance([2, 3], [[], [0]], [random_scores((0, 2), 0), random_scores((0, 2, 3), 1)]),
        }


def network(seed: int = 0, batch: tuple[int, ...] = ()) -> lnz.BayesNet:
    """Five variables, one collider and one loop."""
    cards, parents = [2, 3, 2, 2, 3], [[], [0], [0], [1, 2], [3]]
    tables = [
        random_scores((*batch, *(cards[n] for n in (*above, v))), seed + v).log_softmax(-1)
        for v, above in enumerate(parents)
    ]
    return lnz.BayesNet(cards, parents, tables, names=list("abcde"))


def rows_of(net: lnz.BayesNet) -> Tensor:
    return torch.tensor(list(itertools.product(*map(range, net.cardinalities))))


def holes(net: lnz.BayesNet, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    y = net.sample((count,), generator=generator)
    return y.masked_fill(torch.rand(y.shape, generator=generator) < 0.4, -100)


def test_a_full_row_is_a_sum_of_local_log_probabilities() -> None:
    net = network()
    rows = rows_of(net)
    a, b, c, d, e = rows.unbind(-1)
    q = net.log_cpts
    equal(net.log_prob(rows), q[0][a] + q[1][a, b] + q[2][a, c] + q[3][b, c, d] + q[4][d, e])
    equal(net.log_prob(rows).exp().sum(), torch.ones((), dtype=torch.float64))
    equal(net.log_partition, torch.zeros((), dtype=torch.float64))


def test_rows_with_holes_are_summed_over_them() -> None:
    """A different pattern in each row, and a row of holes only."""
    net, rows = network(), rows_of(network())
    y = torch.cat((holes(net, 40, 1), torch.full((1, 5), -100)))
    joint = net.log_prob(rows)
    fits = ((y[:, None] == rows) | (y[:, None] == -100)).all(-1)
    equal(net.log_prob(y), torch.where(fits, joint, -torch.inf).logsumexp(-1))


@given(seeds)
def test_the_gradient_by_probabilities_is_the_expected_statistics_over_them(seed: int) -> None:
    """∇_Q(−ln Q(y)) = −E[counts | y] / Q, entry by entry: the expected gradient of latent variables."""
    net = network(seed % 97)
    tables = [table.exp().requires_grad_() for table in net.log_cpts]
    p = lnz.BayesNet(net.cardinalities, net.parents, [table.log() for table in tables], normalised=False)
    y = holes(net, 6, seed)
    posterior = p.condition(y).log_partition.sum()
    gradients = torch.autograd.grad(-posterior, tables)
    for gradient, table, counts in zip(gradients, tables, net.expected_statistics(y, reduce=True), strict=True):
        equal(gradient, -counts / table)


def test_statistics_are_expectations_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, rows = network(), rows_of(network())
    y = holes(net, 30, 2)
    posterior = (
        net.log_prob(rows) + torch.where(((y[:, None] == rows) | (y[:, None] == -100)).all(-1), 0, -torch.inf)
    ).softmax(-1)
    found = net.expected_statistics(y)
    for variable, (counts, above) in enumerate(zip(found, net.parents, strict=True)):
        index = rows[:, [*above, variable]]
        wanted = torch.zeros(30, *net.families.shape(variable), dtype=torch.float64)
        for weight, at in zip(posterior.T, index.tolist(), strict=True):
            wanted[(slice(None), *at)] += weight
        equal(counts, wanted)
    monkeypatch.setattr(statistics, "BLOCK", 100)
    for one, two, total in zip(net.expected_statistics(y), found, net.expected_statistics(y, reduce=True), strict=True):
        equal(one, two)
        equal(total, two.sum(0))


def test_tables_per_row_come_from_a_network() -> None:
    net = network(batch=(7,))
    y = holes(network(), 7, 3)
    for row in range(7):
        alone = lnz.BayesNet(net.cardinalities, net.parents, [table[row] for table in net.log_cpts])
        equal(net.log_prob(y)[row], alone.log_prob(y[row]))
        for one, two in zip(net.expected_statistics(y), alone.expected_statistics(y[row : row + 1]), strict=True):
            equal(one[row], two[0])
    drawn = net.sample((2000,), generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2000, 7, 5)
    share = (drawn[..., 0] == 1).double().mean(0)
    assert ((share - net.log_cpts[0].exp()[:, 1]).abs() < 0.06).all()


def test_ancestral_samples_have_the_joint_distribution() -> None:
    net, rows = network(), rows_of(network())
    drawn = net.sample((20000,), generator=torch.Generator().manual_seed(0))
    count = (drawn[:, None] == rows).all(-1).double().sum(0)
    wanted = 20000 * net.log_prob(rows).exp()
    assert ((count - wanted).abs() < 5 * wanted.sqrt() + 1).all()


def test_what_is_done_cuts_its_parents() -> None:
    """Seeing says something of the causes, doing does not; effects follow both alike where nothing confounds them."""
    net = network()
    done, seen = net.do({"b": 2}), net.query(["a"], {"b": 2})
    assert done.query(["a"]) == {"a": pytest.approx(net.query(["a"])["a"])}
    assert seen["a"] != pytest.approx(net.query(["a"])["a"], abs=1e-3)
    equal(done.log_partition, torch.zeros((), dtype=torch.float64))
    # back door: P(d | do(b)) = Σ_a P(a) P(d | a, b)
    weights = net.log_cpts[0].exp()
    by_cause = [net.query(["d"], {"a": a, "b": 2})["d"]["1"] for a in range(2)]
    assert done.query(["d"])["d"]["1"] == pytest.approx(float(weights @ torch.tensor(by_cause).double()))


def test_soft_evidence_is_a_weight_per_state() -> None:
    net, rows = network(), rows_of(network())
    found = net.query(["a", "d"], {"e": {"0": 0.2, "2": 0.6}, "c": "1"})
    weights = net.log_prob(rows).exp() * (rows[:, 2] == 1) * torch.tensor([0.2, 0.0, 0.6]).double()[rows[:, 4]]
    for name, column in (("a", 0), ("d", 3)):
        share = torch.stack([weights[rows[:, column] == state].sum() for state in range(2)]) / weights.sum()
        assert list(found[name].values()) == pytest.approx(share.tolist())
    hard = net.query(["a"], {"e": {"1": 5.0}})
    assert hard == {"a": pytest.approx(net.query(["a"], {"e": "1"})["a"])}


@pytest.mark.parametrize("method", [None, lnz.inference.Enumeration()])
@pytest.mark.parametrize("evidence", [{}, {"e": "2"}, {"d": 1, "c": {"0": 0.2, "1": 0.7}}])
@pytest.mark.parametrize("wanted", [["a"], ["d", "b"], ["e", "a", "c"], list("abcde")])
def test_marginal_map_sums_all_other_variables_out(
    method: lnz.inference.Method | None, evidence: dict[str, object], wanted: list[str]
) -> None:
    plain, rows = network(), rows_of(network())
    net = lnz.BayesNet(plain.cardinalities, plain.parents, plain.log_cpts, names=plain.names, inference=method)
    mass = plain.log_prob(rows).exp()
    if "e" in evidence:
        mass = mass * (rows[:, 4] == 2)
    if "d" in evidence:
        mass = mass * (rows[:, 3] == 1) * torch.tensor([0.2, 0.7], dtype=torch.float64)[rows[:, 2]]
    columns = [net.names.index(name) for name in wanted]
    sums: dict[tuple[int, ...], float] = {}
    for labels, share in zip(map(tuple, rows[:, columns].tolist()), mass.tolist(), strict=True):
        sums[labels] = sums.get(labels, 0.0) + share
    best = max(sums, key=lambda labels: sums[labels])
    found, value = net.marginal_map(wanted, evidence)  # type: ignore[arg-type]
    assert found == {name: str(label) for name, label in zip(wanted, best, strict=True)}
    assert value == pytest.approx(math.log(sums[best]), abs=1e-9)


def test_marginal_map_is_neither_of_its_two_kin() -> None:
    """a alone is likeliest 0, and 1 in the likeliest row (Park & Darwiche 2004 give such cases)."""
    net = lnz.BayesNet(
        [2, 3], [[], [0]], [torch.tensor([0.6, 0.4]).log(), torch.tensor([[1 / 3] * 3, [1, 0, 0]]).log()]
    )
    assert net.argmax().tolist() == [1, 0]
    assert net.marginal_map([0]) == ({"0": "0"}, pytest.approx(math.log(0.6), abs=1e-6))


def test_wrong_marginal_maps_are_refused_by_name() -> None:
    net = network()
    for wanted, message in (([], "different nodes"), (["a", "a"], "different nodes"), (["z"], "got 'z'")):
        with pytest.raises(ValueError, match=message):
            net.marginal_map(wanted)
    with pytest.raises(ValueError, match="marginal_map: expected one network, got a batch"):
        network(batch=(2,)).marginal_map(["a"])
    approximate = lnz.BayesNet(net.cardinalities, net.parents, net.log_cpts, inference=lnz.inference.MeanField())
    with pytest.raises(TypeError, match="MeanField has no marginal MAP; methods that do: Exact"):
        approximate.marginal_map([0])
    sure = net.do({"a": 0})
    with pytest.raises(lnz.InfeasibleError, match="Z = 0"):
        sure.marginal_map(["b"], {"a": 1})


def test_relative_frequencies_are_the_tables_of_highest_likelihood() -> None:
    net = network()
    data = net.sample((5000,), generator=torch.Generator().manual_seed(0))
    fitted = net.fit(data)
    assert fitted.log_prob(data).sum() > net.log_prob(data).sum()
    for table, above, variable in zip(fitted.log_cpts, net.parents, range(5), strict=True):
        for joint in itertools.product(*(range(net.cardinalities[n]) for n in above)):
            some = data[(data[:, above] == torch.tensor(joint)).all(-1), variable] if above else data[:, variable]
            equal(table[joint].exp(), torch.bincount(some, minlength=net.cardinalities[variable]).double() / len(some))
    twice = net.fit(data[:100], weights=torch.full((100,), 2.0))
    for one, two in zip(twice.log_cpts, net.fit(data[:100]).log_cpts, strict=True):
        equal(one, two)
    equal(net.fit(data[:1], pseudocount=1.0).log_cpts[0].exp().sum(), torch.ones((), dtype=torch.float64))


def test_a_file_gives_back_the_same_network(tmp_path: Path) -> None:
    net = network()
    named = lnz.BayesNet(
        net.cardinalities, net.parents, net.log_cpts,
        names=["a", "b b", "c", "d/e", "e"], states=[["no", "yes"], ["x y", "<2", "3"], ["0", "1"], ["a", "b"], "xyz"],
    )  # fmt: skip
    named.to_bif(tmp_path / "net.bif")
    back = lnz.BayesNet.from_bif(tmp_path / "net.bif")
    assert (back.names, back.states, back.parents) == (named.names, named.states, named.parents)
    for one, two in zip(back.log_cpts, named.log_cpts, strict=True):
        equal(one, two, rtol=1e-14, atol=1e-14)
    assert repr(back) == "BayesNet(5 variables, 5 edges)"


def test_published_networks(shared_data: Path) -> None:
    alarm = lnz.BayesNet.from_bif(shared_data / "bayesnets/alarm.bif.gz")
    assert repr(alarm) == "BayesNet(37 variables, 46 edges)"
    y = alarm.sample((50,), generator=torch.Generator().manual_seed(0))
    assert alarm.log_prob(y).isfinite().all()
    some = y.masked_fill(torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.5, -100)
    totals = alarm.expected_statistics(some, reduce=True)
    assert all(math.isclose(float(counts.sum()), 50, rel_tol=1e-9) for counts in totals)


NETWORKS = [
    "alarm",
    "asia",
    "cancer",
    "child",
    "earthquake",
    "hailfinder",
    "insurance",
    "sachs",
    "survey",
    "water",
    "win95pts",
]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", NETWORKS)
def test_posteriors_are_those_of_pyagrum(shared_data: Path, name: str) -> None:
    """Fifty sets of evidence drawn from the network itself, in one call; pyAgrum has the same float64 tables."""
    pyagrum = pytest.importorskip("pyagrum", reason="needs pyagrum")
    net = lnz.BayesNet.from_bif(shared_data / f"bayesnets/{name}.bif.gz")
    generator = torch.Generator().manual_seed(0)
    y = net.sample((50,), generator=generator)
    y = y.masked_fill(torch.rand(y.shape, generator=generator) < torch.linspace(0.4, 1.0, 50)[:, None], -100)
    found = net.condition(y).node_marginals
    theirs = pyagrum.BayesNet()
    for variable, card in enumerate(net.cardinalities):
        theirs.add(pyagrum.LabelizedVariable(f"v{variable}", "", card))
    for variable, above in enumerate(net.parents):
        for parent in above:
            theirs.addArc(f"v{parent}", f"v{variable}")
    for variable, above in enumerate(net.parents):
        axes = [int(axis[1:]) for axis in reversed(theirs.cpt(f"v{variable}").names)]
        order = [[*above, variable].index(axis) for axis in axes]
        theirs.cpt(f"v{variable}")[:] = net.log_cpts[variable].exp().permute(order).contiguous().numpy()
    engine = pyagrum.LazyPropagation(theirs)
    for row, seen in enumerate(y.tolist()):
        engine.setEvidence({f"v{v}": label for v, label in enumerate(seen) if label >= 0})
        engine.makeInference()
        for variable, card in enumerate(net.cardinalities):
            wanted = torch.from_numpy(engine.posterior(f"v{variable}").toarray())
            equal(found[row, variable, :card], wanted, rtol=0.0, atol=1e-9)
    turned = torch.randperm(50, generator=generator)
    assert torch.equal(net.condition(y[turned]).node_marginals, found[turned])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": [[], [0], [0], [1, 2]]}, r"parents: expected one list per variable, 5, got 4"),
        ({"parents": [[4], [0], [0], [1, 2], [3]]}, r"parents: expected no directed cycle, got"),
        ({"parents": [[], [0], [7], [1, 2], [3]]}, r"parents\[2\]: expected variables in \[0, 5\), got 7"),
        ({"parents": [[], [0], [0, 0], [1, 2], [3]]}, r"parents\[2\]: expected every parent once, got \[0, 0\]"),
        ({"log_cpts": [torch.zeros(2)] * 4}, r"log_cpts: expected one table per variable, 5, got 4"),
        ({"names": ["a"] * 5}, r"names: expected 5 different names"),
        ({"states": [["x", "y"]] * 5}, r"states: expected 3 different states of 'b'"),
    ],
)
def test_wrong_networks_are_refused_by_name(change: dict[str, object], message: str) -> None:
    net = network()
    arguments = {"parents": net.parents, "log_cpts": net.log_cpts, "names": net.names} | change
    with pytest.raises(ValueError, match=message):
        lnz.BayesNet(net.cardinalities, **arguments)  # type: ignore[arg-type]


def test_tables_that_are_no_distributions_are_refused() -> None:
    net = network()
    tables = list(net.log_cpts)
    with pytest.raises(ValueError, match=r"log_cpts\[3\]: expected shape \[\*batch, 3, 2, 2\], of parents \[1, 2\]"):
        lnz.BayesNet(net.cardinalities, net.parents, [*tables[:3], tables[3].mT[0], tables[4]])
    tables[1] = tables[1] + 1
    with pytest.raises(ValueError, match=r"log_cpts\[1\]: expected log-probabilities, each row of which sums to 1"):
        lnz.BayesNet(net.cardinalities, net.parents, tables)


def test_impossible_evidence_names_its_rows() -> None:
    tables = [torch.tensor([1.0, 0.0]).log(), torch.eye(2).log()]
    net = lnz.BayesNet([2, 2], [[], [0]], tables)
    y = torch.tensor([[-100, 0], [-100, 1], [1, -100]])
    assert net.log_prob(y).tolist() == [0.0, -math.inf, -math.inf]
    with pytest.raises(lnz.InfeasibleError, match=r"rows \[1, 2\]") as error:
        net.expected_statistics(y)
    assert error.value.entries == (1, 2)
    with pytest.raises(ValueError, match=r"expected a state of '1', one of 0, 1, got 'x'"):
        net.query([0], {"1": "x"})
    with pytest.raises(ValueError, match=r"expected the name or number of a variable, one of 0, 1, got 'z'"):
        net.query(["z"])
    with pytest.raises(ValueError, match="data: expected a full labelling"):
        net.fit(y)


def sure() -> lnz.BayesNet:
    """The second variable is the first, which is always 0."""
    tables = [torch.tensor([1.0, 0.0]).log(), torch.eye(2).log()]
    return lnz.BayesNet([2, 2], [[], [0]], tables, names=["rain", "wet"], states=[["no", "yes"]] * 2)


def test_impossible_evidence_is_said_to_be_so() -> None:
    p = sure().condition(torch.tensor([-100, 1]))
    calls = {
        "marginals": lambda: p.marginals[0],
        "node_marginals": lambda: p.node_marginals,
        "argmax": p.argmax,
        "sample": p.sample,
        "entropy": p.entropy,
    }
    for what, call in calls.items():
        with pytest.raises(
            lnz.InfeasibleError, match=f"BayesNet.{what}: no labelling .* score; what is observed has probability 0"
        ):
            call()
    batch = sure().condition(torch.tensor([[0, 0], [-100, 1]]))
    with pytest.raises(lnz.InfeasibleError, match=r"BayesNet.argmax: .* in batch entries \[1\]") as error:
        batch.argmax()
    assert error.value.entries == (1,)
    with pytest.raises(lnz.InfeasibleError, match="evidence: expected some of positive probability, got 0 of wet=yes"):
        sure().query(["rain"], {"wet": "yes"})
    with pytest.raises(lnz.InfeasibleError, match="evidence: expected some of positive probability"):
        sure().query(["rain"], {"wet": {"no": 0.0}})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sure().do({"wet": "maybe"}), ValueError, "expected a state of 'wet', one of no, yes, got 'maybe'"),
        (lambda: sure().query(["rain"], {"wet": {"no": -1}}), ValueError, "evidence.* expected weights of at least 0"),
        (lambda: sure().fit(torch.tensor([[0, 2]])), ValueError, r"data: expected labels in \[0, 2\), .* at \[0, 1\]"),
        (lambda: sure().fit(torch.tensor([[0.0, 1.0]])), TypeError, "data: expected a torch.Tensor of integers"),
        (lambda: sure().fit(torch.zeros(0, 2).long()), ValueError, r"data: expected rows \[R, 2\], got \[0, 2\]"),
        (lambda: sure().fit(torch.zeros(2).long()), ValueError, r"data: expected rows \[R, 2\], got \[2\]"),
        (
            lambda: sure().fit(torch.zeros(2, 2).long(), weights=torch.ones(1)),
            ValueError,
            r"weights: expected shape \[2\], one per row, got \[1\]",
        ),
        (
            lambda: sure().fit(torch.zeros(2, 2).long(), weights=torch.tensor([1.0, -1.0])),
            ValueError,
            "weights: expected finite numbers of at least 0",
        ),
        (
            lambda: sure().expected_statistics(torch.zeros(3, 3).long()),
            ValueError,
            r"data: expected shape \[\*batch, 2\]",
        ),
        (lambda: lnz.latent_class(2, []), ValueError, "cardinalities: expected at least one item, got none"),
        (
            lambda: lnz.latent_class(2, [2] * 3).fit(torch.zeros(4, 2).long()),
            ValueError,
            r"data: expected shape \[\*batch, 3\] of items, or \[\*batch, 4\] with the class first, got \[4, 2\]",
        ),
    ],
)
def test_data_that_make_no_sense(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()  # type: ignore[operator]


def test_no_rows_are_counted_as_none() -> None:
    net = network()
    empty = torch.zeros(0, 5).long()
    assert [counts.shape[0] for counts in net.expected_statistics(empty)] == [0] * 5
    assert all((counts == 0).all() for counts in net.expected_statistics(empty, reduce=True))
    assert net.log_prob(empty).shape == (0,)


def test_a_column_of_one_value_is_learnt_as_certain() -> None:
    net = network()
    data = net.sample((50,), generator=torch.Generator().manual_seed(0))
    data[:, 1] = 2
    fitted = net.fit(data)
    assert (fitted.log_cpts[1].exp()[..., 2] == 1).all()
    assert fitted.log_prob(data).isfinite().all()
    one = lnz.BayesNet([2, 1], [[], [0]], [torch.tensor([0.5, 0.5]).log(), torch.zeros(2, 1)])
    assert torch.equal(one.fit(torch.tensor([[0, 0], [1, 0]])).log_cpts[1], torch.zeros(2, 1))


def test_posteriors_that_are_too_large_say_what_would_work() -> None:
    cards, parents = [3] * 5, [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    tables = [random_scores(tuple(cards[n] for n in (*above, v)), v).log_softmax(-1) for v, above in enumerate(parents)]
    net = lnz.BayesNet(cards, parents, tables, inference=lnz.inference.Exact(max_table=50))
    y = torch.tensor([[-100] * 4 + [0]])
    with pytest.raises(lnz.IntractableError, match=r"pass inference=lnz.inference.BeliefPropagation\(\)") as error:
        _ = net.condition(y).node_marginals
    assert error.value.treewidth == 3  # of a clique of five, one of which is observed
    with pytest.raises(lnz.IntractableError, match=r"pass method=lnz.inference.BeliefPropagation\(\)"):
        lnz.objectives.em(net, y)
    approximate = net.with_inference(lnz.inference.MeanField()).condition(y)
    assert approximate.node_marginals.shape == (1, 5, 3)
    assert net.log_prob(torch.zeros(5).long()).isfinite()  # of full rows no table is needed


@given(seeds)
def test_the_e_step_of_class_models_is_that_of_every_network(seed: int) -> None:
    """Missing items, rows whose class is known, weights, and answers that a class never gives."""
    generator = torch.Generator().manual_seed(seed)
    start = lnz.latent_class(3, [2, 3, 2])
    tables = [table.clone() for table in start.drawn(torch.empty(0), generator).log_cpts]
    tables[2][1] = torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64).log()
    model = type(start)(start.cardinalities, start.parents, tables)
    rows = model.sample((40,), generator=generator)
    rows = rows.masked_fill(torch.rand(rows.shape, generator=generator) < 0.4, -100)
    weights = torch.rand(40, generator=generator)
    plain = lnz.BayesNet(model.cardinalities, model.parents, tables)
    for each in (None, weights):
        (evidence, counts), (wanted, others) = model.e_step(rows, None, each), plain.e_step(rows, None, each)
        equal(evidence, wanted)
        for one, two in zip(counts, others, strict=True):
            equal(one, two)
    one, two = model.e_step(rows[:, 1:])[0], plain.e_step(rows.masked_fill(torch.arange(4) == 0, -100))[0]
    equal(one, two)
    impossible = torch.tensor([[0, 0, 0, 0], [1, 0, 2, 0]])
    with pytest.raises(lnz.InfeasibleError, match=r"rows \[1\]"):
        model.e_step(impossible)
