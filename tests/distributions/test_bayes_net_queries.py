"""BayesNet: what is asked by names, under evidence of every kind, and posteriors of published networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import lnz
from tests.distributions.networks import network, rows_of, sure
from tests.suite import equal, random_scores


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
