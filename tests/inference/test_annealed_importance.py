"""Annealed importance sampling against enumeration."""

from __future__ import annotations

import math

import pytest
import torch

import lnz
from lnz.errors import InfeasibleError
from lnz.inference import AnnealedImportance, Enumeration, Gibbs, MetropolisHastings, SwendsenWang
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
    with pytest.raises(ValueError, match=r"betas: expected numbers that ascend from 0 to 1"):
        AnnealedImportance(betas=[0.1, 1])
    with pytest.raises(TypeError, match="base: expected a sampler"):
        AnnealedImportance(base=Enumeration())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="chains: expected an integer of at least 2"):
        AnnealedImportance(chains=1)


def test_no_possible_labelling_is_minus_infinity() -> None:
    edge = torch.full((2, 2), -math.inf).double()
    p = lnz.MRF(lnz.FactorGraph.grid(1, 2, 2), (torch.zeros(2, 2).double(), edge), AnnealedImportance(steps=5))
    assert p.log_partition == -math.inf
    assert p.diagnostics["dead"] == 1
    with pytest.raises(InfeasibleError):
        _ = p.node_marginals
