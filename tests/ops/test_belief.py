"""The belief propagation ops: torch's transforms, the slots and steps of a graph, and bounded memory."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lnz
from lnz.inference import BeliefPropagation, Enumeration
from lnz.ops.belief import reference
from lnz.ops.belief.wiring import wiring
from lnz.scores import checked_model


def equal(actual: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def cycle() -> tuple[lnz.FactorGraph, list[Tensor]]:
    """A ring of four nodes, with a table of its own per node and one for all edges."""
    graph = lnz.FactorGraph.pairwise(4, 3, torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]]))
    generator = torch.Generator().manual_seed(0)
    return graph, [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 4, 3), (3, 3))]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_in_one_graph(backend: str) -> None:
    graph, scores = cycle()
    gold = torch.tensor([[0, 1, 2, -100], [1, 1, -100, 0]])

    def loss(node: Tensor, edge: Tensor) -> Tensor:
        return lnz.objectives.nll(lnz.MRF(graph, (node, edge), BeliefPropagation()), gold)

    results = []
    torch.compiler.reset()
    for function in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        leaves = [tensor.clone().requires_grad_() for tensor in scores]
        value = function(*leaves)
        results.append((value, *torch.autograd.grad(value, leaves)))
    for actual, expected in zip(*results, strict=True):
        equal(actual, expected)


def test_vmap_and_func_grad() -> None:
    graph, scores = cycle()
    several = [torch.stack((tensor, 2 * tensor, -tensor)) for tensor in scores]

    def value(node: Tensor, edge: Tensor) -> Tensor:
        return lnz.MRF(graph, (node, lnz.Weighted(edge.new_ones(4), edge)), BeliefPropagation(500)).log_partition.sum()

    alone = [value(*(tensor[i] for tensor in several)) for i in range(3)]
    equal(torch.func.vmap(value)(*several), torch.stack(alone))
    grads = torch.func.vmap(torch.func.grad(value, argnums=(0, 1)))(*several)
    for i in range(3):
        leaves = [tensor[i].clone().requires_grad_() for tensor in several]
        for actual, expected in zip(grads, torch.autograd.grad(value(*leaves), leaves), strict=True):
            equal(actual[i], expected)


def test_backward_outlives_the_graph() -> None:
    _, scores = cycle()
    leaves = [tensor.requires_grad_() for tensor in scores]

    def value() -> Tensor:
        return lnz.MRF(cycle()[0], leaves, BeliefPropagation()).log_partition.sum()

    z = value()
    gc.collect()  # the tape alone holds the graph now
    grads = torch.autograd.grad(z, leaves, create_graph=True)
    gc.collect()
    second = torch.autograd.grad(sum(g.square().sum() for g in grads), leaves)
    assert all(torch.isfinite(g).all() and g.any() for g in (*grads, *second))


def test_opcheck() -> None:
    graph, scores = cycle()
    with torch.no_grad():
        state = lnz.MRF(graph, scores, BeliefPropagation()).solution._state
    spec = (graph.handle, [False, False], [2])
    ops = torch.ops.lnz
    torch.library.opcheck(ops.belief_messages, (scores, None, *spec, 50, 1e-6, 0.0, "flooding", False))
    torch.library.opcheck(ops.belief_partition, (scores, None, state[0], *spec))
    torch.library.opcheck(ops.belief_gradient, (scores, None, state[0], torch.ones(2).double(), *spec))


def test_graphs_are_copied_and_pickled_with_handles_of_their_own() -> None:
    graph, scores = cycle()
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert other.handle != graph.handle
        value = lnz.MRF(other, scores, BeliefPropagation()).log_partition
        equal(value, lnz.MRF(graph, scores, BeliefPropagation()).log_partition)


def test_two_pass_sends_every_message_once_and_in_order() -> None:
    graph, _ = lnz.FactorGraph.grouped([2, 3, 2, 2, 3], [[0], [0, 1, 2], [2, 3], [3], [1, 4]])
    plan = wiring(graph, torch.device("cpu"))
    assert graph.labels[0] == (2,)
    sent = set(range(graph.num_factors[0]))  # factors of one node have spoken before
    for step in plan.two_pass:
        now = [
            plan.slice(targets.group, position).start + int(factor)
            for targets in step.targets
            for position in targets.positions
            for factor in targets.factors
        ]
        for slot in now:
            for other in plan._siblings(slot):
                assert set(plan._node_slots[plan._nodes[other]]) - {other} <= sent
        assert not sent & set(now)
        sent |= set(now)
    assert sent == set(range(plan.num_slots))


@pytest.mark.parametrize("arity", [1, 2, 3, 4, 5])
def test_all_but_one_is_each_sum_written_out(arity: int) -> None:
    labels = (2, 3, 2, 4, 2)[:arity]
    table = torch.randn(5, *labels, dtype=torch.float64)
    incoming = [torch.randn(2, 5, card, dtype=torch.float64) for card in labels]
    new = reference.all_but_one(table, incoming, tuple(range(arity)), torch.add, reference.log_sum)
    for position in range(arity):
        others = [message if j != position else torch.zeros_like(message) for j, message in enumerate(incoming)]
        whole = reference.joint(table, others)
        dims = [d - arity for d in range(arity) if d != position]
        expected = whole.logsumexp(dims) if dims else whole
        equal(
            new[position].expand_as(expected) if arity > 1 else new[position].expand(2, 5, -1),
            expected.expand(2, 5, -1),
        )


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that owns its memory, over all operations within."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("form", ["shared", "weighted"])
@pytest.mark.parametrize("schedule", ["flooding", "sequential"])
def test_compact_scores_are_never_expanded(monkeypatch: pytest.MonkeyPatch, form: str, schedule: str) -> None:
    """Forward and backward, no tensor is as large as one table per edge, nor as all messages times L."""
    nodes, labels, chunk = 60, 32, 2**11
    monkeypatch.setattr(reference, "CHUNK", chunk)
    ring = torch.arange(nodes)
    edges = torch.cat([torch.stack((ring, (ring + step) % nodes), -1) for step in (1, 7)])
    graph = lnz.FactorGraph.pairwise(nodes, labels, edges)
    node = torch.randn(nodes, labels, requires_grad=True)
    table = torch.randn(labels, labels, requires_grad=True)
    edge = lnz.Weighted(torch.rand(len(edges)).requires_grad_(), table) if form == "weighted" else table
    p = lnz.MRF(graph, (node, edge), BeliefPropagation(3, 0.0, schedule=schedule))
    with Largest() as largest:
        p.log_partition.backward()
        _ = p.node_marginals.shape
    messages = (nodes + 2 * len(edges)) * labels
    assert messages <= largest.numel <= max(messages, chunk) < len(edges) * labels**2
    assert table.grad is not None
    assert table.grad.sum().item() == pytest.approx(
        len(edges) if form == "shared" else edge.weight.sum().item(), rel=1e-4
    )


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    graph = lnz.FactorGraph.grouped([2, 3, 2, 3], [[0, 1], [2, 3], [0, 3], [2, 1], [0, 2]])[0]
    scores = [
        torch.randn(2, count, *labels, generator=generator, dtype=torch.float64)
        for count, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]

    def answers() -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in scores]
        p = lnz.MRF(graph, leaves, BeliefPropagation(300))
        return [p.log_partition, *torch.autograd.grad(p.log_partition.sum(), leaves), *p.marginals]

    whole = answers()
    monkeypatch.setattr(reference, "CHUNK", 1)
    for one, other in zip(answers(), whole, strict=True):
        equal(one, other)


def test_nothing_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers start as NaN, and no NaN comes out."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda x: empty_like(x).fill_(torch.nan))
    graph = lnz.FactorGraph.grouped([2, 3, 2, 1], [[0], [0, 1], [1, 2, 3], [2]])[0]
    scores = [
        torch.randn(count, *labels, dtype=torch.float64)
        for count, labels in zip(graph.num_factors, graph.labels, strict=True)
    ]
    p, q = lnz.MRF(graph, scores, BeliefPropagation()), lnz.MRF(graph, scores, Enumeration())
    equal(p.log_partition, q.log_partition)
    equal(p.node_marginals, q.node_marginals)


def test_high_degree_node() -> None:
    """A star of 3,000 leaves: all but one without dividing, in linear time and memory."""
    leaves = 3000
    edges = torch.stack((torch.zeros(leaves, dtype=torch.int64), torch.arange(1, leaves + 1)), -1)
    graph = lnz.FactorGraph.pairwise(leaves + 1, 2, edges)
    table = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64)
    p = lnz.MRF(graph, (torch.zeros(2, dtype=torch.float64), table), BeliefPropagation())
    equal(p.log_partition, (leaves * table.logsumexp(1)).logsumexp(0), atol=1e-8)


def test_no_factors_at_all() -> None:
    graph = lnz.FactorGraph([2, 3], [])
    p = lnz.MRF(graph, (), BeliefPropagation())
    equal(p.log_partition.double(), torch.tensor(6.0).double().log(), atol=1e-6)
    assert checked_model(graph, ()).batch_shape == torch.Size()
    assert p.node_marginals.tolist() == [[0.5, 0.5, 0.0], [pytest.approx(1 / 3)] * 3]
