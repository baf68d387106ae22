"""Tempering with cluster moves: best labellings of small models, and of a spin glass that annealing does not solve."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.inference import TRWS, ClusterTempering, Exact, SimulatedAnnealing
from tests.modes import check, random_model, solved


@pytest.mark.parametrize("seed", range(8))
def test_small_models(seed):
    p = random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3))
    check(p, ClusterTempering(sweeps=20, rungs=4))
    score, _, _, best = solved(p, ClusterTempering(sweeps=50, rungs=4))
    assert (score >= best - 1e-9).all()


def test_a_spin_glass_that_annealing_of_the_same_time_does_not_solve():
    graph, generator = lnz.FactorGraph.grid(16, 16, 2), torch.Generator().manual_seed(0)
    pairs = torch.randn(graph.num_factors[1], 1, 1, generator=generator, dtype=torch.float64)
    node = 0.1 * torch.randn(256, 2, generator=generator, dtype=torch.float64)
    scores = node, 3 * pairs * torch.eye(2, dtype=torch.float64)

    def best(method) -> float:
        p = lnz.MRF(graph, scores, method)
        return float(p.score(p.argmax()))

    exact = best(Exact())
    assert best(ClusterTempering(sweeps=200, seed=1)) == pytest.approx(exact, abs=1e-9)
    assert best(SimulatedAnnealing(sweeps=1600, chains=4, seed=1)) < exact - 0.1


def test_seeds_and_starts():
    p = random_model(3)

    def answer(**settings) -> lnz.MRF:
        return lnz.MRF(p.graph, p.scores, ClusterTempering(sweeps=2, rungs=2, runs=1, **settings))

    before = torch.get_rng_state()
    assert torch.equal(answer(seed=1).argmax(), answer(seed=1).argmax())
    assert torch.equal(torch.get_rng_state(), before)
    started = answer(start=TRWS())
    trws = lnz.MRF(p.graph, p.scores, TRWS())
    assert p.score(started.argmax()) >= p.score(trws.argmax())
    assert started.diagnostics["bound"] == trws.diagnostics["bound"]
    assert started.diagnostics["gap"] == started.diagnostics["bound"] - started.diagnostics["score"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sweeps": 0}, "sweeps: expected a positive integer, got 0"),
        ({"rungs": 1}, "rungs: expected an integer of at least 2, got 1"),
        ({"runs": 0}, "runs: expected a positive integer, got 0"),
        ({"hottest": 0.01}, "coldest, hottest: expected 0 < coldest < hottest, got 0.02 and 0.01"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        ClusterTempering(**wrong)


def test_a_start_is_a_method():
    with pytest.raises(TypeError, match="start: expected a method of lnz.inference or None, got 'trws'"):
        ClusterTempering(start="trws")  # type: ignore[arg-type]
