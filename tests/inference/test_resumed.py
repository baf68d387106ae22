"""Chains that go on under a model: observed labels are put in first, and what does not fit is refused by name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lnz
from lnz.inference import (
    Chains,
    DiscreteLangevin,
    Gibbs,
    GibbsWithGradients,
    HamiltonianMonteCarlo,
    MetropolisHastings,
    ParallelTempering,
    Sampler,
    SwendsenWang,
)
from lnz.objectives import contrastive_divergence
from tests.suite import random_scores

GRAPH = lnz.FactorGraph.grid(2, 3, 3)
P = lnz.MRF(GRAPH, (random_scores((2, 6, 3), 0), random_scores((2, 7, 3, 3), 1)))
OBSERVED = torch.tensor([2, 2, -100, -100, -100, -100])
GOLD = torch.tensor([[2, 2, 0, 0, 0, 0]] * 2)
SAMPLERS = [
    Gibbs(),
    Gibbs(order="random"),
    Gibbs(order="tree"),
    MetropolisHastings(),
    MetropolisHastings(order="chromatic"),
    MetropolisHastings(proposal=lambda model, labels, generator: (labels, 0.0)),
    GibbsWithGradients(),
    DiscreteLangevin(),
    HamiltonianMonteCarlo(),
    ParallelTempering(),
]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)


def started(sampler: Sampler, sweeps: int = 1) -> Chains:
    generator = torch.Generator().manual_seed(0)
    return sampler.step(P.model, sampler.init(P.model, 3, generator), sweeps, generator)


@every_sampler
@pytest.mark.parametrize("sweeps", [0, 1, 5])
def test_what_is_observed_meanwhile_is_put_in(sampler: Sampler, sweeps: int) -> None:
    chains = started(sampler)
    before = chains.labels.clone()
    moved = sampler.step(P.condition(OBSERVED).model, chains, sweeps)
    assert (moved.labels[..., :2] == 2).all()
    assert (moved.carried.get("replicas", moved.labels)[..., :2] == 2).all()
    assert torch.equal(chains.labels, before)  # the chains given are left as they are
    back = sampler.step(P.model, moved, 2)
    assert back.sweeps == 3 + sweeps


@pytest.mark.parametrize("kind", [Chains, Tensor])
def test_persistent_chains_take_in_what_is_observed(kind: type) -> None:
    chains = started(Gibbs())
    given = chains if kind is Chains else chains.labels
    contrastive_divergence(P.condition(OBSERVED), GOLD, chains=given)
    assert (chains.labels[..., :2] == 2).all()


def test_observations_that_leave_no_possible_labelling_name_the_batch_entries() -> None:
    node = random_scores((2, 6, 3), 0)
    edge = random_scores((2, 7, 3, 3), 1)
    edge[1, :, 0, 2] = -math.inf
    p = lnz.MRF(GRAPH, (node, edge))
    chains = Chains(torch.zeros(4, 2, 6, dtype=torch.int64))
    with pytest.raises(lnz.InfeasibleError, match=r"chains: .* start new ones with init in batch entries \[1\]"):
        Gibbs().step(p.condition(torch.tensor([0, 2, -100, -100, -100, -100])).model, chains)


def changed(labels: Tensor, to: int) -> Tensor:
    return torch.where(torch.arange(labels.numel()).reshape(labels.shape) == 7, to, labels)


@every_sampler
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda y: changed(y, 7), ValueError, r"chains: expected labels in \[0, 3\), got 7 at \[0, 1, 1\]"),
        (lambda y: changed(y, -100), ValueError, r"chains: expected labels in \[0, 3\), got -100 at \[0, 1, 1\]"),
        (lambda y: y.int(), TypeError, "chains: expected dtype torch.int64, got torch.int32"),
        (lambda y: y.float(), TypeError, "chains: expected dtype torch.int64, got torch.float32"),
        (lambda y: y[..., :5], ValueError, r"chains: expected labellings of shape \[n, 2, 6\].* got \[3, 2, 5\]"),
        (lambda y: y[:, 0], ValueError, r"chains: expected labellings of shape \[n, 2, 6\].* got \[3, 6\]"),
        (lambda y: y[:0], ValueError, r"chains: expected labellings of shape \[n, 2, 6\].* got \[0, 2, 6\]"),
        (lambda y: None, TypeError, "chains: expected a torch.Tensor, got NoneType"),
    ],
)
def test_bad_chains_are_refused(sampler: Sampler, change, kind: type[Exception], message: str) -> None:
    bad = Chains(change(started(sampler).labels))
    with pytest.raises(kind, match=message):
        sampler.step(P.model, bad)
    with pytest.raises(kind, match=message):
        contrastive_divergence(P, GOLD, sampler=sampler, chains=bad)


@every_sampler
def test_wrong_kinds_are_named(sampler: Sampler) -> None:
    chains = started(sampler)
    for call, kind, message in [
        (lambda: sampler.init(P, 2), TypeError, "model: expected a Model, .* p.model, got MRF"),
        (lambda: sampler.step(P, chains), TypeError, "model: expected a Model, .* p.model, got MRF"),
        (lambda: sampler.step(P.model, chains.labels), TypeError, "chains: expected Chains, .* got Tensor"),
        (lambda: sampler.step(P.model, chains, -1), ValueError, "sweeps: expected an integer of at least 0, got -1"),
        (lambda: sampler.step(P.model, chains, 0.5), ValueError, "sweeps: expected an integer of at least 0, got 0.5"),
        (lambda: sampler.init(P.model, 1.5), ValueError, "n: expected an integer, got 1.5"),
        (lambda: sampler.init(P.model, 2, 3), TypeError, "generator: expected a torch.Generator or None, got 3"),
        (lambda: sampler.step(P.model, chains, 1, 3), TypeError, "generator: expected a torch.Generator or None"),
    ]:
        with pytest.raises(kind, match=message):
            call()


def test_chains_of_another_ladder_are_refused_and_go_on_without_their_replicas() -> None:
    chains, other = started(ParallelTempering()), ParallelTempering((1.0, 2.0))
    with pytest.raises(ValueError, match=r"chains: expected replicas of 3 chains at 1 temperatures .* another ladder"):
        other.step(P.model, chains)
    assert other.step(P.model, Chains(chains.labels)).carried["replicas"].shape == (1, 3, 2, 6)
    chains.carried["replicas"] = changed(chains.carried["replicas"], 7)
    with pytest.raises(ValueError, match=r"chains.carried\['replicas'\]: expected labels in \[0, 3\), got 7"):
        ParallelTempering().step(P.model, chains)


@pytest.mark.parametrize(
    ("proposal", "kind", "message"),
    [
        (lambda y: (y + 9, 0.0), ValueError, r"proposal: expected labels in \[0, 3\), got"),
        (lambda y: (torch.full_like(y, -100), 0.0), ValueError, r"proposal: expected labels in \[0, 3\), got -100"),
        (lambda y: (y, math.nan), ValueError, r"proposal: expected log ratios below \+inf, got NaN or \+inf"),
        (lambda y: (y, torch.full(y.shape[:-1], math.inf)), ValueError, "proposal: expected log ratios below"),
        (lambda y: (y, torch.zeros(7)), ValueError, r"proposal: expected a log ratio of shape \[3, 2\], got \[7\]"),
        (lambda y: (y.int(), 0.0), ValueError, "proposal: expected int64 labels"),
        (lambda y: y, TypeError, r"proposal: expected a pair \(labels, log ratio\), got Tensor"),
        (lambda y: None, TypeError, r"proposal: expected a pair \(labels, log ratio\), got NoneType"),
    ],
)
def test_bad_proposals_are_refused(proposal, kind: type[Exception], message: str) -> None:
    sampler = MetropolisHastings(proposal=lambda model, labels, generator: proposal(labels))
    with pytest.raises(kind, match=message):
        started(sampler)


@pytest.mark.parametrize("sampler", [*SAMPLERS, SwendsenWang()], ids=lambda sampler: type(sampler).__name__)
def test_graphs_without_nodes_and_batches_without_entries(sampler: Sampler, recwarn: pytest.WarningsRecorder) -> None:
    p = lnz.MRF(lnz.FactorGraph((), []), (), sampler)
    assert p.sample((3,)).shape == (3, 0)
    assert p.marginals == ()
    assert p.node_marginals.shape == (0, 1) == lnz.MRF(p.graph, ()).node_marginals.shape
    assert p.diagnostics["mixed"]
    assert sampler.step(p.model, sampler.init(p.model, 2), 4).sweeps == 4
    nothing = torch.zeros(0, dtype=torch.int64)
    assert contrastive_divergence(p, nothing, sampler=sampler) == lnz.objectives.nll(p, nothing) == 0
    q = lnz.MRF(GRAPH, (torch.zeros(0, 6, 3), torch.eye(3)), sampler)
    assert q.diagnostics["standard_error"].shape == (0, 6, 3)
    assert q.sample((2,)).shape == (2, 0, 6)
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore::lnz.errors.ConvergenceWarning")  # of the few sweeps
def test_to_draw_nothing_is_allowed(generator: torch.Generator) -> None:
    for method in (None, lnz.inference.Enumeration(), Gibbs()):
        p = lnz.MRF(GRAPH, P.scores, method)
        assert p.sample((0,), generator).shape == (0, 2, 6)
        assert p.sample((2, 0), generator).shape == (2, 0, 2, 6)
        assert p.sample((0,)).dtype == torch.int64
    for p in (lnz.LinearChain(torch.zeros(2, 4, 3), torch.zeros(3, 3)), lnz.Softmax(torch.zeros(2, 4, 3))):
        assert p.sample((0,)).shape == (0, 2, 4)
        with pytest.raises(ValueError, match=r"sample_shape: expected sizes of at least 0, got \(-1,\)"):
            p.sample((-1,))
        with pytest.raises(TypeError, match="sample_shape: expected a sequence of integers, such as .*, got 3"):
            p.sample(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="generator: expected a torch.Generator or None"):
            p.sample((1,), generator=3)  # type: ignore[arg-type]
