"""Simulated annealing: good labellings, the same ones for the same seed."""

from __future__ import annotations

import pytest
import torch

import lnz
from lnz.inference import TRWS, SimulatedAnnealing
from lnz.inference.map import simulated_annealing
from tests.modes import check, random_model, solved


@pytest.mark.parametrize("seed", range(8))
def test_small_models(seed):
    check(
        random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3)), SimulatedAnnealing(sweeps=20)
    )


@pytest.mark.parametrize("moves", ["nodes", "forests"])
def test_the_best_is_found_on_nearly_all_small_models(moves):
    hits = []
    for seed in range(12):
        score, _, _, best = solved(random_model(seed), SimulatedAnnealing(sweeps=50, moves=moves))
        hits.append(bool((score >= best - 1e-9).all()))
    assert sum(hits) >= 11


def test_seeds_and_starts():
    p = random_model(3)

    def answer(**settings: object) -> torch.Tensor:
        return lnz.MRF(p.graph, p.scores, SimulatedAnnealing(sweeps=3, chains=1, **settings)).argmax()  # type: ignore[arg-type]

    before = torch.get_rng_state()
    assert torch.equal(answer(seed=1), answer(seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    trws = lnz.MRF(p.graph, p.scores, TRWS()).argmax()
    assert p.score(answer(start=TRWS())) >= p.score(trws)


def test_observed_labels_are_kept():
    p = random_model(2)
    check(p.condition(torch.tensor([0] + [-100] * (p.graph.num_nodes - 1))), SimulatedAnnealing(sweeps=10))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sweeps": 0}, "sweeps: expected a positive integer, got 0"),
        ({"chains": 0}, "chains: expected a positive integer, got 0"),
        ({"moves": "trees"}, "moves: expected one of 'nodes', 'forests', got 'trees'"),
        ({"coldest": 0}, "coldest, hottest: expected 0 < coldest"),
        ({"coldest": 2.0}, "coldest, hottest: expected 0 < coldest"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        SimulatedAnnealing(**wrong)


def recorded(monkeypatch, model, **settings):
    """The temperatures of all sweeps."""
    found = []

    def annealed(model, labels, temperatures, generator):
        found.extend(temperatures)
        return labels

    monkeypatch.setattr("lnz.inference.map.simulated_annealing.anneal", annealed)
    lnz.MRF(model.graph, model.scores, SimulatedAnnealing(**settings)).argmax()
    return found


def test_temperatures_fall_by_a_factor_from_the_hottest_to_the_coldest_in_units_of_the_mean_range(monkeypatch):
    graph = lnz.FactorGraph((3, 2, 2), (torch.tensor([[0]]), torch.tensor([[1], [2]])))
    p = lnz.MRF(graph, (torch.tensor([[0.0, 1.0, 9.0]]).double(), torch.tensor([[4.0, 1.0], [2.0, 2.0]]).double()))
    unit = (9 + 3 + 0) / 3
    found = recorded(monkeypatch, p, sweeps=5, hottest=0.5, coldest=0.02)
    assert found == pytest.approx([unit * 0.5 * (0.02 / 0.5) ** (k / 4) for k in range(5)])
    assert found[0] == pytest.approx(2.0)
    assert found[-1] == pytest.approx(0.08)
    assert recorded(monkeypatch, p, sweeps=1, hottest=0.5, coldest=0.02) == pytest.approx([2.0])
    found = recorded(monkeypatch, p)
    assert len(found) == 200
    assert (found[0], found[-1]) == pytest.approx((2.0, 0.04))


def test_the_range_of_a_node_is_over_its_possible_labels(monkeypatch):
    graph = lnz.FactorGraph((3,), (torch.tensor([[0]]),))
    p = lnz.MRF(graph, (torch.tensor([[0.0, -torch.inf, 6.0]]).double(),))
    assert recorded(monkeypatch, p, sweeps=1, hottest=1.0) == pytest.approx([6.0])


@pytest.mark.parametrize("sweeps", [1, 2, 3, 10])
def test_temperatures_fall_geometrically_from_the_hottest_to_the_coldest(
    sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    p = lnz.MRF(
        graph, (torch.zeros(2, 2), torch.tensor([[0.0, 4.0], [4.0, 0.0]])), SimulatedAnnealing(sweeps, 2.0, 0.5)
    )
    seen: list[float] = []
    right = simulated_annealing.anneal

    def recorded(model: object, labels: object, temperatures: list[float], generator: object) -> torch.Tensor:
        seen.extend(temperatures)
        return right(model, labels, temperatures, generator)  # type: ignore[arg-type]

    monkeypatch.setattr(simulated_annealing, "anneal", recorded)
    p.argmax()
    ratios = torch.tensor(seen) / seen[0]
    wanted = 0.25 ** (torch.arange(sweeps) / max(sweeps - 1, 1))
    torch.testing.assert_close(ratios, wanted.to(ratios))
