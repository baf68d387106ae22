"""Queries as a function: what each answers, and what it leaves out."""

import json
import math
import warnings

import pytest
import torch

import lnz
from lnz.inference import AnnealedImportance, BeliefPropagation, Enumeration, Exact, MeanField
from lnz.io import NamedModel, read_uai
from lnz.io.model import numbered
from lnz.tasks.infer import infer

TOY = "MARKOV 3  2 2 3  2  2 0 1  2 1 2   4 4.0 2.4 1.0 0.0   6 2.25 3.25 3.75 0 0 10"
Z = 4 * 9.25 + 1 * 9.25 + 2.4 * 10
METHODS = [Exact(), Enumeration(), BeliefPropagation()]  # the toy is a tree: all three are exact


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.uai"
    path.write_text(TOY)
    return read_uai(path)


@pytest.mark.parametrize("method", METHODS)
def test_partition_function(toy, method):
    answer = infer(toy, "PR", method)
    assert answer.exact
    assert answer.log_partition == pytest.approx(math.log(Z), abs=1e-12)
    assert answer.log10_partition == pytest.approx(math.log10(Z), abs=1e-12)
    assert answer.marginals is answer.assignment is answer.log_score is None
    head, value = answer.to_uai().splitlines()
    assert head == "PR"
    assert float(value) == answer.log10_partition


@pytest.mark.parametrize("method", METHODS)
def test_marginals_keep_each_variables_own_states(toy, method):
    answer = infer(toy, "MAR", method)
    assert list(answer.named_marginals) == ["0", "1", "2"]
    assert answer.marginals[0] == pytest.approx((1 - 9.25 / Z, 9.25 / Z))
    assert answer.marginals[2] == pytest.approx((5 * 2.25 / Z, 5 * 3.25 / Z, (5 * 3.75 + 24) / Z))
    words = answer.to_uai().split()
    assert words[:3] == ["MAR", "3", "2"]
    assert [words[i] for i in (5, 8)] == ["2", "3"]
    assert len(words) == 12


@pytest.mark.parametrize("method", METHODS)
def test_best_labelling_and_its_unnormalised_score(toy, method):
    answer = infer(toy, "MAP", method)
    assert answer.labelling == (0, 1, 2)
    assert answer.log_score == pytest.approx(math.log(24), abs=1e-12)
    assert answer.log_partition is answer.log10_partition is answer.marginals is None
    assert answer.to_uai() == "MAP\n3 0 1 2\n"


@pytest.mark.parametrize("method", METHODS)
def test_evidence_is_clamped_counted_and_one_hot(toy, method):
    evidence = torch.tensor([-100, 0, 1])
    answer = infer(toy, "MAR", method, evidence)
    assert answer.log_partition == pytest.approx(math.log(5 * 3.25), abs=1e-12)
    assert answer.marginals[1] == pytest.approx((1, 0))
    assert answer.marginals[2] == pytest.approx((0, 1, 0))
    best = infer(toy, "MAP", method, evidence)
    assert best.labelling == (0, 0, 1)
    assert best.log_score == pytest.approx(math.log(4 * 3.25), abs=1e-12)


@pytest.mark.parametrize("query", ["PR", "MAR", "MAP"])
@pytest.mark.parametrize("method", METHODS)
def test_impossible_evidence(toy, method, query):
    with pytest.raises(lnz.InfeasibleError):
        infer(toy, query, method, torch.tensor([1, 1, -100]))


def test_a_failed_estimate_is_no_impossibility(toy, tmp_path, monkeypatch):
    """Not "Z = 0": that no chain survived, or a bound of −inf, shows nothing about the model."""
    (tmp_path / "triangle.uai").write_text(f"MARKOV 3  2 2 2  3  2 0 1  2 1 2  2 2 0  {'4 0 1 1 0 ' * 3}")
    triangle = read_uai(tmp_path / "triangle.uai")  # no two neighbours alike
    method = AnnealedImportance(steps=3)
    kind = type(method.solve(toy.mrf(method).model))
    for query in ("PR", "MAR"):
        with pytest.raises(lnz.FailedEstimateError, match="^MeanField: no estimate of ln Z"):
            infer(triangle, query, MeanField(20, 0.0))
        with monkeypatch.context() as patch:
            patch.setattr(kind, "centred_log_partition", torch.tensor(math.nan))
            with pytest.raises(lnz.FailedEstimateError, match="^AnnealedImportance: no estimate of ln Z"):
                infer(toy, query, method)
        with pytest.raises(lnz.InfeasibleError, match="Z = 0"):
            infer(toy, query, MeanField(20, 0.0), torch.tensor([1, 1, -100]))  # which a factor shows
    assert not issubclass(lnz.FailedEstimateError, lnz.InfeasibleError)


def test_every_answer_is_json_with_every_key(toy):
    for query in ("PR", "MAR", "MAP"):
        found = json.loads(json.dumps(infer(toy, query, BeliefPropagation()).to_dict(), allow_nan=False))
        keys = {"ln_Z", "log10_Z", "marginals", "assignment", "log_score", "exact", "diagnostics"}
        assert found.keys() == keys
        assert found["diagnostics"]["converged"] is True


def test_unknown_query(toy):
    with pytest.raises(ValueError, match="query: expected one of PR, MAR, MAP, MMAP, got 'MPE'"):
        infer(toy, "MPE", Exact())  # type: ignore[arg-type]


def test_diagnostics_of_a_best_labelling_are_those_of_max_product():
    loop = torch.tensor([[0, 1], [1, 2], [2, 0]])
    graph = lnz.FactorGraph.pairwise(3, 2, loop)
    edges = torch.tensor([[[3.0, 0], [0, 2.5]], [[2, 0], [0, 1]], [[0, 2.2], [1.9, 0]]], dtype=torch.float64)
    model = NamedModel("MARKOV", graph, (torch.zeros(3, 2, dtype=torch.float64), edges), *numbered([2, 2, 2]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = infer(model, "MAP", BeliefPropagation(max_iterations=2))
    assert [warning.category for warning in caught] == [lnz.ConvergenceWarning]
    assert "max-product" in str(caught[0].message)
    assert answer.diagnostics["converged"] is False
    assert answer.diagnostics["iterations"] == 2
    assert not answer.exact


def random_model(seed):
    """Six variables in random factors of up to three, with a zero here and there."""
    generator = torch.Generator().manual_seed(seed)
    cards = [2, 3, 2, 2, 3, 2]
    scopes = [torch.tensor([[0], [3]]), torch.tensor([[1, 4]]), torch.tensor([[0, 2], [5, 3]])]
    scopes += [torch.tensor([[0, 2, 5]]), torch.tensor([[4, 1, 2]])]
    graph = lnz.FactorGraph(cards, scopes)
    scores = []
    for scope, labels in zip(graph.scopes, graph.labels, strict=True):
        table = torch.randn(len(scope), *labels, dtype=torch.float64, generator=generator)
        scores.append(table.masked_fill(torch.rand(table.shape, generator=generator) < 0.1, -torch.inf))
    return NamedModel("MARKOV", graph, tuple(scores), *numbered(cards))


@pytest.mark.parametrize("variables", [(0,), (4, 1), (5, 0, 3), (2,), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("evidence", [None, [-100, -100, 1, -100, -100, -100], [-100, 1, -100, -100, 2, 0]])
@pytest.mark.parametrize("seed", [0, 1])
def test_marginal_map_is_that_of_enumeration(seed, evidence, variables):
    model = random_model(seed)
    given = None if evidence is None else torch.tensor(evidence)
    found = infer(model, "MMAP", Exact(), given, variables)
    listed = infer(model, "MMAP", Enumeration(), given, variables)
    assert found.exact
    assert found.labelling == listed.labelling
    assert found.log_score == pytest.approx(listed.log_score, abs=1e-12)
    if len(variables) == 6:
        assert found.labelling == infer(model, "MAP", Exact(), given).labelling


def test_marginal_map_with_a_variable_in_no_factor():
    graph = lnz.FactorGraph([2, 3, 2], [torch.tensor([[0]])])
    model = NamedModel("MARKOV", graph, (torch.tensor([[0.0, 1.0]], dtype=torch.float64),), *numbered([2, 3, 2]))
    answer = infer(model, "MMAP", Exact(), None, (2, 0))
    assert answer.labelling == (0, 1)
    assert answer.log_score == pytest.approx(1 + math.log(3))


def test_marginal_map_refuses_before_it_allocates():
    """Summing the centre of a star out joins all its leaves, though the star is a tree."""
    edges = torch.tensor([[0, leaf] for leaf in range(1, 40)])
    graph = lnz.FactorGraph.pairwise(40, 2, edges)
    scores = (torch.zeros(40, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))
    model = NamedModel("MARKOV", graph, scores, *numbered([2] * 40))
    with pytest.raises(
        lnz.IntractableError, match="marginal MAP: with the variables to be summed out first"
    ) as refusal:
        infer(model, "MMAP", Exact(), None, range(1, 40))
    assert refusal.value.treewidth == 39
    assert infer(model, "MMAP", Exact(), None, (0,)).log_score == pytest.approx(39 * math.log(2))


def test_marginal_map_wants_different_variables_and_an_exact_method(toy):
    with pytest.raises(TypeError, match=r"MeanField has no marginal MAP; methods that do: Exact\(\), Enumeration\(\)"):
        infer(toy, "MMAP", MeanField(), None, (0,))
    for wrong in [(), (0, 0), (3,)]:
        with pytest.raises(ValueError, match=r"variables: expected different nodes in \[0, 3\)"):
            infer(toy, "MMAP", Exact(), None, wrong)
    with pytest.raises(ValueError, match="variables: expected those of an MMAP query"):
        infer(toy, "MAP", Exact(), None, (0,))
