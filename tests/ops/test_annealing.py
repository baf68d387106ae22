"""Annealing and tempering: the kernel and the reference leave distributions as they are, and keep the best."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.inference import Enumeration
from lnz.ops import backend
from lnz.ops.annealing import Replicas, anneal, temper
from lnz.ops.softened import softened
from tests.modes import random_model
from tests.ops.test_tree_gibbs import fits

BACKENDS = pytest.mark.parametrize("name", ["auto", "reference"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_labels(p: lnz.MRF, *lead: int) -> torch.Tensor:
    cards = torch.tensor(p.graph.cardinalities)
    return (torch.rand(*lead, *p.batch_shape, len(cards), generator=generator(1)) * cards).long()


@pytest.mark.parametrize("seed", range(8))
def test_where_it_is_cold_a_sweep_takes_the_best_label_of_each_node(seed):
    """No number is drawn there: kernel and reference agree, and both with iterated conditional modes by hand."""
    p = random_model(seed, batch=(2,), impossible=0.15 * (seed % 3))
    start = random_labels(p, 3)
    with backend("reference"):
        slow = anneal(p.model, start, [1e-9] * 3, generator())
    fast = anneal(p.model, start, [1e-9] * 3, generator())
    soft = softened(p.model)
    torch.testing.assert_close(soft.score(fast), soft.score(slow))
    assert (soft.score(fast) >= soft.score(start)).all()


@BACKENDS
@pytest.mark.parametrize("seed", [0, 3, 4])
def test_a_rung_keeps_its_distribution(seed, name):
    """Sweeps, cluster moves and exchanges, of replicas that start as they are to be distributed."""
    p, temperatures = random_model(seed), (1.0, 1.7)
    runs = 2000 if name == "auto" else 150
    rungs = [lnz.MRF(p.graph, p.scores).tempered(t).sample((runs, 2), generator=generator(seed)) for t in temperatures]
    labels = torch.stack(rungs, 2)
    with backend(name):
        moved, _ = temper(p.model, Replicas(labels, labels[:, 0, 0]), temperatures, 3, generator(seed))
    for r, temperature in enumerate(temperatures):
        assert fits(p, labels[:, :, r].flatten(0, 1), temperature), "what it starts from"
        assert fits(p, moved[:, :, r].flatten(0, 1), temperature)
    assert not torch.equal(moved, labels)


@BACKENDS
@pytest.mark.parametrize("seed", range(6))
def test_the_best_is_found_and_never_lost(seed, name):
    p = random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3))
    q = lnz.MRF(p.graph, p.scores, Enumeration(), validate_args=False)
    best = q.argmax()
    highest = p.model.precise_score(best)
    labels = random_labels(p, 2, 2, 3)
    with backend(name):
        kept = temper(p.model, Replicas(labels, best.expand(2, *best.shape)), [0.1, 0.4, 1.5], 10, generator())
        found = temper(p.model, Replicas(labels, labels[:, 0, 0]), [0.1, 0.4, 1.5], 30, generator())
        cooled = anneal(p.model, labels[:, 0, 0], [2 * 0.9**k for k in range(60)], generator())
    for labelling in (kept.best, found.best):
        torch.testing.assert_close(p.model.precise_score(labelling).amax(0), highest)
    assert (p.model.precise_score(cooled) <= highest + 1e-9).all()
    assert kept.labels.shape == labels.shape


@BACKENDS
def test_parts_are_put_together(name):
    """Two triangles that nothing joins: the best of each comes from another replica, and no sweep could find either."""
    graph = lnz.FactorGraph((2,) * 6, (torch.tensor([[0, 1, 2], [3, 4, 5]]),))
    table = torch.full((2, 2, 2), -50.0, dtype=torch.float64)
    table[0, 0, 0], table[1, 1, 1] = 0.0, 1.0
    model = lnz.MRF(graph, (table,)).model
    labels = torch.tensor([[[[1, 1, 1, 0, 0, 0]], [[0, 0, 0, 1, 1, 1]]]])
    with backend(name):
        found = temper(model, Replicas(labels, torch.zeros(1, 6, dtype=torch.int64)), [1e-3], 10, generator())
    assert found.best.tolist() == [[1] * 6]


@BACKENDS
def test_observed_nodes_keep_their_labels_and_seeds_fix_the_rest(name):
    p = random_model(5)
    observed = torch.full((p.graph.num_nodes,), -100)
    observed[0] = 0
    model = p.condition(observed).model
    labels = random_labels(p, 2, 2, 3)
    labels[..., 0] = 0
    with backend(name):
        one, two = (temper(model, Replicas(labels, labels[:, 0, 0]), [0.5, 1, 2], 5, generator(3)) for _ in "12")
        cooled = anneal(model, labels[:, 0, 0], [1.0] * 5, generator(3))
    assert torch.equal(one.labels, two.labels)
    assert torch.equal(one.best, two.best)
    assert (one.labels[..., 0] == 0).all()
    assert (cooled[..., 0] == 0).all()


def test_what_is_impossible_costs_more_than_all_else():
    for seed in range(10):
        p = random_model(seed, impossible=0.3)
        labels = random_labels(p, 200)
        score, soft = p.model.precise_score(labels), softened(p.model).precise_score(labels)
        possible = score.isfinite()
        assert soft.isfinite().all()
        torch.testing.assert_close(soft[possible], score[possible])
        if possible.any() and not possible.all():
            assert soft[~possible].max() < soft[possible].min()
