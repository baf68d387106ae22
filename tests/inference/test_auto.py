"""Best labellings within a time limit: proved where that can be, and honest where it cannot."""

from __future__ import annotations

import time

import pytest
import torch

import lnz
from lnz.inference import Auto, Progress
from lnz.inference.map import auto
from tests.modes import check, random_model


@pytest.mark.parametrize("seed", range(8))
def test_small_models_are_solved_by_elimination(seed):
    p = random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3))
    check(p, Auto(), exact=True)
    q = lnz.MRF(p.graph, p.scores, Auto(), validate_args=False)
    q.argmax()
    assert q.diagnostics["stages"] == ["Exact"]
    assert (q.diagnostics["gap"] == 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_without_elimination_the_others_solve_them(seed, monkeypatch):
    monkeypatch.setattr(auto, "EXACT_RATE", 0.0)
    p = random_model(seed, batch=(2,) if seed % 2 else (), impossible=0.1 * (seed % 3))
    check(p, Auto(10.0), exact=True)


def test_time_is_kept_and_progress_is_told():
    graph, generator = lnz.FactorGraph.grid(64, 64, 2), torch.Generator().manual_seed(0)
    pairs = 3 * torch.randn(graph.num_factors[1], 2, 2, generator=generator)
    told: list[Progress] = []
    p = lnz.MRF(graph, (torch.randn(4096, 2, generator=generator), pairs), Auto(4.0, progress=told.append))
    lnz.MRF(graph, p.scores, Auto(0.5)).argmax()  # compiled
    began = time.monotonic()
    y = p.argmax()
    assert time.monotonic() - began < 30  # of a machine that does other work beside it
    said = p.diagnostics
    assert said["stages"][:2] == ["TRWS", "ClusterTempering"]
    assert said["score"] == pytest.approx(float(p.score(y)), rel=1e-6)
    assert said["gap"] == pytest.approx(float(said["bound"] - said["score"]))
    assert not said["optimal"]
    scores = [float(each.score) for each in told]
    assert scores == sorted(scores)
    assert scores[-1] == float(said["score"])
    assert [each.seconds for each in told] == sorted(each.seconds for each in told)
    assert float(told[-1].bound) == float(said["bound"])


def test_impossible_models_are_told():
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    p = lnz.MRF(graph, (torch.zeros(2, 2), torch.full((2, 2), -torch.inf)), Auto(5.0))
    with pytest.raises(lnz.InfeasibleError, match="no labelling"):
        p.argmax()
    assert p.diagnostics["bound"] == -torch.inf


def test_nothing_to_label_and_no_batch():
    empty = lnz.MRF(lnz.FactorGraph((), ()), (), Auto(2.0))
    assert empty.argmax().tolist() == []
    none = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (torch.zeros(0, 4, 2), torch.zeros(2, 2)), Auto(2.0))
    assert none.argmax().shape == (0, 4)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="time_limit: expected a positive number of seconds"):
        Auto(wrong)
