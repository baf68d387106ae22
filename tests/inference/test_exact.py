"""Exact inference against enumeration on random factor graphs, and against published values."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lnz
from lnz.inference import Enumeration, Exact
from lnz.inference.exact.plans import _readable
from lnz.ops import backend

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
CRITICAL = math.log(1 + math.sqrt(2)) / 2


@st.composite
def models(draw: st.DrawFn) -> tuple[lnz.MRF, lnz.MRF]:
    """The same random model by enumeration and by elimination; some with −inf scores, evidence, compact forms."""
    cards = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    scope = st.lists(st.integers(0, len(cards) - 1), max_size=3, unique=True)
    graph, _ = lnz.FactorGraph.grouped(cards, draw(st.lists(scope, min_size=1, max_size=8)))
    batch = draw(st.sampled_from([(), (2,), (2, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    impossible = draw(st.sampled_from([0.0, 0.15]))
    scores: list[torch.Tensor | lnz.Weighted] = []
    for factors, labels in zip(graph.num_factors, graph.labels, strict=True):
        form = draw(st.sampled_from(["own", "own", "shared", "weighted"]))
        shape = (*batch, factors, *labels) if form == "own" else labels
        table = torch.randn(shape, dtype=torch.float64, generator=generator)
        table = table.masked_fill(torch.rand(shape, generator=generator) < impossible, -torch.inf)
        weight = torch.rand(*batch, factors, dtype=torch.float64, generator=generator) + 0.5
        scores.append(lnz.Weighted(weight, table) if form == "weighted" else table)
    both = lnz.MRF(graph, scores, Enumeration()), lnz.MRF(graph, scores, Exact())
    if not draw(st.booleans()):
        return both
    labels = torch.stack([torch.randint(0, card, batch, generator=generator) for card in cards], -1)
    hidden = torch.rand(labels.shape, generator=generator) < 0.6
    if draw(st.booleans()):
        hidden[..., 0] = False  # observed in every entry
    return both[0].condition(labels.masked_fill(hidden, -100)), both[1].condition(labels.masked_fill(hidden, -100))


@pytest.mark.parametrize("name", ["auto", "reference"])
@given(pair=models())
@settings(max_examples=40)
def test_equals_enumeration(name, pair):
    oracle, exact = pair
    with backend(name):
        torch.testing.assert_close(exact.log_partition, oracle.log_partition, **CLOSE)
        possible = ~torch.isneginf(oracle.log_partition)
        for ours, theirs in zip(exact.solution.marginals, oracle.solution.marginals, strict=True):
            torch.testing.assert_close(ours[possible], theirs[possible], **CLOSE)
            assert (ours[~possible] == 0).all()
        torch.testing.assert_close(
            exact.solution.node_marginals[possible], oracle.solution.node_marginals[possible], **CLOSE
        )
        labellings, scores = exact.topk(4)
        torch.testing.assert_close(scores, oracle.topk(4)[1], **CLOSE)
        found = ~torch.isneginf(scores)
        torch.testing.assert_close(exact.model.score(labellings.clamp(min=0))[found], scores[found], **CLOSE)
        assert (labellings[~found] == -100).all()
        if possible.all():
            torch.testing.assert_close(exact.score(exact.argmax()), scores[0], **CLOSE)
            assert torch.isfinite(exact.score(exact.sample((3,)))).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kept", [0, 2**20])
def test_many_blocks_and_threads(threads, kept, monkeypatch, generator):
    """Small bounds, so that cliques have many blocks, threads share them, and tables are kept or made anew."""
    monkeypatch.setattr("lnz.ops.elimination.cpu.layout._LANES", 4)
    monkeypatch.setattr("lnz.ops.elimination.cpu.sharing._SHARED", 1)
    monkeypatch.setattr("lnz.ops.elimination.cpu.sharing._KEPT", kept)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    graph = lnz.FactorGraph.grid(4, 5, 3, neighbours=8)
    for batch in ((), (4,)):
        scores = tuple(
            torch.randn(*batch, factors, *labels, dtype=torch.float64, generator=generator)
            for factors, labels in zip(graph.num_factors, graph.labels, strict=True)
        )
        scores[0].masked_fill_(torch.rand(scores[0].shape, generator=generator) < 0.1, -torch.inf)
        scores[0][..., 1] = 0.5  # so that some labelling is possible
        y = torch.full((20,), -100)
        y[7] = 1
        p, q = (lnz.MRF(graph, scores).condition(y) for _ in range(2))
        with backend("reference"):
            expected = (q.log_partition, q.solution.node_marginals, *q.marginals)
            best = q.score(q.argmax())
        torch.testing.assert_close(lnz.MRF(graph, scores).condition(y).log_partition, expected[0], **CLOSE)
        found = (p.log_partition, p.solution.node_marginals, *p.marginals)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)
        torch.testing.assert_close(p.score(p.argmax()), best, **CLOSE)
        assert torch.isfinite(p.score(p.sample((3,), generator=generator))).all()


@given(pair=models())
@settings(max_examples=20)
def test_topk_labellings_are_distinct(pair):
    labellings, scores = pair[1].topk(5)
    labellings, scores = labellings.reshape(5, -1, labellings.shape[-1]), scores.reshape(5, -1)
    for row in range(scores.shape[1]):
        found = [tuple(y.tolist()) for y, s in zip(labellings[:, row], scores[:, row], strict=True) if s > -torch.inf]
        assert len(set(found)) == len(found)


def small_grid(*batch: int) -> tuple[lnz.FactorGraph, torch.Tensor, torch.Tensor]:
    graph = lnz.FactorGraph.grid(2, 3, 2)
    generator = torch.Generator().manual_seed(3)
    nodes = torch.randn(*batch, 6, 2, dtype=torch.float64, generator=generator)
    edges = torch.randn(7, 2, 2, dtype=torch.float64, generator=generator)
    return graph, nodes.requires_grad_(), edges.requires_grad_()


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_gradients(name):
    graph, nodes, edges = small_grid()
    with backend(name):
        assert torch.autograd.gradcheck(lambda n, e: lnz.MRF(graph, (n, e)).log_partition, (nodes, edges))
        assert torch.autograd.gradgradcheck(lambda n, e: lnz.MRF(graph, (n, e)).log_partition, (nodes, edges))
        assert torch.autograd.gradcheck(lambda n, e: lnz.MRF(graph, (n, e)).marginals[1], (nodes, edges))


def test_gradient_is_zero_at_impossible_scores_and_never_nan():
    graph, nodes, edges = small_grid(2)
    impossible = nodes.detach().clone()
    impossible[0, 2, 1] = -torch.inf
    impossible[1, 4] = -torch.inf  # the second entry has no labelling at all
    impossible.requires_grad_()
    z = lnz.MRF(graph, (impossible, edges)).log_partition
    (first,) = torch.autograd.grad(z[0], impossible, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), impossible)
    assert torch.isneginf(z[1])
    assert first[0, 2, 1] == 0
    assert (first[1] == 0).all()
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()


def test_function_transforms():
    graph, nodes, edges = (t.detach() if isinstance(t, torch.Tensor) else t for t in small_grid(3))

    def log_partition(n, e):
        return lnz.MRF(graph, (n, e)).log_partition

    whole = log_partition(nodes, edges)
    torch.testing.assert_close(torch.func.vmap(log_partition, (0, None))(nodes, edges), whole, **CLOSE)
    gradient = torch.func.vmap(torch.func.grad(log_partition), (0, None))(nodes, edges)
    torch.testing.assert_close(gradient, lnz.MRF(graph, (nodes, edges)).marginals[0], **CLOSE)
    hessian = torch.func.jacrev(torch.func.jacrev(log_partition))(nodes[0], edges)
    expected = torch.autograd.functional.hessian(
        lambda n: lnz.MRF(graph, (n, edges), Enumeration()).log_partition, nodes[0]
    )
    torch.testing.assert_close(hessian, expected, **CLOSE)


def test_compiles_whole():
    graph, nodes, edges = small_grid(2)
    compiled = torch.compile(lambda n, e: lnz.MRF(graph, (n, e)).log_partition, fullgraph=True, backend="aot_eager")
    z = compiled(nodes, edges)
    torch.testing.assert_close(z, lnz.MRF(graph, (nodes, edges)).log_partition, **CLOSE)
    (gradient,) = torch.autograd.grad(z.sum(), nodes)
    torch.testing.assert_close(gradient, lnz.MRF(graph, (nodes, edges)).marginals[0], **CLOSE)


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_samples_follow_the_distribution(name, generator):
    graph, nodes, edges = (t.detach() if isinstance(t, torch.Tensor) else t for t in small_grid())
    n = 20_000
    with backend(name):
        drawn = lnz.MRF(graph, (nodes, edges)).sample((n,), generator=generator)
    code = (drawn * 2 ** torch.arange(5, -1, -1)).sum(-1)
    observed = torch.bincount(code, minlength=64).double()
    expected = lnz.MRF(graph, (nodes, edges), Enumeration()).solution._flat.softmax(-1) * n
    often = expected >= 5
    statistic = ((observed - expected)[often].square() / expected[often]).sum()
    freedom = int(often.sum())
    assert statistic < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_accumulates_wider(dtype):
    graph, nodes, edges = (t.detach() if isinstance(t, torch.Tensor) else t for t in small_grid())
    low = lnz.MRF(graph, (nodes.to(dtype), edges.to(dtype)))
    high = lnz.MRF(graph, (nodes.to(dtype).double(), edges.to(dtype).double()))
    assert low.log_partition.dtype == dtype
    torch.testing.assert_close(low.log_partition.double(), high.log_partition, rtol=torch.finfo(dtype).eps, atol=1e-6)


def torus(side: int, coupling: float) -> lnz.MRF:
    at = torch.arange(side * side).reshape(side, side)
    edges = torch.cat([torch.stack((at, at.roll(-1, axis)), -1).reshape(-1, 2) for axis in (0, 1)])
    table = torch.tensor([[coupling, -coupling], [-coupling, coupling]], dtype=torch.float64)
    graph = lnz.FactorGraph.pairwise(side * side, 2, edges)
    return lnz.MRF(graph, (torch.zeros(2, dtype=torch.float64), table))


@pytest.mark.parametrize(
    ("side", "coupling", "expected"), [(4, CRITICAL, 15.521915459), (8, CRITICAL, 60.141780789), (4, 0.3, 12.785523326)]
)
def test_ising_torus(side, coupling, expected):
    """Kaufman 1949."""
    assert abs(torus(side, coupling).log_partition.item() - expected) < 1e-8


def test_domino_tilings():
    """Kasteleyn 1961: one binary node per edge of the 8 × 8 board; every square is covered by exactly one domino."""
    squares: list[list[int]] = [[] for _ in range(64)]
    edges = [(s, s + 1) for s in range(64) if s % 8 < 7] + [(s, s + 8) for s in range(56)]
    for edge, ends in enumerate(edges):
        for square in ends:
            squares[square].append(edge)
    graph, _ = lnz.FactorGraph.grouped([2] * len(edges), squares)
    scores = []
    for labels in graph.labels:
        count = sum(torch.meshgrid(*[torch.arange(2)] * len(labels), indexing="ij"))
        scores.append(torch.zeros(labels, dtype=torch.float64).masked_fill(count != 1, -torch.inf))
    assert abs(lnz.MRF(graph, scores).log_count.exp().item() - 12_988_816) < 1e-2


@pytest.mark.parametrize("regular", [True, False])
def test_refuses_at_once_and_says_why(regular):
    start = time.process_time()  # not the wall clock, which says what else the machine is doing
    graph = lnz.FactorGraph.grid(200, 200, 2)
    if not regular:  # the same wiring, not known to be a grid
        graph = lnz.FactorGraph(graph.cardinalities, graph.scopes)
    scores = (torch.zeros(2), torch.zeros(2, 2))
    with pytest.raises(lnz.IntractableError, match=r"treewidth 200 .* bytes.*BeliefPropagation") as caught:
        lnz.MRF(graph, scores).log_partition  # noqa: B018
    assert time.process_time() - start < (0.5 if regular else 3)
    assert caught.value.treewidth == 200
    assert caught.value.table_bytes == pytest.approx(2**201 * 4, rel=0.5)
    assert set(caught.value.alternatives) >= {"BeliefPropagation", "TreeReweighted", "MeanField", "Gibbs", "TRWS"}
    assert all(hasattr(lnz.inference, name) for name in caught.value.alternatives)


def test_max_table_is_respected():
    graph = lnz.FactorGraph.grid(5, 5, 3)
    scores = (torch.zeros(3), torch.zeros(3, 3))
    needed = lnz.MRF(graph, scores).diagnostics["largest_table"]
    assert lnz.MRF(graph, scores, Exact(max_table=needed)).log_partition.item() == pytest.approx(25 * math.log(3))
    with pytest.raises(lnz.IntractableError):
        lnz.MRF(graph, scores, Exact(max_table=3**5 - 1)).log_partition  # noqa: B018
    with pytest.raises(ValueError, match="max_table: expected a positive integer, got 0"):
        Exact(max_table=0)


def test_messages_are_limited_and_refusals_state_the_best_order():
    graph = lnz.FactorGraph(lnz.FactorGraph.grid(6, 6, 2).cardinalities, lnz.FactorGraph.grid(6, 6, 2).scopes)
    scores = (torch.zeros(2), torch.zeros(2, 2))
    found = lnz.MRF(graph, scores).diagnostics
    once, every = found["message_entries_at_once"], found["message_entries"]
    assert once < every < found["total_entries"]
    tight = lnz.MRF(
        graph, (torch.zeros(2, requires_grad=True), scores[1]), Exact(max_messages=once, search_seconds=0.1)
    )
    with torch.no_grad():
        assert tight.log_partition.item() == pytest.approx(36 * math.log(2))
    for call in (lambda: tight.log_partition, lambda: tight.marginals, tight.argmax, lambda: tight.sample((1,))):
        with pytest.raises(lnz.IntractableError, match=rf"need .* of messages .* max_messages={once} .* ln Z without"):
            call()
    with pytest.raises(
        lnz.IntractableError, match=r"best one found \(breadth first\) has treewidth 6 and needs a table"
    ):
        _ = lnz.MRF(graph, scores, Exact(max_messages=8, search_seconds=0.1)).log_partition
    with pytest.raises(ValueError, match="max_messages: expected a positive integer, got 0"):
        Exact(max_messages=0)


@pytest.mark.parametrize(("height", "width"), [(2, 40), (40, 2)])
def test_grids_are_refused_by_their_shorter_side(height, width):
    """Its treewidth is 2: a limit that the longer side would pass must not refuse it, one below 2³ must."""
    scores = (torch.zeros(2), torch.zeros(2, 2))
    p = lnz.MRF(lnz.FactorGraph.grid(height, width, 2), scores, Exact(max_table=8))
    assert p.log_partition.item() == pytest.approx(80 * math.log(2))
    with pytest.raises(
        lnz.IntractableError, match="side of the grid.* has treewidth 2 and needs a table of 32.0 bytes"
    ):
        _ = lnz.MRF(lnz.FactorGraph.grid(height, width, 2), scores, Exact(max_table=7)).log_partition


def test_long_grids_in_float32():
    """Sums of thousands of messages keep the digits of a single one: entropy, KL, log-probabilities, marginals."""
    graph = lnz.FactorGraph.grid(3, 1500, 3)
    generator = torch.Generator().manual_seed(0)
    nodes = 3 * torch.randn(graph.num_nodes, 3, generator=generator) + 1000
    edges = torch.randn(graph.num_factors[1], 3, 3, generator=generator) - 1000
    p, q = lnz.MRF(graph, (nodes, edges)), lnz.MRF(graph, (nodes + nodes.sin(), edges))
    exact, other = (lnz.MRF(graph, tuple(x.double() for x in r.scores)) for r in (p, q))
    y = exact.argmax()
    assert exact.score(p.argmax()).item() == pytest.approx(exact.score(y).item(), abs=1e-3)
    torch.testing.assert_close(p.node_marginals.double(), exact.node_marginals, rtol=1e-4, atol=1e-5)
    for actual, wanted in (
        (p.entropy(), exact.entropy()),
        (p.log_prob(y), exact.log_prob(y)),
        (torch.distributions.kl_divergence(p, q), torch.distributions.kl_divergence(exact, other)),
    ):
        assert actual.item() == pytest.approx(wanted.item(), rel=2e-6)


def test_ln_z_serves_any_number_of_backward_calls():
    scores = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, dtype=torch.float64, requires_grad=True)
    p = lnz.MRF(lnz.FactorGraph.grid(2, 2, 2), (scores, lnz.Weighted(weight, torch.eye(2, dtype=torch.float64))))
    for _ in range(2):
        p.log_partition.backward()
        p.entropy().backward()
    twice = scores.grad.clone()
    scores.grad = None
    lnz.MRF(p.graph, p.scores).log_partition.backward()
    lnz.MRF(p.graph, p.scores).entropy().backward()
    torch.testing.assert_close(twice, 2 * scores.grad)


def test_no_tangent_is_dropped():
    graph, edges = lnz.FactorGraph.grid(2, 2, 2), torch.randn(2, 2)
    scores, along = torch.randn(2, 4, 2).unbind()

    def log_partition(method):
        return lambda scores: lnz.MRF(graph, (scores, edges), method).log_partition

    slope = torch.func.jvp(log_partition(Enumeration()), (scores,), (along,))[1]
    torch.testing.assert_close(slope, (torch.func.grad(log_partition(Exact()))(scores) * along).sum())
    torch.testing.assert_close(torch.func.jvp(log_partition(Exact()), (scores,), (along,))[1], slope)
    with torch.autograd.forward_ad.dual_level():
        dual = log_partition(Exact())(torch.autograd.forward_ad.make_dual(scores, along))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, slope)
    hessian = torch.func.hessian(log_partition(Exact()))(scores)
    torch.testing.assert_close(hessian, torch.func.hessian(log_partition(Enumeration()))(scores))


def test_long_chain():
    """10,000 nodes: no recursion limit, linear time; the closed form is a chain of independent steps."""
    n = 10_000
    edges = torch.stack((torch.arange(n - 1), torch.arange(1, n)), -1)
    table = torch.tensor([[0.3, -0.1], [-0.1, 0.3]], dtype=torch.float64)  # rows sum alike
    p = lnz.MRF(lnz.FactorGraph.pairwise(n, 2, edges), (torch.zeros(2, dtype=torch.float64), table))
    expected = math.log(2) + (n - 1) * math.log(math.exp(0.3) + math.exp(-0.1))
    assert p.log_partition.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(p.node_marginals, torch.full((n, 2), 0.5, dtype=torch.float64), **CLOSE)
    assert p.diagnostics["treewidth"] == 1


def test_evidence_lowers_the_treewidth():
    graph = lnz.FactorGraph.grid(6, 6, 2)
    p = lnz.MRF(graph, (torch.zeros(2), torch.zeros(2, 2)))
    y = torch.full((36,), -100)
    y[::6] = 0
    y[3::6] = 1
    assert p.diagnostics["treewidth"] == 6
    assert p.condition(y).diagnostics["treewidth"] == 2


def test_no_nodes_and_constants():
    graph = lnz.FactorGraph([], [torch.zeros(2, 0, dtype=torch.int64)])
    p = lnz.MRF(graph, [torch.tensor([1.5, 2.0], dtype=torch.float64)])
    assert p.log_partition.item() == 3.5
    assert p.marginals[0].tolist() == [1.0, 1.0]


def test_empty_groups_and_isolated_nodes():
    graph = lnz.FactorGraph([2, 2], [torch.zeros(0, 2, dtype=torch.int64)])
    p = lnz.MRF(graph, [torch.zeros(0, 2, 2, dtype=torch.float64)])
    assert p.log_partition.item() == pytest.approx(2 * math.log(2))
    assert p.marginals[0].shape == (0, 2, 2)
    assert p.node_marginals.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (1, "1.0 bytes"),
        (1023, "1023.0 bytes"),
        (1024, "1.0 KiB (1024 bytes)"),
        (3 * 1024**3, "3.0 GiB (3221225472 bytes)"),
        (1024**5, "about 10^15 bytes"),
    ],
)
def test_sizes_are_told_in_units(size, words):
    assert words in _readable(size)


def test_transforms_leave_nothing_behind():
    """What was made under ``torch.func`` for one call is not met by the next, transformed or not."""
    graph = lnz.FactorGraph.grid(2, 2, 3)
    edges, scores = torch.randn(3, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)

    def log_partition(scores, method=None):
        return lnz.MRF(graph, (scores, edges), method).log_partition

    first, second = (torch.func.hessian(log_partition)(scores) for _ in range(2))
    third = torch.autograd.functional.hessian(log_partition, scores)
    right = torch.func.hessian(lambda scores: log_partition(scores, Enumeration()))(scores)
    for actual in (first, second, third):
        torch.testing.assert_close(actual, right)
