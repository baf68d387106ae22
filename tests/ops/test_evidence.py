"""Rows of evidence side by side in lanes, against every row as a model of its own."""

from __future__ import annotations

import pytest
import torch

from lnz.distributions.families import families
from lnz.graphs import FactorGraph
from lnz.inference import Exact
from lnz.inference.exact.order_search import Limits
from lnz.inference.exact.plans import plan
from lnz.ops import backend
from lnz.ops.elimination import Program, evidence
from lnz.scores import checked_model, observe


def network(cards: list[int], parents: list[list[int]]) -> FactorGraph:
    return families(cards, parents).graph


def loops() -> FactorGraph:
    """Two components, one with loops; a node of one label and one of five."""
    return network([2, 3, 2, 5, 2, 1, 3, 2], [[], [0], [0], [1, 2], [2, 3], [], [5, 4], []])


def star() -> FactorGraph:
    """One node with 11 neighbours, more than a clique takes messages from."""
    return network([3] + [2] * 11, [[]] + [[0]] * 11)


GRAPHS = {"loops": loops, "star": star}


def program_of(graph: FactorGraph) -> Program:
    return plan(graph, frozenset(), Limits(), torch.float64).program


def given(program: Program, rows: int, nets: int = 1, scale: float = 1.0, seed: int = 0) -> evidence.Evidence:
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randn(nets, program.node_start, dtype=torch.float64, generator=generator) * scale
    tables -= tables.amax() + 0.1
    cards = torch.tensor(program.cardinalities)
    observed = (torch.rand(rows, len(cards), generator=generator) * cards).long()
    observed[torch.rand(rows, len(cards), generator=generator) < 0.5] = -100
    return evidence.Evidence(tables, observed, program.handle)


def both(case: evidence.Evidence, wanted: str, weights: torch.Tensor | None = None):
    with backend("reference"):
        expected = evidence.rows_of_evidence(case, wanted, weights)
    return evidence.rows_of_evidence(case, wanted, weights), expected


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("rows", [1, 16, 301])
def test_lanes_equal_rows(name, rows):
    program = program_of(GRAPHS[name]())
    case = given(program, rows)
    for wanted in (evidence.NOTHING, evidence.NODES, evidence.TABLES, evidence.SUMS):
        ours, theirs = both(case, wanted)
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
        if wanted != evidence.NOTHING:
            torch.testing.assert_close(ours[1], theirs[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", GRAPHS)
def test_several_networks_and_weights(name):
    program = program_of(GRAPHS[name]())
    case, weights = given(program, 530, nets=3), torch.arange(530) % 4
    ours, theirs = both(case, evidence.SUMS, weights)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("scale", [30.0, 100.0, 1e3, 1e6])
def test_rows_that_leave_the_range_are_worked_on_in_logarithms(name, scale):
    """As right as the others, whatever the scores: within a table, between tables, over a clique's children."""
    program = program_of(GRAPHS[name]())
    case = given(program, 64, scale=scale)
    for wanted in (evidence.NODES, evidence.TABLES, evidence.SUMS):
        ours, theirs = both(case, wanted)
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-7, atol=1e-9)


def test_a_row_may_leave_the_range_alone():
    """An observation leaves only what is 1e-200 as likely: twice, below the least number there is."""
    program = program_of(network([2, 2, 2, 2], [[], [0], [0], [0]]))
    tables = torch.zeros(1, program.node_start, dtype=torch.float64)
    tables[0, 2:] = torch.tensor([0.0, -460.0, 0.0, -460.0]).repeat(3)
    observed = torch.full((16, 4), -100)
    observed[3, 1:] = 1
    case = evidence.Evidence(tables, observed, program.handle)
    ours, theirs = both(case, evidence.NODES)
    assert float(ours[0][0, 3]) == pytest.approx(float(theirs[0][0, 3]), rel=1e-12)
    assert float(ours[0][0, 3]) < -1300
    torch.testing.assert_close(ours[1], theirs[1])


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_impossible(name):
    """−inf as ln Z, no marginals; the rows beside it are as ever."""
    program = program_of(GRAPHS[name]())
    case = given(program, 40)
    case.tables[0, 0] = case.tables[0, program.node_start // 2 :: 3] = -torch.inf
    ours, theirs = both(case, evidence.TABLES)
    impossible = torch.isneginf(ours[0][0])
    assert 0 < int(impossible.sum()) < len(impossible)
    torch.testing.assert_close(ours[0], theirs[0])
    assert not ours[1][impossible].any()
    torch.testing.assert_close(ours[1], theirs[1])
    ours, theirs = both(case, evidence.SUMS, torch.ones(40))
    torch.testing.assert_close(ours[1], theirs[1])
    every = case._replace(observed=torch.zeros_like(case.observed))
    assert torch.isneginf(evidence.rows_of_evidence(every, evidence.TABLES)[0]).all()


def test_sums_do_not_depend_on_threads():
    program = program_of(loops())
    case, threads = given(program, 3000), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(evidence.rows_of_evidence(case, evidence.SUMS)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_tables_without_a_node():
    """They add to ln Z and are certain."""
    program = Program((2, 3), [(), (0, 1), ()], [((1, 0), 2, -1)])
    case = given(program, 20)
    for wanted in (evidence.TABLES, evidence.SUMS):
        ours, theirs = both(case, wanted)
        torch.testing.assert_close(ours[0], theirs[0])
        torch.testing.assert_close(ours[1], theirs[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_answers_alike_in_one_batch_and_row_by_row(dtype):
    """Exact takes lanes where many rows share their tables; whatever is observed in all rows."""
    graph = loops()
    generator = torch.Generator().manual_seed(3)
    scores = [
        torch.randn(f, *labels, generator=generator).to(dtype)
        for f, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]
    model = checked_model(graph, scores)
    case = given(program_of(graph), 50)
    for observed in (case.observed, case.observed.index_fill(1, torch.tensor([1, 3]), 0)):
        together = Exact().solve(observe(model, observed))
        alone = [Exact().solve(observe(model, row)) for row in observed]
        assert together._shared is not None
        assert alone[0]._shared is None
        error = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(
            together.node_marginals, torch.stack([a.node_marginals for a in alone]), rtol=error, atol=error
        )
        torch.testing.assert_close(
            together.log_partition, torch.stack([a.log_partition for a in alone]), rtol=error, atol=error
        )
        for group, found in enumerate(together.marginals):
            each = torch.stack([a.marginals[group] for a in alone])
            torch.testing.assert_close(found, each, rtol=error, atol=error)
            torch.testing.assert_close(
                together.summed_marginals()[group][0], each.double().sum(0), rtol=error, atol=error
            )
