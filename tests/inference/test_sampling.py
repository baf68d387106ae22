"""What samplers share besides their distribution: starts, diagnostics, blocks, refusals."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import lnz
from lnz.errors import ConvergenceWarning, InfeasibleError, IntractableError
from lnz.inference import (
    DiscreteLangevin,
    Enumeration,
    Gibbs,
    GibbsWithGradients,
    HamiltonianMonteCarlo,
    MetropolisHastings,
    ParallelTempering,
    SwendsenWang,
    effective_sample_size,
    r_hat,
)
from lnz.inference.sampling.hamiltonian_monte_carlo import relaxation
from lnz.inference.sampling.starts import shared
from lnz.ops.tree_gibbs.blocks import blocks_of, combs, forests
from tests.suite import random_scores

# Starts -----------------------------------------------------------------------------------------------------------


def colouring(side: int, labels: int, batch: int = 1) -> lnz.MRF:
    """Neighbours on a grid must differ."""
    edge = torch.zeros(labels, labels).double().fill_diagonal_(-math.inf)
    return lnz.MRF(lnz.FactorGraph.grid(side, side, labels), (torch.zeros(batch, side**2, labels).double(), edge))


def test_starts_are_possible_where_that_takes_a_search(generator: torch.Generator) -> None:
    p = colouring(8, 3, batch=2)
    start = Gibbs().init(p.model, 20, generator).labels
    assert start.shape == (20, 2, 64)
    assert torch.isfinite(p.score(start)).all()
    assert len(start.reshape(40, 64).unique(dim=0)) > 10


def test_starts_keep_what_is_observed_and_what_is_given(generator: torch.Generator) -> None:
    seen = torch.full((16,), -100)
    seen[[0, 5]] = torch.tensor([2, 1])
    p = colouring(4, 3).condition(seen)
    given = torch.full((6, 1, 16), -100)
    given[..., 15] = torch.arange(6)[:, None] % 3
    start = Gibbs().init(p.model, 6, generator, given).labels
    assert torch.isfinite(p.score(start)).all()
    assert torch.equal(start[..., 15], given[..., 15])
    full = Gibbs().init(p.model, 6, generator, start).labels
    assert torch.equal(full, start)


def test_where_there_is_no_start_the_batch_entries_are_named(generator: torch.Generator) -> None:
    node = torch.zeros(3, 2, 2).double()
    node[1, 0] = -math.inf
    g = lnz.FactorGraph.grid(1, 2, 2)
    p = lnz.MRF(g, (node, torch.zeros(2, 2).double()))
    with pytest.raises(InfeasibleError, match=r"a node has no possible label in batch entries \[1\]"):
        Gibbs().init(p.model, 4, generator)
    edge = torch.zeros(3, 1, 2, 2).double()
    edge[2] = -math.inf
    p = lnz.MRF(g, (torch.zeros(2, 2).double(), edge), Gibbs())
    with pytest.raises(InfeasibleError, match=r"no labelling has a finite score in batch entries \[2\]"):
        _ = p.marginals
    with pytest.raises(InfeasibleError, match=r"labels to start from have score -inf in batch entries \[2\]"):
        Gibbs().init(p.model, 1, generator, torch.zeros(3, 2).long())
    with pytest.raises(ValueError, match=r"labels: expected shape \[\*batch, 2\], got \[3\]"):
        Gibbs().init(p.model, 1, generator, torch.zeros(3).long())
    with pytest.raises(ValueError, match="n: expected a positive number of chains, got 0"):
        Gibbs().init(p.model, 0, generator)


# Diagnostics -------------------------------------------------------------------------------------------------------


def test_r_hat_and_ess_of_a_users_own_statistics(generator: torch.Generator) -> None:
    independent = torch.randn(400, 8, 2, 3, generator=generator)
    assert r_hat(independent).shape == effective_sample_size(independent).shape == (2, 3)
    assert (r_hat(independent) < 1.02).all()
    assert (effective_sample_size(independent) > 2000).all()
    apart = independent + torch.arange(8)[:, None, None]
    assert (r_hat(apart) > 1.5).all()
    slow = independent.cumsum(0)
    assert (effective_sample_size(slow) < 50).all()
    with pytest.raises(ValueError, match=r"draws: expected shape \[sweeps, chains, \*rest\] with 4 sweeps or more"):
        r_hat(torch.zeros(3, 2))


def frozen(sampler: lnz.inference.Sampler, coupling: float = 6.0) -> lnz.MRF:
    """Two modes that single changes hardly ever leave."""
    return lnz.MRF(lnz.FactorGraph.grid(4, 4, 2), (torch.zeros(2), coupling * torch.eye(2)), sampler)


@pytest.mark.parametrize("sampler", [Gibbs(), MetropolisHastings(sweeps=20), GibbsWithGradients(), DiscreteLangevin()])
def test_a_chain_that_has_not_mixed_warns_by_name(sampler: lnz.inference.Sampler) -> None:
    p = frozen(sampler)
    with pytest.warns(ConvergenceWarning, match=rf"^{type(sampler).__name__}: the chains have not mixed: R-hat"):
        _ = p.node_marginals
    assert not p.diagnostics["mixed"]
    assert p.diagnostics["r_hat"] > 1.05
    assert p.diagnostics["ess"] < 100


def test_a_chain_that_has_mixed_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sampler, coupling in [
            (SwendsenWang(), 6.0),
            (ParallelTempering((1, 1.5, 2.5, 5), sweeps=1200), 2.5),
        ]:
            p = frozen(sampler, coupling)
            assert p.diagnostics["mixed"]
            assert ((p.node_marginals - 0.5).abs() < 5 * p.diagnostics["standard_error"] + 1e-3).all()
    assert (p.diagnostics["swap_acceptance"] > 0).all()


def test_estimates_are_the_same_each_time_and_follow_the_seed() -> None:
    g = lnz.FactorGraph.grid(3, 3, 2)
    scores = (random_scores((9, 2), 1), random_scores((2, 2), 2) / 2)
    one, same, other = (lnz.MRF(g, scores, Gibbs(seed=seed, sweeps=50)).node_marginals for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    p = lnz.MRF(g, scores, Gibbs(chains=1, sweeps=50, max_r_hat=2.0))
    with pytest.warns(ConvergenceWarning, match="what does not change tells nothing"):
        assert torch.isnan(p.diagnostics["standard_error"]).all()
    assert not p.diagnostics["mixed"]


def ferromagnet(sampler: lnz.inference.Sampler, coupling: float) -> lnz.MRF:
    """3×3, no fields: each label of each node has probability 1/2."""
    return lnz.MRF(lnz.FactorGraph.grid(3, 3, 2), (torch.zeros(2).double(), coupling * torch.eye(2).double()), sampler)


def test_one_chain_in_one_of_two_modes_is_not_mixed() -> None:
    """R-hat 1.0 and marginals [1, 0] where [½, ½] is right."""
    p = ferromagnet(Gibbs(chains=1, sweeps=400), 8.0)
    with pytest.warns(ConvergenceWarning, match="have not mixed: what does not change tells nothing"):
        node = p.node_marginals
    assert set(node.flatten().tolist()) == {0.0, 1.0}
    said = p.diagnostics
    assert not said["mixed"]
    assert said["r_hat"].isnan()
    assert said["ess"].isnan()
    assert said["standard_error"].isnan().all()
    assert "R-hat cannot be computed" in said["why"]


def test_one_chain_that_hardly_leaves_a_mode_is_not_mixed() -> None:
    """Halves may agree: what tells is that draws are one another's echo."""
    p = ferromagnet(Gibbs(chains=1, sweeps=400, max_r_hat=100.0), 1.5)
    with pytest.warns(ConvergenceWarning, match=r"the effective sample size \d\.\d+ is below 10, 10 a chain"):
        said = p.diagnostics
    assert not said["mixed"]
    assert said["ess"] < 10


def test_one_chain_that_mixes_says_so() -> None:
    p = ferromagnet(Gibbs(chains=1, sweeps=2000), 0.3)
    assert p.diagnostics["mixed"]
    assert p.diagnostics["why"] == ""
    assert 0.99 < p.diagnostics["r_hat"] < 1.05
    assert (p.node_marginals - 0.5).abs().max() < 0.05


def test_a_few_sweeps_of_one_chain_tell_nothing() -> None:
    p = ferromagnet(Gibbs(chains=1, sweeps=7), 0.3)
    with pytest.warns(ConvergenceWarning, match="one chain of 7 sweeps tells nothing, R-hat cannot be computed"):
        said = p.diagnostics
    assert not said["mixed"]
    assert said["r_hat"].isnan()
    assert said["ess"] > 0


def test_what_is_given_needs_no_mixing() -> None:
    p = ferromagnet(Gibbs(chains=1), 1.0).condition(torch.tensor([0, 1, 0, 1, 1, 1, 0, 0, 0]))
    assert p.diagnostics["mixed"]
    assert p.node_marginals[1].tolist() == [0.0, 1.0]


def test_samples_of_chains_that_have_not_mixed_warn_as_marginals_do(generator: torch.Generator) -> None:
    for chains in (1, 16):
        p = ferromagnet(Gibbs(chains=chains), 8.0)
        with pytest.warns(ConvergenceWarning, match="Gibbs: the chains have not mixed"):
            p.sample((3,), generator)
        p.sample((3,), generator)  # once
        assert not p.diagnostics["mixed"]


def test_the_error_of_a_label_that_was_never_seen_is_not_known() -> None:
    node = torch.zeros(9, 2).double()
    node[0, 1], node[1, 1] = 30.0, -torch.inf
    p = lnz.MRF(lnz.FactorGraph.grid(3, 3, 2), (node, torch.zeros(2, 2).double()), Gibbs())
    p = p.condition(torch.tensor([-100] * 8 + [1]))
    error = p.diagnostics["standard_error"]
    assert error[0].isnan().all()  # always the second label, though both are possible
    assert error[1, 0].isnan() or error[1, 0] == 0
    assert error[1, 1] == 0  # impossible
    assert error[8].tolist() == [0.0, 0.0]  # observed
    assert ((error[2:8] > 0) & (error[2:8] < 0.1)).all()
    assert p.diagnostics["mixed"]


@pytest.mark.parametrize("chains", [1, 2, 5])
def test_r_hat_is_that_of_arviz(chains: int, generator: torch.Generator) -> None:
    """Of one chain, that of its two halves."""
    from arviz_stats.base.array import array_stats

    normal = torch.randn(31, chains, 4, generator=generator).double()
    normal[:, 0, 1] += 1
    normal[..., 2] = (normal[..., 2] > 1).double()
    normal[..., 3] = normal[..., 3].round()
    several = torch.cat((normal[:15], normal[-15:]), 1) if chains == 1 else normal
    wanted = array_stats.rhat(several.numpy(), chain_axis=1, draw_axis=0)
    torch.testing.assert_close(r_hat(normal), torch.as_tensor(wanted))
    wanted = array_stats.ess(normal.numpy(), chain_axis=1, draw_axis=0)
    torch.testing.assert_close(effective_sample_size(normal), torch.as_tensor(wanted))


def test_r_hat_of_one_chain_compares_its_halves(generator: torch.Generator) -> None:
    steady = torch.randn(400, 1, 2, generator=generator).double()
    assert (r_hat(steady) < 1.02).all()
    drifting = steady + torch.linspace(0, 3, 400)[:, None, None]
    assert (r_hat(drifting) > 1.2).all()
    jump = torch.cat((torch.zeros(10, 1), torch.ones(10, 1)))
    assert r_hat(jump) == torch.inf
    assert r_hat(torch.ones(10, 1)).isnan()
    assert effective_sample_size(torch.ones(10, 3)).isnan()
    assert r_hat(torch.ones(10, 3, 0)).shape == effective_sample_size(torch.ones(10, 3, 0)).shape == (0,)


# Blocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1), (2, 2), (4, 3), (5, 6)])
def test_two_combs_cover_a_grid(height: int, width: int) -> None:
    g = lnz.FactorGraph.grid(height, width, 2)
    assert g.grid_layout is not None
    both = combs(g.grid_layout)
    assert sorted(both[0] + both[1]) == list(range(height * width))
    assert len(blocks_of(g, None, torch.device("cpu"))) <= 2


@pytest.mark.parametrize("neighbours", [4, 8])
def test_forests_partition_any_graph(neighbours: int) -> None:
    for g in (lnz.FactorGraph.grid(4, 5, 2, neighbours=neighbours), ring_of_triples()):
        found = forests(g)
        assert sorted(node for block in found for node in block) == list(range(g.num_nodes))
        blocks_of(g, found, torch.device("cpu"))  # which checks that they are forests
    tree = lnz.FactorGraph.pairwise(5, 2, torch.tensor([[0, 3], [3, 1], [3, 4], [4, 2]]))
    assert len(forests(tree)) == 1


def ring_of_triples() -> lnz.FactorGraph:
    return lnz.FactorGraph((2,) * 6, [torch.tensor([[i, (i + 1) % 6, (i + 2) % 6] for i in range(6)])])


def test_a_forest_is_drawn_exactly_in_one_sweep(generator: torch.Generator) -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(1, 6, 3), (random_scores((6, 3), 1), 3 * random_scores((3, 3), 2)))
    start = Gibbs().init(p.model, 20_000, generator, torch.zeros(6).long())
    labels = Gibbs("tree").step(p.model, start, 1, generator).labels
    frequency = torch.nn.functional.one_hot(labels, 3).double().mean(0)
    assert ((frequency - Enumeration().solve(p.model).node_marginals).abs() < 0.02).all()


def test_blocks_that_are_no_forests_are_refused() -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (torch.zeros(2), torch.zeros(2, 2)))
    for blocks, why in [
        (((0, 1, 2, 3),), r"blocks\[0\]: expected a block that induces a forest"),
        (((0, 1), (2,)), "every node in a block, but 1 are in none, first 3"),
        (((0, 1, 2, 4), (3,)), r"nodes in \[0, 4\), got 4"),
        (((0, 0, 1), (2, 3)), r"blocks\[0\]: expected distinct nodes"),
    ]:
        with pytest.raises(ValueError, match=why):
            Gibbs(blocks=blocks).solve(p.model)
    with pytest.raises(ValueError, match="at most two nodes of each factor"):
        Gibbs(blocks=((0, 1, 2), (3, 4, 5))).solve(lnz.MRF(ring_of_triples(), (torch.zeros(2, 2, 2),)).model)
    with pytest.raises(ValueError, match="order='tree' with blocks, got order='random'"):
        Gibbs("random", blocks=((0,),))


# Refusals ------------------------------------------------------------------------------------------------------------


def test_settings_are_checked() -> None:
    for make, why in [
        (lambda: Gibbs("checkerboard"), "order: expected one of"),  # type: ignore[arg-type]
        (lambda: Gibbs(sweeps=3), "sweeps: expected an integer of at least 4, got 3"),
        (lambda: GibbsWithGradients(0), "proposals: expected a positive integer"),
        (lambda: DiscreteLangevin(0.0), "step_size: expected a positive number"),
        (lambda: HamiltonianMonteCarlo(2.5), r"step_size: expected a number in \(0, 2\)"),
        (lambda: ParallelTempering((2.0, 1.0)), "temperatures: expected two or more, ascending, the first 1"),
        (lambda: Gibbs(max_r_hat=0.5), "max_r_hat: expected a number of at least 1"),
    ]:
        with pytest.raises(ValueError, match=why):
            make()
    for make, why in [
        (lambda: Gibbs(seed="a"), "seed: expected an integer, got 'a'"),  # type: ignore[arg-type]
        (lambda: Gibbs(blocks=3), "blocks: expected the nodes of each block, got 3"),  # type: ignore[arg-type]
        (lambda: DiscreteLangevin(step_size="a"), "step_size: expected a positive number, got 'a'"),  # type: ignore[arg-type]
        (lambda: ParallelTempering(3), "temperatures: expected a sequence of numbers, got 3"),  # type: ignore[arg-type]
        (lambda: lnz.inference.MeanField(damping="a"), "damping: expected a number in"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(TypeError, match=why):
            make()
    with pytest.raises(TypeError, match="proposal: expected None or a function"):
        MetropolisHastings(3)  # type: ignore[arg-type]


def test_swendsen_wang_refuses_what_is_no_ferromagnet() -> None:
    g = lnz.FactorGraph.grid(2, 2, 2)
    with pytest.raises(ValueError, match="has a weight of -1"):
        SwendsenWang().solve(lnz.MRF(g, (torch.zeros(2), -torch.eye(2))).model)
    with pytest.raises(ValueError, match="expected a Potts model"):
        SwendsenWang().solve(lnz.MRF(g, (torch.zeros(2), torch.tensor([[1.0, 0.0], [0.5, 1.0]]))).model)


def test_the_gaussian_relaxation_has_the_scores_of_the_model() -> None:
    g = lnz.FactorGraph((2, 3), [torch.tensor([[0], [1]])[:1], torch.tensor([[1]]), torch.tensor([[1, 0]])])
    p = lnz.MRF(g, (random_scores((2,), 1), random_scores((3,), 2), random_scores((3, 2), 3)))
    root, bias = relaxation(p.model)
    y = torch.tensor([[a, b] for a in range(2) for b in range(3)])
    x = (y[..., None] == torch.arange(3)).double()
    mine = ((x.flatten(1) @ root) ** 2).sum(-1) / 2 + (x * bias.masked_fill(torch.isneginf(bias), 0.0)).sum((-2, -1))
    difference = mine - p.score(y)
    torch.testing.assert_close(difference, difference[:1].expand(6))
    with pytest.raises(IntractableError, match="max_table=10"):
        HamiltonianMonteCarlo(max_table=10).solve(p.model)


def test_what_a_method_lacks_it_says_who_has() -> None:
    scores = (random_scores((6, 2), 1), random_scores((7, 2, 2), 2))
    p = lnz.MRF(lnz.FactorGraph.grid(2, 3, 2), scores, Gibbs())
    with pytest.raises(TypeError, match=r"Gibbs has no argmax; .*IntegerProgram\(\).* TRWS\(\), GraphCuts\(\), Belief"):
        p.argmax()
    p = lnz.MRF(p.graph, scores, lnz.inference.MeanField())
    with pytest.raises(TypeError, match=r"MeanField has no sample; .* Gibbs\(\) and the other samplers"):
        p.sample((2,))


def test_coarse_steps_of_hamiltonian_monte_carlo_are_corrected() -> None:
    """Steps whose energy is far from kept are refused as often as the Metropolis rule says: the draws stay right."""
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    scores = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[1.5, 0.0], [0.0, 1.5]])
    p = lnz.MRF(graph, tuple(entry.double() for entry in scores))
    sampler = HamiltonianMonteCarlo(1.9, 4, chains=4000, warmup=30, sweeps=30)
    chains = sampler.init(p.model, 4000, torch.Generator().manual_seed(0))
    chains = sampler.step(p.model, chains, 60, torch.Generator().manual_seed(1))
    joint = torch.bincount(chains.labels[:, 0] * 2 + chains.labels[:, 1], minlength=4) / 4000
    wanted = p.marginals[1].reshape(-1)
    assert ((joint - wanted).abs() < 4 * (wanted * (1 - wanted) / 4000).sqrt()).all(), (joint, wanted)


def test_chains_may_start_without_a_warm_up() -> None:
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (torch.zeros(2), torch.zeros(2, 2)), Gibbs(warmup=0, sweeps=50))
    assert ((p.node_marginals - 0.5).abs() < 0.2).all()


def test_chains_without_a_start_take_one_of_their_own_batch_entry(generator: torch.Generator) -> None:
    start = torch.arange(6).reshape(3, 2, 1)
    found, possible = shared(start, torch.tensor([[False, False], [True, False], [False, False]]), generator)
    assert found[:, 0, 0].tolist() == [2, 2, 2]
    assert possible.tolist() == [[True, False]] * 3


def test_the_auxiliary_numbers_of_hamiltonian_monte_carlo_keep_their_distribution() -> None:
    """Of a model without interaction they are standard normal, however coarse the steps (Metropolis et al. 1953)."""
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    p = lnz.MRF(graph, (torch.zeros(2, 2).double(), 1e-6 * torch.eye(2).double()))
    sampler = HamiltonianMonteCarlo(1.6, 3, chains=4000)
    chains = sampler.init(p.model, 4000, torch.Generator().manual_seed(0))
    chains = sampler.step(p.model, chains, 80, torch.Generator().manual_seed(1))
    assert chains.carried["auxiliary"].square().mean(0) == pytest.approx(1.0, abs=0.1)
