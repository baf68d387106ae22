"""Belief propagation where messages do not settle: no estimate passes for a good one."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path

import pytest
import torch

import lnz
from lnz.inference import BeliefPropagation, Enumeration, MeanField, TreeReweighted
from tests.inference.test_uai_models import load, published

DIFFERENT = torch.zeros(2, 2).double().masked_fill(~torch.eye(2, dtype=torch.bool), -math.inf)
"""Scores by which two nodes must be equal."""


def quarrel(other: float, method: lnz.inference.Method) -> lnz.MRF:
    """Two groups of four, all equal within and between them, one for label 1 and one for label 0.

    Each group hears its own opinion again, louder each time: messages double with every iteration.
    """
    groups = [pair for group in (range(4), range(4, 8)) for pair in itertools.combinations(group, 2)]
    graph = lnz.FactorGraph.pairwise(8, 2, torch.tensor([*groups, (3, 4)]))
    node = torch.zeros(8, 2).double()
    node[:4, 1], node[4:, 0] = 0.5, other
    return lnz.MRF(graph, (node, DIFFERENT), method)


@pytest.mark.parametrize("damping", [None, 0.0, 0.7])
def test_messages_that_run_away_are_not_converged(damping: float | None) -> None:
    """Two equal sides: −867 after 14 iterations was called converged; 2.69 is right."""
    p = quarrel(0.5, BeliefPropagation(damping=damping))
    exact = lnz.MRF(p.graph, p.scores, Enumeration()).log_partition
    assert exact.item() == pytest.approx(2 + math.log(2))
    with pytest.warns(lnz.ConvergenceWarning) as caught:
        value = p.log_partition
    said = [str(warning.message) for warning in caught]
    assert "messages did, as probabilities, but ln Z and beliefs are not at rest" in said[0]
    assert "is no estimate: whatever its interactions, ln Z lies in [0, 9.545" in said[1]
    assert not p.diagnostics["converged"]
    assert torch.isfinite(value)
    assert value > -1e5  # not without end
    longer = quarrel(0.5, BeliefPropagation(damping=damping, max_iterations=400))
    with pytest.warns(lnz.ConvergenceWarning):
        assert longer.log_partition.item() == pytest.approx(value.item(), rel=1e-3)


def test_the_stronger_side_wins() -> None:
    """Then ln Z is the score of what it says, and that is a lower bound."""
    p = quarrel(0.6, BeliefPropagation())
    assert p.log_partition.item() == pytest.approx(2.4)
    assert p.diagnostics["converged"]
    assert p.diagnostics["damping"] == 0.5
    assert torch.equal(p.node_marginals.argmax(-1), torch.zeros(8, dtype=torch.int64))


def test_grids_do_not_run_away_either() -> None:
    node = torch.zeros(4, 8, 2).double()
    node[:, :4, 1], node[:, 4:, 0] = 0.5, 0.5
    graph = lnz.FactorGraph.grid(4, 8, 2)
    p = lnz.MRF(graph, (node.reshape(32, 2), DIFFERENT), BeliefPropagation())
    with pytest.warns(lnz.ConvergenceWarning) as caught:
        assert -1e6 < p.log_partition < 100
    assert "ln Z and beliefs are not at rest" in str(caught[0].message)
    assert "is no estimate" in str(caught[1].message)
    assert not p.diagnostics["converged"]
    node[:, 4:, 0] = 0.6
    q = lnz.MRF(graph, (node.reshape(32, 2), DIFFERENT), BeliefPropagation())
    assert q.log_partition.item() == pytest.approx(9.6)
    assert q.diagnostics["converged"]
    r = lnz.MRF(graph, q.scores, TreeReweighted(max_iterations=50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lnz.ConvergenceWarning)
        assert 9.78 < r.log_partition < 50


def test_damping_is_for_models_with_impossible_pairs() -> None:
    graph = lnz.FactorGraph.pairwise(3, 2, torch.tensor([[0, 1], [1, 2], [2, 0]]))
    node = torch.tensor([0.0, -math.inf]).double()
    for edge, damping, wanted in (
        (torch.eye(2).double(), None, 0.0),  # −inf of single nodes alone need none
        (torch.eye(2).double(), 0.3, 0.3),
        (DIFFERENT, None, 0.5),
        (DIFFERENT, 0.0, 0.0),
    ):
        for method in (BeliefPropagation(damping=damping), TreeReweighted(damping=damping)):
            assert lnz.MRF(graph, (node, edge), method).diagnostics["damping"] == wanted


@pytest.mark.parametrize(
    ("damping", "schedule", "advised"),
    [
        (None, "flooding", "try damping=0.5, schedule='sequential', or more max_iterations"),
        (0.5, "flooding", "try damping=0.9, schedule='sequential', or more max_iterations"),
        (0.5, "sequential", "try damping=0.9, schedule='residual', or more max_iterations"),
        (0.95, "residual", "try schedule='sequential' or more max_iterations"),
    ],
)
def test_advice_is_not_what_is_set_already(damping: float | None, schedule: str, advised: str) -> None:
    graph = lnz.FactorGraph.pairwise(6, 2, torch.combinations(torch.arange(6)))
    scores = (torch.tensor([0.0, 0.5]).double(), torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).double())
    p = lnz.MRF(graph, scores, BeliefPropagation(3, damping=damping, schedule=schedule))  # type: ignore[arg-type]
    with pytest.warns(lnz.ConvergenceWarning, match=advised):
        _ = p.log_partition
    q = lnz.MRF(graph, scores, MeanField(1, damping=damping or 0.0))
    with pytest.warns(lnz.ConvergenceWarning) as caught:
        _ = q.log_partition
    assert "schedule" not in str(caught[0].message)
    assert f"damping={damping}" not in str(caught[0].message)


def test_a_mean_field_that_allows_the_impossible_proves_nothing() -> None:
    """Exactly one of five bits is set, and parity: no product distribution found is possible."""
    bits = torch.tensor(list(itertools.product((0, 1), repeat=5)))
    odd = torch.zeros(32).double().masked_fill(bits.sum(-1) % 2 == 0, -math.inf).reshape((2,) * 5)
    graph = lnz.FactorGraph((2,) * 6, [torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])])
    p = lnz.MRF(graph, (odd,), MeanField())
    assert p.log_partition <= lnz.MRF(graph, (odd,), Enumeration()).log_partition
    if torch.isneginf(p.log_partition):
        assert not p.diagnostics["converged"]
    assert torch.isfinite(p.node_marginals).all()  # no InfeasibleError


def bethe(folder: Path, name: str, **settings: object) -> tuple[float, lnz.MRF]:
    p = load(folder, name)
    p = lnz.MRF(p.graph, p.scores, BeliefPropagation(**settings)).condition(p.model.observed)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lnz.ConvergenceWarning)
        return p.log_partition.item() / math.log(10), p


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["Pedigree_11", "Promedus_11", "linkage_13", "linkage_21", "linkage_23"])
def test_by_default_as_good_as_published_estimates(name: str, shared_data: Path) -> None:
    """Within one in log10 Z of what loopy belief propagation is known to give on these, by default."""
    folder = shared_data / "uai_pr_mar"
    known = published(folder)[name]
    found, _ = bethe(folder, name, max_iterations=200)
    assert abs(found - known["log10_PR"]) <= abs(known["log10_PR_lbp_ihler"] - known["log10_PR"]) + 1
    assert -7 < found - known["log10_PR"] < 1


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["2bitcomp_5.cnf", "linkage_21"])
def test_without_damping_it_says_that_there_is_no_estimate(name: str, shared_data: Path) -> None:
    """ln Z came out as −1e46 and −1e30."""
    found, p = bethe(shared_data / "uai_pr_mar", name, damping=0.0)
    assert abs(found) < 1e8
    assert not p.diagnostics["converged"]
    fresh = lnz.MRF(p.graph, p.scores, p.inference).condition(p.model.observed)
    with pytest.warns(lnz.ConvergenceWarning) as caught:
        _ = fresh.log_partition
    said = [str(warning.message) for warning in caught]
    assert any("is no estimate: whatever its interactions, ln Z lies in" in message for message in said), said
