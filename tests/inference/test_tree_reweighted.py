"""Tree-reweighted: exact on forests, pseudo-marginals as gradients, and a bound that needs no convergence."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lnz
from lnz.inference import Enumeration, TreeReweighted
from tests.inference.test_belief_propagation import (
    assert_same,
    expectation,
    leaves,
    loopy,
    random_forest,
    random_scores,
)
from tests.inference.test_bounds import GRAPHS, cycle, random_model

TIGHT = TreeReweighted(3000, 1e-14)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    impossible=st.sampled_from([0.0, 0.2, 0.5]),
    appearance=st.sampled_from(["uniform", "optimised"]),
    evidence=st.booleans(),
)
def test_exact_on_forests(seed: int, impossible: float, appearance: str, evidence: bool) -> None:
    rng = random.Random(seed)
    graph = random_forest(rng)
    entries = random_scores(graph, rng, impossible=impossible)
    tensors = leaves(entries)
    assume(tensors)
    p = lnz.MRF(graph, entries, TreeReweighted(max_iterations=1, appearance=appearance))  # type: ignore[arg-type]
    q = lnz.MRF(graph, entries, Enumeration())
    if evidence:
        y = torch.tensor([rng.randrange(card) if rng.random() < 0.4 else -100 for card in graph.cardinalities])
        p, q = p.condition(y), q.condition(y)
    assert_same(p.log_partition, q.log_partition)
    assert p.solution.exact
    assert p.diagnostics["converged"].all()
    possible = torch.isfinite(q.log_partition)
    assert_same(p.solution.node_marginals[possible], q.solution.node_marginals[possible])
    for belief, marginal in zip(p.solution.marginals, q.solution.marginals, strict=True):
        assert_same(belief[possible], marginal[possible])
        assert not belief.isnan().any()
    grads = torch.autograd.grad(p.log_partition.masked_fill(~possible, 0).sum(), tensors)
    for grad, other in zip(grads, torch.autograd.grad(expectation(q, possible), tensors), strict=True):
        assert_same(grad, other)


def test_single_cycle_closed_form() -> None:
    """A symmetric cycle of n: each edge is in (n − 1) / n of the spanning trees; the bound is a sum over edges."""
    length, coupling = 5, 0.4
    edge = torch.tensor([[coupling, -coupling], [-coupling, coupling]], dtype=torch.float64)
    p = lnz.MRF(cycle(length, 2), (torch.zeros(2, dtype=torch.float64), edge), TIGHT)
    rho = (length - 1) / length
    assert_same(p.diagnostics["appearance"][length:], torch.full((length,), rho, dtype=torch.float64), atol=1e-12)
    at_edge = torch.tensor(coupling / rho, dtype=torch.float64).cosh().log()
    want = length * torch.tensor(2.0, dtype=torch.float64).log() + length * rho * at_edge
    assert_same(p.log_partition, want)
    assert_same(p.node_marginals, torch.full((length, 2), 0.5, dtype=torch.float64))


def tree_reweighted_objective(p: lnz.MRF) -> Tensor:
    """⟨s, μ⟩ + Σ_i H_i − Σ_f ρ_f I_f at the pseudo-marginals: what the bound is the maximum of over local ones."""
    rho = p.diagnostics["appearance"].split(list(p.graph.num_factors), -1)
    nodes = p.node_marginals
    total = -torch.xlogy(nodes, nodes).flatten(-2).sum(-1)
    for mu, part, scope in zip(p.marginals, rho, p.graph.scopes, strict=True):
        arity = scope.shape[1]
        joint = torch.xlogy(mu, mu).flatten(mu.dim() - arity).sum(-1) if arity else 0.0
        singles = torch.xlogy(nodes, nodes).sum(-1)[..., scope].sum(-1)
        information = joint - singles if arity > 1 else torch.zeros_like(singles)
        total = total - (part * information).sum(-1)
    return p.solution._expected_score(p.model, total)


@pytest.mark.parametrize("name", ["grid", "triples", "parallel edges", "cards"])
def test_fixed_point_is_consistent_and_attains_the_bound(name: str) -> None:
    graph = GRAPHS[name]
    scores = [entry[:8] for entry in random_model(graph, seed=4)]
    p = lnz.MRF(graph, scores, TIGHT)
    assert_same(tree_reweighted_objective(p), p.log_partition, atol=1e-8)
    nodes = p.node_marginals
    for mu, scope in zip(p.marginals, graph.scopes, strict=True):
        for position, scoped in enumerate(scope.T):
            others = [2 + other for other in range(scope.shape[1]) if other != position]
            single = mu.sum(others) if others else mu
            assert_same(single, nodes[:, scoped, : single.shape[-1]], atol=1e-9)


@pytest.mark.parametrize("iterations", [3, 60])
def test_gradient_is_the_pseudo_marginals_converged_or_not(iterations: int) -> None:
    graph, scores = loopy(batch=(3,))
    for tensor in scores:
        tensor.requires_grad_()
    p = lnz.MRF(graph, scores, TreeReweighted(iterations, 0.0))
    for grad, belief in zip(torch.autograd.grad(p.log_partition.sum(), scores), p.marginals, strict=True):
        assert_same(grad, belief.detach(), atol=1e-13)


def test_gradient_at_the_fixed_point_is_the_derivative_of_the_bound() -> None:
    graph, method = cycle(3, 2), TreeReweighted(25, 0.0)
    generator = torch.Generator().manual_seed(0)
    node, edge = (torch.randn(3, *ls, generator=generator, dtype=torch.float64) / 4 for ls in ((2,), (2, 2)))

    def value(node: Tensor, edge: Tensor) -> Tensor:
        return lnz.MRF(graph, (node, edge), method).log_partition

    assert torch.autograd.gradcheck(value, (node.requires_grad_(), edge.requires_grad_()), atol=1e-6)
    assert torch.autograd.gradgradcheck(value, (node, edge.detach()), atol=1e-5)


def test_gradient_and_curvature_with_optimised_appearance() -> None:
    """With the same probabilities given, which are held, everything is the same."""
    graph, scores = loopy(scale=0.4)
    node = scores[0].requires_grad_()
    best = lnz.MRF(graph, scores, TreeReweighted(60, 0.0, appearance="optimised", steps=3))
    joins = torch.cat([torch.full((len(scope),), scope.shape[1] > 1) for scope in graph.scopes])
    same = lnz.MRF(graph, scores, TreeReweighted(150, 0.0, appearance=best.diagnostics["appearance"][joins]))
    slopes = [torch.autograd.grad(p.log_partition, node, create_graph=True)[0] for p in (best, same)]
    assert_same(slopes[0].detach(), slopes[1].detach(), atol=1e-8)
    assert_same(slopes[0].detach(), best.marginals[0].detach(), atol=1e-13)
    curvatures = [torch.autograd.grad(slope[0, 0], node)[0] for slope in slopes]
    assert_same(*curvatures, atol=1e-7)


def test_optimised_is_never_above_uniform_and_often_well_below() -> None:
    for name in ("grid", "triples", "islands"):
        graph = GRAPHS[name]
        scores = [entry[::2] for entry in random_model(graph, seed=6)]
        even, best = (
            lnz.MRF(graph, scores, TreeReweighted(60, 0.0, appearance=appearance, steps=6)).log_partition
            for appearance in ("uniform", "optimised")
        )
        exact = lnz.MRF(graph, scores, Enumeration()).log_partition
        assert (best <= even + 1e-6).all()
        assert (best - exact).sum() < (0.7 if name == "grid" else 1.0) * (even - exact).sum()


def test_given_appearance_per_batch_entry() -> None:
    graph = GRAPHS["grid"]
    scores = [entry[:2] for entry in random_model(graph, seed=8)]
    optimised = lnz.MRF(graph, scores, TreeReweighted(100, 0.0, appearance="optimised"))
    rho = optimised.diagnostics["appearance"]
    assert rho.shape == (2, 9 + 12)
    given = lnz.MRF(graph, scores, TreeReweighted(100, 0.0, appearance=rho[:, 9:]))
    assert_same(given.log_partition, optimised.log_partition)
    assert_same(given.node_marginals, optimised.node_marginals)


def test_compact_scores_are_the_expanded_ones() -> None:
    graph = lnz.FactorGraph.grid(3, 3, 2)
    generator = torch.Generator().manual_seed(0)
    node, table, weight = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((4, 9, 2), (2, 2), (4, 12))
    )
    for compact, full in (
        (table, table.expand(12, 2, 2)),
        (lnz.Weighted(weight, table), lnz.Weighted(weight, table).expand()),
    ):
        one, other = (lnz.MRF(graph, (node, entry), TreeReweighted(9, 0.0)).log_partition for entry in (compact, full))
        assert_same(one, other, atol=1e-11)
        tensors = [node, table] + ([weight] if isinstance(compact, lnz.Weighted) else [])
        grads = (torch.autograd.grad(value.sum(), tensors, retain_graph=True) for value in (one, other))
        for a, b in zip(*grads, strict=True):
            assert_same(a, b, atol=1e-11)


def test_impossible_cycle_has_no_nan() -> None:
    graph = cycle(3, 2)
    differ = torch.zeros(2, 2, dtype=torch.float64).fill_diagonal_(-torch.inf)
    node = torch.zeros(3, 3, 2, dtype=torch.float64)
    node[1, 0] = -torch.inf  # entry 1 is impossible at a node
    node[2, 0, 1] = -torch.inf  # entry 2 is seen to be impossible by propagation
    node.requires_grad_()
    p = lnz.MRF(graph, (node, differ), TreeReweighted(50, 0.0))
    assert p.log_partition[0] >= 0  # no labelling is possible, but messages do not show it
    assert torch.isneginf(p.log_partition[1:]).all()
    assert not torch.autograd.grad(p.log_partition[0], node)[0].isnan().any()
    assert not any(belief.isnan().any() for belief in p.solution.marginals)
    with pytest.raises(lnz.InfeasibleError, match=r"batch entries \[1, 2\]"):
        _ = p.marginals


def test_no_convergence_warns_that_the_bound_holds() -> None:
    graph = GRAPHS["complete"]
    p = lnz.MRF(graph, [entry[-1] for entry in random_model(graph, seed=0)], TreeReweighted(3))
    with pytest.warns(lnz.ConvergenceWarning, match=r"TreeReweighted: 1 of 1 .* upper bound all the same"):
        value = p.log_partition
    assert value > lnz.MRF(graph, p.scores, Enumeration()).log_partition
    assert not p.diagnostics["converged"]


def test_vmap_and_float32() -> None:
    graph, scores = loopy(batch=(3,))
    method = TreeReweighted(30, 0.0)

    def value(*tensors: Tensor) -> Tensor:
        return lnz.MRF(graph, tensors, method).log_partition

    batched = value(*scores)
    assert_same(torch.vmap(value)(*scores), batched, atol=1e-12)
    slopes = torch.vmap(torch.func.grad(value))(*scores)
    assert_same(slopes, lnz.MRF(graph, scores, method).marginals[0], atol=1e-12)
    single = lnz.MRF(graph, [tensor.float() for tensor in scores], TreeReweighted())
    assert single.log_partition.dtype == torch.float32
    torch.testing.assert_close(single.log_partition.double(), batched, atol=1e-3, rtol=1e-4)


def test_large_grids_keep_the_bound() -> None:
    """40 × 40 nodes, past the dense Laplacian: packed combs. Independent columns make the exact value known."""
    graph = lnz.FactorGraph.grid(40, 40, 3, by_direction=True)
    generator = torch.Generator().manual_seed(0)
    node = torch.randn(1600, 3, generator=generator, dtype=torch.float64)
    table = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    p = lnz.MRF(graph, (node, torch.zeros(3, 3, dtype=torch.float64), table), TreeReweighted(150, 0.0))
    alpha = node.reshape(40, 40, 3)[0]
    for row in node.reshape(40, 40, 3)[1:]:
        alpha = (alpha.unsqueeze(-1) + table).logsumexp(-2) + row
    exact = alpha.logsumexp(-1).sum()
    assert exact - 1e-9 <= p.log_partition <= exact * 1.08


def test_what_it_cannot_answer_and_wrong_settings() -> None:
    graph, scores = loopy()
    p = lnz.MRF(graph, scores, TreeReweighted())
    for ask in (lambda: p.sample((2,)), lambda: p.topk(2), p.argmax):
        with pytest.raises(TypeError, match="TreeReweighted has no"):
            ask()
    for wrong, message in (
        ({"max_iterations": 0}, "max_iterations: expected a positive integer, got 0"),
        ({"steps": 0}, "steps: expected a positive integer, got 0"),
        ({"tolerance": 1.0}, "tolerance: expected None or a number in"),
        ({"damping": -0.1}, r"damping: expected None or a number in \[0, 1\)"),
        ({"appearance": "even"}, "appearance: expected 'uniform', 'optimised' or a tensor, got 'even'"),
    ):
        with pytest.raises(ValueError, match=message):
            TreeReweighted(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"appearance: expected floating point probabilities, got torch\.int64"):
        TreeReweighted(appearance=torch.ones(3, dtype=torch.int64))


def test_settings_compare_by_value() -> None:
    half = torch.full((4,), 0.5)
    assert TreeReweighted(appearance=half) == TreeReweighted(appearance=half.clone())
    assert TreeReweighted(appearance=half) != TreeReweighted(appearance=half / 2)
    assert TreeReweighted(appearance=half) != TreeReweighted()
    assert len({TreeReweighted(), TreeReweighted(), TreeReweighted(steps=3)}) == 2
