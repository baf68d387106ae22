"""Belief propagation: exact on forests, the published values on a grid with cycles, and the same answers every way."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.inference import BeliefPropagation, Enumeration
from lnz.scores import Entry

SCHEDULES = ("flooding", "sequential", "residual")
TIGHT = BeliefPropagation(max_iterations=1000, tolerance=1e-13)


def random_forest(rng: random.Random) -> lnz.FactorGraph:
    """Up to 7 nodes of 1 … 3 labels; factors of 0 … 4 nodes, none of which closes a cycle."""
    cards = [rng.randint(1, 3) for _ in range(rng.randint(1, 7))]
    trees = [[node] for node in range(len(cards))]
    scopes: list[list[int]] = [[] for _ in range(rng.randint(0, 1))]
    scopes += [[rng.randrange(len(cards))] for _ in range(rng.randint(0, 4))]
    while len(trees) > 1 and rng.random() < 0.9:
        joined = rng.sample(trees, min(len(trees), rng.randint(2, 4)))
        scopes.append([rng.choice(tree) for tree in joined])
        trees = [tree for tree in trees if tree not in joined] + [[node for tree in joined for node in tree]]
    return lnz.FactorGraph.grouped(cards, scopes)[0]


def random_scores(graph: lnz.FactorGraph, rng: random.Random, *, impossible: float = 0.0) -> list[Entry]:
    """One of the forms a group can take, each; a batch of 2, 3 at most, with some scores −inf."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))

    def draw(*shape: int) -> Tensor:
        scores = torch.randn(shape, generator=generator, dtype=torch.float64)
        return scores.masked_fill(torch.rand(shape, generator=generator) < impossible, -torch.inf)

    entries: list[Entry] = []
    for count, labels in zip(graph.num_factors, graph.labels, strict=True):
        batch = rng.choice([(), (1,), (2, 1), (3,), (2, 3)])
        form = rng.choice(["own", "one", "shared", "weighted"])
        if form == "weighted":
            weight = 0.1 + torch.rand(*batch, count, generator=generator, dtype=torch.float64)
            entries.append(lnz.Weighted(weight, draw(*labels)))
        else:
            lead = {"own": (*batch, count), "one": (*batch, 1), "shared": ()}[form]
            entries.append(draw(*lead, *labels))
    return entries


def leaves(entries: list[Entry]) -> list[Tensor]:
    """The score tensors, made to want gradients."""
    tensors = [t for e in entries for t in ((e.weight, e.table) if isinstance(e, lnz.Weighted) else (e,))]
    return [tensor.requires_grad_() for tensor in tensors]


def expectation(p: lnz.MRF, possible: Tensor) -> Tensor:
    """E[s(y)] summed over the possible batch entries, marginals held: its gradient is that of ln Z."""
    total = torch.zeros((), dtype=torch.float64)
    for marginal, entry in zip(p.solution.marginals, p.scores, strict=True):
        if isinstance(entry, lnz.Weighted):
            scores = lnz.Weighted(entry.weight, entry.table.masked_fill(torch.isneginf(entry.table), 0.0)).expand()
        else:
            scores = entry.masked_fill(torch.isneginf(entry), 0.0)
        total = total + (marginal[possible].detach() * scores.expand(marginal.shape)[possible]).sum()
    return total


def loopy(seed: int = 0, scale: float = 0.5, batch: tuple[int, ...] = ()) -> tuple[lnz.FactorGraph, list[Tensor]]:
    """Cycles, mixed cardinalities, and a factor of three nodes."""
    cards = [2, 3, 2, 3, 2]
    scopes = [[0], [1], [2], [3], [0, 1], [1, 2], [2, 3], [3, 0], [0, 2, 4], [1, 3]]
    graph = lnz.FactorGraph.grouped(cards, scopes)[0]
    generator = torch.Generator().manual_seed(seed)
    return graph, [
        scale * torch.randn(*batch, count, *labels, generator=generator, dtype=torch.float64)
        for count, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]


def assert_same(one: Tensor, other: Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(one, other, atol=atol, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    impossible=st.sampled_from([0.0, 0.2, 0.5]),
    schedule=st.sampled_from(SCHEDULES),
    damping=st.sampled_from([0.0, 0.5]),
    evidence=st.booleans(),
)
def test_exact_on_forests(seed: int, impossible: float, schedule: str, damping: float, evidence: bool) -> None:
    rng = random.Random(seed)
    graph = random_forest(rng)
    assume(graph.num_groups)  # without a score there is nothing to say that float64 is meant
    entries = random_scores(graph, rng, impossible=impossible)
    tensors = leaves(entries)
    p = lnz.MRF(graph, entries, BeliefPropagation(max_iterations=1, schedule=schedule, damping=damping))
    q = lnz.MRF(graph, entries, Enumeration())
    if evidence:
        y = torch.tensor([rng.randrange(card) if rng.random() < 0.4 else -100 for card in graph.cardinalities])
        p, q = p.condition(y), q.condition(y)
    assert_same(p.log_partition, q.log_partition)
    assert p.solution.exact
    assert p.diagnostics["converged"].all()
    possible = torch.isfinite(q.log_partition)
    answers, expected = p.solution, q.solution
    assert_same(answers.node_marginals[possible], expected.node_marginals[possible])
    for belief, marginal in zip(answers.marginals, expected.marginals, strict=True):
        assert_same(belief[possible], marginal[possible])
    assert not any(belief.isnan().any() for belief in answers.marginals)
    assert_same(p.score(answers.argmax()), q.score(q.solution.argmax()))
    if tensors:
        grads = torch.autograd.grad(p.log_partition.masked_fill(~possible, 0).sum(), tensors)
        for grad, other in zip(grads, torch.autograd.grad(expectation(q, possible), tensors), strict=True):
            assert_same(grad, other)


def test_long_chain_needs_no_iterations_setting() -> None:
    graph = lnz.FactorGraph.pairwise(500, 3, torch.stack((torch.arange(499), torch.arange(1, 500)), -1))
    node, edge = torch.randn(500, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    forward = node[0]
    for t in range(1, 500):
        forward = node[t] + (forward[:, None] + edge).logsumexp(0)
    for schedule in SCHEDULES:
        p = lnz.MRF(graph, (node, edge), BeliefPropagation(schedule=schedule))
        assert_same(p.log_partition, forward.logsumexp(0))


def _libdai(data: Path) -> tuple[dict, lnz.FactorGraph, list[Tensor]]:
    case = json.loads((data / "libdai_reference/testfast_grid4x4.json").read_text())
    wiring = case["factor_graph"]
    graph, order = lnz.FactorGraph.grouped(wiring["card"], wiring["scopes"])
    scores = [
        torch.tensor([wiring["tables"][f] for f in members], dtype=torch.float64).log().reshape(-1, *labels)
        for members, labels in zip(order, graph.labels, strict=True)
    ]
    return case, graph, scores


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_libdai_grid(shared_data: Path, schedule: str, damping: float) -> None:
    case, graph, scores = _libdai(shared_data)
    p = lnz.MRF(graph, scores, BeliefPropagation(1000, 1e-12, damping, schedule))
    assert p.log_partition.item() - case["exact_logZ"] == pytest.approx(7.187e-4, abs=1e-7)
    assert p.log_partition.item() == pytest.approx(case["bp_logZ"], abs=1e-9)
    assert_same(p.node_marginals, torch.tensor(case["bp_marginals"], dtype=torch.float64), atol=1e-6)


def test_single_cycle_closed_form() -> None:
    """On one cycle without fields the beliefs are uniform, and Bethe's ln Z differs from the exact one by a power."""
    length, coupling = 5, 0.4
    edges = torch.stack((torch.arange(length), (torch.arange(length) + 1) % length), -1)
    graph = lnz.FactorGraph.pairwise(length, 2, edges)
    table = torch.tensor([[coupling, -coupling], [-coupling, coupling]], dtype=torch.float64)
    p = lnz.MRF(graph, (torch.zeros(2, dtype=torch.float64), table), TIGHT)
    even = length * torch.tensor(2 * coupling, dtype=torch.float64).div(2).cosh().mul(2).log()
    assert_same(p.log_partition, even)  # λ₁ⁿ; the exact value is ln(λ₁ⁿ + λ₂ⁿ)
    odd = torch.tensor(coupling, dtype=torch.float64).sinh().mul(2) ** length
    exact = lnz.MRF(graph, p.scores, Enumeration()).log_partition
    assert_same(exact, (even.exp() + odd).log())
    assert_same(p.node_marginals, torch.full((length, 2), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_every_schedule_reaches_the_same_fixed_point(schedule: str, damping: float) -> None:
    graph, scores = loopy(batch=(2,))
    want = lnz.MRF(graph, scores, TIGHT)
    p = lnz.MRF(graph, scores, BeliefPropagation(1000, 1e-13, damping, schedule))
    assert_same(p.log_partition, want.log_partition)
    assert_same(p.node_marginals, want.node_marginals)
    assert p.diagnostics["schedule"] == schedule
    assert p.diagnostics["converged"].all()
    assert not p.solution.exact


@pytest.mark.parametrize("iterations", [3, 200])
def test_gradient_is_the_beliefs_converged_or_not(iterations: int) -> None:
    graph, scores = loopy(batch=(3,))
    for tensor in scores:
        tensor.requires_grad_()
    p = lnz.MRF(graph, scores, BeliefPropagation(iterations, 0.0))
    for grad, belief in zip(torch.autograd.grad(p.log_partition.sum(), scores), p.marginals, strict=True):
        assert_same(grad, belief, atol=1e-13)


def test_gradient_at_the_fixed_point_is_the_derivative_of_the_bethe_value() -> None:
    graph, scores = loopy()
    edge = scores[1].requires_grad_()
    others = [tensor.detach() for tensor in scores]

    def bethe(table: Tensor) -> Tensor:
        return lnz.MRF(graph, [others[0], table, *others[2:]], TIGHT).log_partition

    assert torch.autograd.gradcheck(bethe, edge)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_second_derivative_at_the_fixed_point(schedule: str) -> None:
    graph, scores = loopy(scale=0.2)
    method = BeliefPropagation(200, 1e-13, schedule=schedule)

    def bethe(*tensors: Tensor) -> Tensor:
        return lnz.MRF(graph, tensors, method).log_partition

    first, *rest = (tensor.requires_grad_() for tensor in scores)
    assert torch.autograd.gradgradcheck(lambda table: bethe(table, *(r.detach() for r in rest)), first, atol=1e-6)


def test_derivatives_on_forests() -> None:
    graph, _ = lnz.FactorGraph.grouped([2, 3, 2, 2], [[0], [0, 1], [1, 2, 3], [2], []])
    generator = torch.Generator().manual_seed(0)
    scores = [
        torch.randn(2, count, *labels, generator=generator, dtype=torch.float64).requires_grad_()
        for count, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]

    def log_partition(*tensors: Tensor) -> Tensor:
        return lnz.MRF(graph, tensors, BeliefPropagation()).log_partition

    def entropy(*tensors: Tensor) -> Tensor:
        return lnz.MRF(graph, tensors, BeliefPropagation()).entropy()

    assert torch.autograd.gradcheck(log_partition, scores)
    assert torch.autograd.gradgradcheck(log_partition, scores)
    assert torch.autograd.gradcheck(entropy, scores)


def test_entropy_gradient_on_cycles_goes_through_the_iterations() -> None:
    graph, scores = loopy(scale=0.3)
    edge = scores[1].requires_grad_()

    def entropy(table: Tensor) -> Tensor:
        return lnz.MRF(graph, [scores[0], table, *scores[2:]], TIGHT).entropy()

    assert torch.autograd.gradcheck(entropy, edge, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), coarse=st.booleans())
def test_argmax_is_best_on_forests_under_ties(seed: int, coarse: bool) -> None:
    rng = random.Random(seed)
    graph = random_forest(rng)
    entries = random_scores(graph, rng, impossible=0.3)
    if coarse:  # scores of 0 or −inf only: nothing but ties
        zero = lambda t: torch.zeros_like(t).masked_fill(torch.isneginf(t), -torch.inf)  # noqa: E731
        entries = [lnz.Weighted(e.weight, zero(e.table)) if isinstance(e, lnz.Weighted) else zero(e) for e in entries]
    p, q = (lnz.MRF(graph, entries, method) for method in (BeliefPropagation(), Enumeration()))
    assert_same(p.score(p.solution.argmax()), q.score(q.solution.argmax()))


def test_argmax_on_cycles_honours_hard_constraints_under_ties() -> None:
    """A 3-colouring of a 5 × 5 grid: every max-marginal ties, so only conditioning on earlier choices can decode."""
    graph = lnz.FactorGraph.pairwise(25, 3, lnz.FactorGraph.grid(5, 5, 3).scopes[1])  # the general path
    differ = torch.zeros(3, 3, dtype=torch.float64).fill_diagonal_(-torch.inf)
    scores = (torch.zeros(3, dtype=torch.float64), differ)
    for schedule in SCHEDULES:
        p = lnz.MRF(graph, scores, BeliefPropagation(schedule=schedule))
        assert p.score(p.argmax()).item() == 0.0


def test_batch_entries_stop_on_their_own() -> None:
    graph, easy = loopy(0, scale=0.05)
    _, hard = loopy(1, scale=1.0)
    method = BeliefPropagation(500, 1e-8)
    joint = lnz.MRF(graph, [torch.stack(pair) for pair in zip(easy, hard, strict=True)], method)
    solo = [lnz.MRF(graph, scores, method) for scores in (easy, hard)]
    iterations = [int(p.diagnostics["iterations"]) for p in solo]
    assert iterations[0] < iterations[1]
    assert joint.diagnostics["iterations"].tolist() == iterations
    assert_same(joint.diagnostics["residual"], torch.stack([p.diagnostics["residual"] for p in solo]), atol=1e-14)
    assert_same(joint.log_partition, torch.stack([p.log_partition.squeeze() for p in solo]), atol=1e-13)
    assert_same(joint.node_marginals, torch.stack([p.node_marginals for p in solo]), atol=1e-13)


def frustrated() -> tuple[lnz.FactorGraph, tuple[Tensor, Tensor]]:
    """All neighbours of a complete graph want to differ, all nodes want the same label: flooding swings to and fro."""
    edges = torch.combinations(torch.arange(6))
    edge = torch.tensor([[-1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    node = torch.tensor([0.0, 0.5], dtype=torch.float64)
    return lnz.FactorGraph.pairwise(6, 2, edges), (node, edge)


def test_no_convergence_warns_once_with_numbers() -> None:
    graph, scores = frustrated()
    p = lnz.MRF(graph, scores, BeliefPropagation(max_iterations=60))
    with pytest.warns(lnz.ConvergenceWarning, match=r"1 of 1 .* 60 iterations \(worst residual 0\.\d+") as caught:
        value, beliefs = p.log_partition, p.node_marginals
    assert len(caught) == 1
    assert torch.isfinite(value)
    assert torch.isfinite(beliefs).all()
    assert not p.diagnostics["converged"]
    assert p.diagnostics["residual"] > 1e-3
    with warnings.catch_warnings():  # a fixed number of iterations is what was asked for
        warnings.simplefilter("error")
        q = lnz.MRF(graph, scores, BeliefPropagation(max_iterations=60, tolerance=0.0))
        assert_same(q.log_partition, value)
        assert q.diagnostics["iterations"] == 60


def test_fully_observed_is_the_score() -> None:
    graph, scores = loopy(scale=2.0)
    y = torch.tensor([[1, 2, 0, 1, 1], [0, 0, 1, 2, 0]])
    p = lnz.MRF(graph, scores, BeliefPropagation()).condition(y)
    assert_same(p.log_partition, lnz.MRF(graph, scores).score(y), atol=1e-12)
    assert_same(p.node_marginals.argmax(-1).double(), y.double())
    assert torch.equal(p.argmax(), y)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_infeasible_cycle_is_minus_infinity_without_nan(schedule: str) -> None:
    edges = torch.tensor([[0, 1], [1, 2], [2, 0]])
    graph = lnz.FactorGraph.pairwise(3, 2, edges)
    differ = torch.zeros(2, 2, dtype=torch.float64).fill_diagonal_(-torch.inf)
    node = torch.zeros(2, 3, 2, dtype=torch.float64)
    node[1, 0] = -torch.inf  # entry 1 is impossible at a node
    node.requires_grad_()
    p = lnz.MRF(graph, (node, differ), BeliefPropagation(schedule=schedule))
    assert torch.isneginf(p.log_partition[1])
    assert not p.log_partition.isnan().any()
    assert torch.isneginf(p.log_partition[1])
    (grad,) = torch.autograd.grad(p.log_partition[0], node)
    assert not grad.isnan().any()
    with pytest.raises(lnz.InfeasibleError, match=r"entries \[1\]"):
        _ = p.marginals


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_accumulates_in_float32(dtype: torch.dtype) -> None:
    graph, scores = loopy(scale=0.5)
    rounded = [tensor.to(dtype) for tensor in scores]
    want = lnz.MRF(graph, [tensor.double() for tensor in rounded], TIGHT)
    p = lnz.MRF(graph, rounded, BeliefPropagation())
    eps = torch.finfo(dtype).eps
    assert p.log_partition.dtype == dtype
    assert p.log_partition.double().item() == pytest.approx(want.log_partition.item(), rel=max(eps, 1e-5))
    assert_same(p.node_marginals.double(), want.node_marginals, atol=max(eps, 2e-5))


def test_reference_and_exponential_domain_agree() -> None:
    graph, scores = loopy(scale=1.0, batch=(2,))
    scores[1][..., 0, 1] = -torch.inf
    p = lnz.MRF(graph, scores, TIGHT)
    with lnz.ops.backend("reference"):
        q = lnz.MRF(graph, scores, TIGHT)
        assert_same(p.log_partition, q.log_partition)
        assert torch.equal(p.diagnostics["iterations"], q.diagnostics["iterations"])


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_wide_ranges_leave_the_exponential_domain(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty_like", lambda x, **_: torch.full_like(x, torch.nan))  # what nobody wrote is NaN
    graph = lnz.FactorGraph.grouped([2, 3, 2], [[0], [0, 1], [1, 2], [2]])[0]
    generator = torch.Generator().manual_seed(3)
    scores = [
        scale * torch.randn(count, *labels, generator=generator, dtype=torch.float64)
        for count, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]
    p, q = (lnz.MRF(graph, scores, method) for method in (BeliefPropagation(), Enumeration()))
    torch.testing.assert_close(p.log_partition, q.log_partition)
    assert_same(p.node_marginals, q.node_marginals)


def test_topk_and_sample_name_methods_that_can() -> None:
    graph, scores = loopy()
    p = lnz.MRF(graph, scores, BeliefPropagation())
    for ask in (lambda: p.topk(2), lambda: p.sample((1,))):
        with pytest.raises(TypeError, match=r"BeliefPropagation has no .*Exact.*Enumeration"):
            ask()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_iterations", 0),
        ("max_iterations", 2.5),
        ("tolerance", -1e-3),
        ("tolerance", float("nan")),
        ("damping", 1.0),
        ("damping", -0.1),
        ("schedule", "random"),
    ],
)
def test_settings_are_checked(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{argument}: expected .* got {value!r}"):
        BeliefPropagation(**{argument: value})  # type: ignore[arg-type]
