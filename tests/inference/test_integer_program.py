"""Integer programming: exact on any small model, with what HiGHS says about it."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.optimize
import torch

import lnz
from lnz.inference import Exact, IntegerProgram
from lnz.inference.map.linear_program import program
from tests.modes import check, random_model


@pytest.mark.parametrize("seed", range(16))
def test_random_models_are_solved(seed):
    p = random_model(seed, batch=(2,) if seed % 4 == 0 else (), impossible=0.15 * (seed % 2))
    check(p, IntegerProgram(), exact=True)


def test_observed_labels_are_kept():
    p = random_model(2)
    check(p.condition(torch.tensor([0] + [-100] * (p.graph.num_nodes - 1))), IntegerProgram(), exact=True)


@pytest.mark.parametrize("seed", range(12))
def test_factors_that_only_forbid_or_charge_one_fee(seed):
    """Some pairs and triples of labels are impossible, some cost 4, in one table both: beside random nodes."""
    drawn, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    cards = [drawn.randint(2, 4) for _ in range(6)]
    scopes = [[n] for n in range(6)] + [drawn.sample(range(6), drawn.randint(2, 3)) for _ in range(8)]
    graph, _ = lnz.FactorGraph.grouped(cards, scopes)
    entries = []
    for factors, labels in zip(graph.num_factors, graph.labels, strict=True):
        table = torch.randn(factors, *labels, generator=generator, dtype=torch.float64)
        if len(labels) > 1:
            kind = torch.rand(table.shape, generator=generator)
            fee = torch.where(kind < 0.3, -4.0, 0.0).double()
            table = torch.where(kind > 0.85, -torch.inf, fee) if seed % 3 else fee
        entries.append(table)
    check(lnz.MRF(graph, entries), IntegerProgram(), exact=True)


def test_such_factors_take_no_fractions():
    graph = lnz.FactorGraph.pairwise(3, 4, torch.tensor([[0, 1], [1, 2]]))
    nodes, forbids = np.zeros(12), np.zeros((2, 4, 4))
    forbids[:, 0, 1:3] = -np.inf
    made = program(graph, nodes, [None, forbids], 0.0, -math.inf)
    assert (len(made.value), made.rows.shape[0]) == (12 + 2, 3 + 2)
    assert made.upper[12:].tolist() == [0, 0]
    charges = np.where(np.isfinite(forbids), 0.0, -5.0)
    made = program(graph, nodes, [None, charges], 0.0, -math.inf)
    assert made.value[12:].tolist() == [-5, -5]
    assert made.upper[12:].tolist() == [1, 1]
    known = program(graph, nodes, [None, charges], 0.0, -4.0)
    assert known.upper[12:].tolist() == [0, 0], "who pays ends below what is known"
    assert len(program(graph, nodes, [None, -charges], 0.0, -math.inf).value) == 12 + 2 * 16, "most of them cost"


def test_a_start_that_is_best_is_kept_and_proved():
    p = random_model(4)
    q = lnz.MRF(p.graph, p.scores, IntegerProgram(start=Exact()))
    exact = lnz.MRF(p.graph, p.scores)
    assert p.score(q.argmax()) == pytest.approx(float(p.score(exact.argmax())))
    assert q.diagnostics["status"] == ["optimal"]
    with pytest.raises(TypeError, match="start: expected a method of lnz.inference or None, got 3"):
        IntegerProgram(start=3)  # type: ignore[arg-type]


def test_impossible_models_are_told_apart():
    graph = lnz.FactorGraph.pairwise(2, 2, torch.tensor([[0, 1]]))
    p = lnz.MRF(graph, (torch.zeros(2, 2), torch.full((2, 2), -torch.inf)), IntegerProgram())
    with pytest.raises(lnz.InfeasibleError, match="no labelling that IntegerProgram found"):
        p.argmax()
    assert p.diagnostics["status"] == ["infeasible"]
    assert p.diagnostics["bound"] == -torch.inf


def test_large_models_are_refused():
    p = random_model(1)
    with pytest.raises(lnz.IntractableError, match=r"variables are more than max_variables=3.*TRWS") as error:
        lnz.MRF(p.graph, p.scores, IntegerProgram(max_variables=3)).argmax()
    assert error.value.alternatives == ("TRWS", "Exact")


def test_a_time_limit_leaves_an_honest_bound():
    generator = torch.Generator().manual_seed(0)
    graph = lnz.FactorGraph.grid(16, 16, 3)
    entries = tuple(
        torch.randn(f, *ls, generator=generator) for f, ls in zip(graph.num_factors, graph.labels, strict=True)
    )
    p = lnz.MRF(graph, entries, IntegerProgram(time_limit=0.01))
    p.argmax()
    said = p.diagnostics
    assert said["bound"] >= said["score"]
    assert said["optimal"] or said["status"][0].startswith("time limit")


@pytest.mark.parametrize("wrong", [{"time_limit": 0}, {"max_variables": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected .* positive .*, got 0"):
        IntegerProgram(**wrong)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_what_is_solved_says_so_and_what_is_not_does_not(scale, monkeypatch):
    graph = lnz.FactorGraph.grid(3, 3, 3)
    generator = torch.Generator().manual_seed(1)
    entries = tuple(
        scale * torch.randn(2, f, *ls, generator=generator, dtype=torch.float64)
        for f, ls in zip(graph.num_factors, graph.labels, strict=True)
    )
    p = lnz.MRF(graph, entries, IntegerProgram())
    p.argmax()
    assert p.diagnostics["status"] == ["optimal", "optimal"]
    assert p.diagnostics["optimal"].all()
    solve = scipy.optimize.milp

    def interrupted(*arguments, **settings):
        """As at a time limit: a labelling, and a bound that is 10 % away."""
        answer = solve(*arguments, **settings)
        answer.mip_dual_bound -= 0.1 * abs(answer.fun)
        answer.status, answer.success = 1, False
        return answer

    monkeypatch.setattr(scipy.optimize, "milp", interrupted)
    q = lnz.MRF(graph, entries, IntegerProgram())
    assert torch.equal(q.argmax(), p.argmax())
    assert q.diagnostics["status"] == ["time limit", "time limit"]
    assert not q.diagnostics["optimal"].any()
    torch.testing.assert_close(q.diagnostics["bound"], 1.1 * q.diagnostics["score"])
