"""Annealed importance sampling against enumeration."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch

import lnz
from lnz.errors import InfeasibleError
from lnz.inference import AnnealedImportance, Enumeration, Gibbs, MetropolisHastings, SwendsenWang
from lnz.inference.exact import constraints
from lnz.io import read_model
from tests.sampler_suite import MODELS
from tests.suite import random_scores


@pytest.mark.parametrize("name", MODELS)
def test_is_within_three_of_its_own_errors(name: str) -> None:
    exact = MODELS[name]()
    p = lnz.MRF(exact.graph, exact.scores, AnnealedImportance(steps=60, chains=256))
    p = p if exact.model.observed is None else p.condition(exact.model.observed)
    truth = Enumeration().solve(exact.model)
    error = p.diagnostics["standard_error"]
    low, high = p.diagnostics["interval"]
    assert p.log_partition.shape == exact.batch_shape
    assert (error < 0.15).all()
    assert ((p.log_partition - truth.log_partition).abs() <= 3 * error + 1e-9).all()
    assert ((low <= truth.log_partition) & (truth.log_partition <= high)).all()
    assert ((p.diagnostics["ess"] > 50) & (p.diagnostics["ess"] <= 256 + 1e-6)).all()
    assert ((p.node_marginals - truth.node_marginals).abs() < 0.16).all()
    for mine, theirs in zip(p.marginals, truth.marginals, strict=True):
        assert mine.shape == theirs.shape or not theirs[0].numel() or theirs.shape[-1] == 1
        assert ((mine - theirs).abs() < 0.16).all() or mine.numel() == 1


@pytest.mark.filterwarnings("ignore:AnnealedImportance. .* effective chains:lnz.ConvergenceWarning")
def test_the_estimate_of_z_is_unbiased() -> None:
    """Many runs of few steps, whose logarithms are visibly low: the mean of Z itself is right."""
    g = lnz.FactorGraph.grid(2, 3, 2)
    scores = (random_scores((6, 2), 1).expand(200, 6, 2), random_scores((2, 2), 2))
    p = lnz.MRF(g, scores, AnnealedImportance(steps=3, chains=16))
    truth = Enumeration().solve(p.model).log_partition[0]
    ratio = (p.log_partition - truth).exp()
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / math.sqrt(200)
    assert (p.log_partition - truth).mean() < -3 * (p.log_partition - truth).std() / math.sqrt(200)


def test_the_gradient_is_the_weighted_statistics() -> None:
    node, edge = random_scores((4, 2), 3).requires_grad_(), random_scores((2, 2), 4).requires_grad_()
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (node, edge), AnnealedImportance(steps=20))
    by_node, by_edge = torch.autograd.grad(p.log_partition, (node, edge))
    torch.testing.assert_close(by_node, p.node_marginals)
    torch.testing.assert_close(by_edge, p.marginals[1].sum(0))


def test_settings_change_the_run_and_any_sampler_may_be_the_base() -> None:
    g = lnz.FactorGraph.grid(2, 3, 2)
    scores = (random_scores((6, 2), 5), torch.eye(2).double())
    truth = lnz.MRF(g, scores, Enumeration()).log_partition
    for base in (Gibbs("tree"), MetropolisHastings(), SwendsenWang()):
        p = lnz.MRF(g, scores, AnnealedImportance(base=base, betas=[0, 0.1, 0.3, 0.6, 1]))
        assert abs(p.log_partition - truth) < 3 * p.diagnostics["standard_error"]
        assert p.diagnostics["steps"] == 4
    for betas in ([0.1, 1], [0, 0.9], [0, 0.5, 0.4, 1], [0, 0.5, 0.5, 1], [1]):
        with pytest.raises(ValueError, match=r"betas: expected numbers that ascend from 0 to 1"):
            AnnealedImportance(betas=betas)
    with pytest.raises(TypeError, match="base: expected a sampler"):
        AnnealedImportance(base=Enumeration())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chains: expected an integer of at least 2"):
        AnnealedImportance(chains=1)


def parity(nodes: int, checks: int, steps: int = 20) -> lnz.MRF:
    """Random checks that three bits sum to an even number, and fields; all bits 0 is possible."""
    generator = torch.Generator().manual_seed(0)
    scopes = torch.stack([torch.randperm(nodes, generator=generator)[:3] for _ in range(checks)])
    bits = torch.tensor([[[(a + b + c) % 2 for c in (0, 1)] for b in (0, 1)] for a in (0, 1)])
    even = torch.zeros(2, 2, 2).double().masked_fill(bits == 1, -math.inf)
    graph = lnz.FactorGraph((2,) * nodes, [torch.arange(nodes)[:, None], scopes])
    return lnz.MRF(graph, (random_scores((nodes, 2), 1) / 2, even), AnnealedImportance(steps=steps))


def test_parity_networks_start_from_their_checks() -> None:
    p = parity(24, 14)
    truth = lnz.MRF(p.graph, p.scores).log_partition
    assert p.diagnostics["dead"] == 0
    assert (p.log_partition - truth).abs() <= 3 * p.diagnostics["standard_error"] + 1e-9


def test_deterministic_tables_are_within_their_error() -> None:
    """A cycle of copies, exact and noisy ones with impossible pairs, and a soft table across it."""
    equal, copy = (
        torch.eye(3).double().log(),
        torch.tensor([[0.9, 0.1, 0], [0, 0.8, 0.2], [0.3, 0, 0.7]]).double().log(),
    )
    scopes = [torch.arange(6)[:, None], torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 2], [3, 4], [4, 5], [5, 0]])]
    soft = random_scores((1, 3, 3), 9)
    graph = lnz.FactorGraph((3,) * 6, [*scopes, torch.tensor([[0, 3]])])
    scores = (random_scores((6, 3), 2) / 4, equal, copy, soft)
    p = lnz.MRF(graph, scores, AnnealedImportance(steps=50))
    truth = lnz.MRF(graph, scores, Enumeration()).log_partition
    assert (p.log_partition - truth).abs() <= 3 * p.diagnostics["standard_error"]
    assert p.diagnostics["dead"] == 0


def test_asia_is_within_its_error(shared_data: Path) -> None:
    model = read_model(shared_data / "bayesnets/asia.bif.gz")
    for seed in range(3):
        p = lnz.MRF(model.graph, model.scores, AnnealedImportance(steps=100, seed=seed))
        error = p.diagnostics["standard_error"]
        assert error < 0.03
        assert p.log_partition.abs() <= 3 * error  # a Bayesian network: Z = 1


def test_where_only_a_forest_of_constraints_can_be_solved_the_rest_is_annealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_TABLE", 4)
    edge = torch.tensor([[0.0, 0.0], [0.0, -math.inf]]).double()  # no two neighbours both 1
    for entry in (edge, edge.expand(12, 2, 2), lnz.Weighted(torch.ones(12).double(), edge)):
        scores = (random_scores((9, 2), 3), entry)
        p = lnz.MRF(lnz.FactorGraph.grid(3, 3, 2), scores, AnnealedImportance(steps=200))
        truth = lnz.MRF(p.graph, scores, Enumeration()).log_partition
        assert 0 < p.diagnostics["dead"] < 1
        assert (p.log_partition - truth).abs() <= 3 * p.diagnostics["standard_error"]


def test_without_a_surviving_chain_there_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints, "MAX_TABLE", 8)
    p = parity(40, 36, steps=3)
    with pytest.warns(lnz.ConvergenceWarning, match="no estimate of 1 of 1 models: every chain met a score of -inf"):
        value = p.log_partition
    assert value.isnan()
    assert p.node_marginals.isnan().all()
    assert all(marginal.isnan().all() for marginal in p.marginals)
    said = p.diagnostics
    assert said["failed"]
    assert said["dead"] == 1
    assert said["ess"] == 0
    assert said["standard_error"].isnan()
    assert [end.item() for end in said["interval"]] == [-math.inf, math.inf]


def test_chains_that_all_went_one_way_do_not_know_their_error() -> None:
    g = lnz.FactorGraph.grid(2, 2, 2)
    p = lnz.MRF(g, (torch.tensor([0.0, 40.0]).double(), random_scores((2, 2), 1)), AnnealedImportance(3))
    assert p.diagnostics["standard_error"].isnan()
    assert [end.item() for end in p.diagnostics["interval"]] == [-math.inf, math.inf]


def test_few_effective_chains_warn() -> None:
    p = lnz.MRF(
        lnz.FactorGraph.grid(4, 4, 2), (random_scores((16, 2), 1), 4 * torch.eye(2).double()), AnnealedImportance(2)
    )
    with pytest.warns(lnz.ConvergenceWarning, match=r"\d effective chains of 64 are left in 1 of 1 models"):
        _ = p.log_partition


def test_an_error_that_reaches_0_leaves_no_lower_end() -> None:
    p = lnz.MRF(
        lnz.FactorGraph.grid(4, 4, 2),
        (random_scores((16, 2), 1), 4 * torch.eye(2).double()),
        AnnealedImportance(2, chains=8),
    )
    with pytest.warns(lnz.ConvergenceWarning):
        said = p.diagnostics
    assert 3 * said["standard_error"] >= 1
    low, high = said["interval"]
    assert low == -math.inf
    assert torch.isfinite(high)


def test_no_possible_labelling_is_minus_infinity() -> None:
    edge = torch.full((2, 2), -math.inf).double()
    p = lnz.MRF(lnz.FactorGraph.grid(1, 2, 2), (torch.zeros(2, 2).double(), edge), AnnealedImportance(steps=5))
    assert p.log_partition == -math.inf
    said = p.diagnostics
    assert said["dead"] == 1
    assert said["ess"] == 0
    assert [end.item() for end in said["interval"]] == [-math.inf, -math.inf]
    with pytest.raises(InfeasibleError):
        _ = p.node_marginals


@pytest.mark.parametrize("part", [[True, True, True], [False, False, False], [True, False, True]])
@pytest.mark.parametrize("form", ["own", "shared", "weighted"])
def test_annealing_multiplies_the_scores_of_the_rest_alone(part: list[bool], form: str) -> None:
    """Factors of one group may be on either side, however their scores are given."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(3, 2, 2, generator=generator) if form == "own" else torch.randn(2, 2, generator=generator)
    entry = lnz.Weighted(torch.rand(3, generator=generator) + 0.5, table) if form == "weighted" else table
    kept = torch.tensor(part)
    scaled = constraints._scaled(entry, kept, 2, 0.25)
    given, made = (e.expand() if isinstance(e, lnz.Weighted) else e.expand(3, 2, 2) for e in (entry, scaled))
    torch.testing.assert_close(made, torch.where(kept[:, None, None], given, 0.25 * given))


@pytest.mark.parametrize("chains", [2, 4, 8])
def test_few_chains_of_equal_weight_are_enough(chains: int) -> None:
    """Of nodes that do not interact every chain has the same weight: nothing is wrong, however few there are."""
    p = lnz.MRF(
        lnz.FactorGraph.grid(2, 2, 2),
        (random_scores((4, 2), 0), torch.zeros(2, 2).double()),
        AnnealedImportance(5, chains),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert p.log_partition.item() == pytest.approx(p.scores[0].logsumexp(-1).sum().item())
    assert p.diagnostics["ess"] == pytest.approx(chains)
