"""The chain op: kernels against reference, its registration, extreme ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz import ops
from lnz.ops import chain
from lnz.ops.chain import Chains, reference
from lnz.ops.chain.cpu.forward_backward import forward_backward
from lnz.ops.chain.cpu.numerator import log_prob_gradient
from lnz.ops.chain.cpu.viterbi import viterbi
from lnz.ops.chain.log_prob import LOG_PROB
from lnz.ops.chain.numerator import edge_indicators, pair_sums
from lnz.ops.chain.op import CHAIN
from lnz.ops.chain.records import Labelled, Pass
from lnz.ops.jit import buffers, work
from tests import memory
from tests.suite import equal, impossibilities, random_scores, seeds


@st.composite
def inputs(draw: st.DrawFn) -> Chains:
    B, T, L, seed = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(seeds)
    impossible = draw(impossibilities) / 2
    edge_shape = (draw(st.sampled_from([1, B])), draw(st.sampled_from([1, max(1, T - 1)])), L, L)
    lengths = torch.randint(T + 1, (B,), generator=torch.Generator().manual_seed(seed))
    return Chains(random_scores((B, T, L), seed, impossible), random_scores(edge_shape, seed + 1, impossible), lengths)


def every_answer(node: torch.Tensor, edge: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """ln Z, both marginals, and the gradient by the edge scores."""
    chains = Chains(node, edge.clone().requires_grad_(), lengths)
    done = chain.forward_backward(chains)
    weights = torch.arange(1.0, len(node) + 1, dtype=node.dtype)
    log_z = chain.log_partition(chains, done)
    gradient = torch.autograd.grad((log_z.nan_to_num(neginf=0) * weights).sum(), chains.edge)[0]
    marginals = chain.node_marginals(chains, done), chain.edge_marginals(chains, done)
    return [done.log_z.detach(), *(m.detach() for m in marginals), gradient]


@given(inputs())
def test_kernels_equal_reference(arguments: Chains) -> None:
    node, edge, lengths = arguments
    actual, best = every_answer(*arguments), chain.topk(arguments, 1)[1]
    with ops.backend("reference"):
        for a, w in zip(actual, every_answer(*arguments), strict=True):
            assert a.is_contiguous()
            equal(a, w)
        equal(best, chain.topk(arguments, 1)[1])
    steps = max(0, node.shape[1] - 1)
    wanted = reference.forward_backward(node, edge.expand(-1, steps, -1, -1), lengths)
    for a, w in zip(actual, wanted, strict=False):
        equal(a, w)


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_of_lanes_and_of_sequences(
    size: int, dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels that fill registers or not, sequences that fill tiles or not, on one thread and on two."""
    monkeypatch.setattr(work, "SHARED", 1)
    for B, T in ((1, 3000 // size), (11, 60)):
        node, edge = random_scores((B, T, size), 0).to(dtype), random_scores((1, 1, size, size), 1).to(dtype)
        lengths = torch.randint(T // 2, T + 1, (B,), generator=torch.Generator().manual_seed(2))
        chains, y, weight = Chains(node, edge, lengths), torch.randint(size, (B, T)), torch.linspace(-1, 2, B).to(dtype)
        with threads_of_torch(threads):  # the references would only have threads wait for each other
            done = forward_backward(chains)
            labels, scores = viterbi(chains)
            given = Labelled(*chains, y), Pass(*done[:4], torch.zeros(B)), weight
            at_node, at_edge = log_prob_gradient(*given, (True, True))
            alone = log_prob_gradient(*given, (True, False))[0], log_prob_gradient(*given, (False, True))[1]
        assert done.in_range.all()
        wanted = reference.forward_backward(node.double(), edge.double(), lengths)
        precision = {"rtol": 1e-6, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-9}
        equal(done.log_z, wanted[0], **precision)
        equal(done.nodes.double(), wanted[1], **precision)
        with ops.backend("reference"):
            equal(scores, chain.topk(chains.wide(), 1)[1][0], **precision)
        assert ((labels == -100) == (torch.arange(T) >= lengths[:, None])).all()
        assert torch.equal(at_node, alone[0])
        assert torch.equal(at_edge, alone[1])
        total = edge_indicators(torch.Size((1, 1, size, size)), y, lengths, weight.double())
        total -= pair_sums(edge.double(), *(x.double() for x in (*done[2:4], weight)))
        equal(at_edge.double(), total, rtol=precision["rtol"], atol=100 * precision["atol"])
        inside = torch.arange(T) < lengths[:, None]
        hot = torch.nn.functional.one_hot(y, size) * inside[..., None]
        equal(at_node.double(), weight[:, None, None].double() * (hot - done.nodes.double()), **precision)


@pytest.mark.parametrize("scale", [1.0, 20.0, 60.0, 300.0, 1e4])
@pytest.mark.parametrize("banded", [False, True])
def test_any_range_of_scores_is_right(scale: float, banded: bool) -> None:
    node, edge = (scale * random_scores((3, 20, 4), 0)).float(), (scale * random_scores((1, 1, 4, 4), 1)).float()
    if banded:
        edge = edge.masked_fill((torch.arange(4) - torch.arange(4)[:, None]).abs() > 1, -torch.inf)
    lengths = torch.tensor([20, 7, 1])
    single = every_answer(node, edge, lengths)
    with ops.backend("reference"):
        double = every_answer(node.double(), edge.double(), lengths)
    for a, w in zip(single, double, strict=True):
        equal(a.double(), w, rtol=1e-5, atol=2e-5)
    for a, w in zip(every_answer(node.double(), edge.double(), lengths), double, strict=True):
        equal(a, w, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_component_that_is_lost_to_underflow_is_noticed(dtype: torch.dtype) -> None:
    """Label 1 falls behind by exp(−10) a step, and is the only one possible in the end."""
    T = 200
    node = torch.zeros(2, T, 2, dtype=dtype)
    node[0, :, 1] = -10.0
    node[0, -1, 0] = -torch.inf
    edge = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]], dtype=dtype)[None, None]
    lengths = torch.tensor([T, T])
    chains = Chains(node, edge, lengths)
    assert forward_backward(chains).in_range.tolist() == [False, True]  # the other one stays fast
    log_z, nodes, edges, _ = every_answer(node, edge, lengths)
    equal(log_z, torch.tensor([-10.0 * T, torch.tensor(2.0).log()], dtype=log_z.dtype), rtol=1e-6)
    equal(nodes[0, :, 1], torch.ones(T, dtype=dtype))
    equal(edges[0, :, 1, 1], torch.ones(T - 1, dtype=dtype))
    drawn = chain.sample(chains, 5, torch.Generator().manual_seed(0))
    assert (drawn[:, 0] == 1).all()


def test_what_is_not_a_number_is_passed_on() -> None:
    node, edge = torch.zeros(3, 4, 2), torch.zeros(1, 1, 2, 2)
    node[1, 2, 0] = torch.nan
    log_z = chain.forward_backward(Chains(node, edge, torch.tensor([4, 4, 4]))).log_z
    assert torch.isnan(log_z).tolist() == [False, True, False]


@pytest.mark.parametrize("T", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_long_chains_do_not_drift(T: int) -> None:
    """Float32 against float64, forwards against backwards; Viterbi against the score of its own labelling."""
    generator = torch.Generator().manual_seed(0)
    L = 4 if T <= 100_000 else 32
    node, edge = torch.randn(1, T, L, generator=generator), torch.randn(1, 1, L, L, generator=generator)
    lengths = torch.tensor([T])
    chains = Chains(node, edge, lengths)
    single, double = forward_backward(chains), forward_backward(chains.wide())
    assert single.in_range.all()
    equal(single.log_z, double.log_z, rtol=1e-7)
    assert (single.nodes - double.nodes).abs().max() < 2e-5
    reverse = forward_backward(Chains(node.double().flip(1), edge.double().mT, lengths))
    equal(reverse.log_z, double.log_z, rtol=1e-12)
    assert (reverse.nodes.flip(1) - double.nodes).abs().max() < 1e-10
    labels, score = viterbi(chains)
    _, wanted = viterbi(chains.wide())
    y = labels[0]
    own = node[0].double().gather(1, y[:, None]).sum() + edge[0, 0].double()[y[:-1], y[1:]].sum()
    equal(score, own.reshape(1), rtol=1e-12)
    equal(score, wanted, rtol=1e-7)


@memory.linux
@pytest.mark.slow
def test_a_million_steps_fit_in_memory() -> None:
    """1,000,000 steps and 32 labels in less than 4 GB, right to float64: ln Z, marginals, all that is best."""
    program = """
import sys, time, torch, lnz
from tests.memory import peak
generator = torch.Generator().manual_seed(0)
node, edge = torch.randn(1_000_000, 32, generator=generator), torch.randn(32, 32, generator=generator)
p = lnz.LinearChain(node, edge)
z, marginals, best = p.log_partition, p.node_marginals, p.argmax()
score = p.score(best)
def timed(name, answer):
    answer()  # compiled or loaded
    start = time.perf_counter()
    result = answer()
    print(f"{name}: {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return result
timed("argmax", p.argmax)
most = timed("max-marginals", lambda: p.max_marginals()[0])
five, scores = timed("the five best", lambda: p.topk(5))
print(peak())
del p
def q():  # a new one each time: none keeps what the one before has computed
    return lnz.LinearChain(node.double(), edge.double())
wanted = q().log_partition
assert abs(z - wanted) < 1e-7 * wanted, (z, wanted)
assert (marginals - q().node_marginals).abs().max() < 2e-5
del marginals
highest = q().score(q().argmax())
assert abs(q().score(best) - highest) < 1e-7 * highest
assert (most - q().max_marginals()[0]).abs().max() < 1e-7 * highest
assert (most.amax(1) == scores[0]).all()
del most
wide = q().topk(5)[1]
assert len(set(map(tuple, five.tolist()))) == 5
assert abs(wide[0] - highest) < 1e-13 * highest and (wide[:-1] >= wide[1:]).all() and wide[4] > highest - 1
assert (torch.stack([q().score(y) for y in five]) - wide).abs().max() < 1e-13 * highest
"""
    assert int(memory.run(program)) < 4e9


def test_log_prob_is_the_same_after_the_pass_and_together_with_it() -> None:
    node, edge = random_scores((3, 5, 4), 0).requires_grad_(), random_scores((4, 4), 1).requires_grad_()
    lengths, y = torch.tensor([5, 2, 0]), torch.randint(4, (3, 5), generator=torch.Generator().manual_seed(2))
    y = torch.where(torch.arange(5) < lengths[:, None], y, 10**9)  # padding holds anything
    results = []
    for first in (True, False):
        p = lnz.LinearChain(node, edge, lengths)
        if not first:
            p.log_partition  # noqa: B018  (the pass is known from here on)
        loss = (p.log_prob(y) * torch.tensor([1.0, -2.0, 3.0])).sum() + (p.log_partition * 0.5).sum()
        results.append((loss, *torch.autograd.grad(loss, (node, edge))))
    for a, b in zip(*results, strict=True):
        equal(a, b)
    p = lnz.LinearChain(node, edge, lengths)
    p.log_prob(y)
    grads = torch.autograd.grad(p.log_partition.sum(), (node, edge))  # of ln Z alone, by the function of ln P(y)
    for a, b in zip(
        grads, torch.autograd.grad(lnz.LinearChain(node, edge, lengths).log_partition.sum(), (node, edge)), strict=True
    ):
        equal(a, b)


def test_losses_of_long_chains_keep_their_digits_in_float32() -> None:
    """ln P(y) is the difference of two large numbers, taken before they are rounded."""
    node, edge = torch.randn(1, 50_000, 3) + 1000, torch.randn(3, 3)
    y = lnz.LinearChain(node, edge).argmax()
    single = lnz.LinearChain(node, edge).log_prob(y)
    equal(single.double(), lnz.LinearChain(node.double(), edge.double()).log_prob(y), rtol=2e-6)


def test_memory_is_used_again_only_when_nothing_refers_to_it() -> None:
    def address() -> tuple[torch.Tensor, int]:
        x = buffers.empty(300, 200, dtype=torch.float32)
        return x, x.data_ptr()

    first, at = address()
    assert first.is_contiguous()
    assert at % 64 == 0
    part = first.view(-1)[5:]
    del first
    second, other = address()
    assert other != at
    del part
    third, again = address()
    assert again == at
    array = third.numpy()
    del third, second
    fourth, last = address()
    assert last == other
    assert address()[1] != at  # NumPy still refers to it
    assert array.shape == tuple(fourth.shape)


@pytest.mark.parametrize("edge_shape", [(1, 1, 2, 2), (3, 3, 2, 2), (1, 3, 2, 2), (3, 1, 2, 2)])
def test_opcheck(edge_shape: tuple[int, ...]) -> None:
    chains = Chains(random_scores((3, 4, 2), 0), random_scores(edge_shape, 1), torch.tensor([4, 2, 0]))
    labelled = Labelled(*chains, torch.randint(2, (3, 4)))
    for op, arguments in ((CHAIN, chains), (LOG_PROB, labelled)):
        torch.library.opcheck(op.solve.op, tuple(arguments), raise_exception=True)
        done = op.solve(arguments)  # type: ignore[arg-type]
        for wanted in ((True, True), (True, False), (False, True)):
            for weight in (None, torch.linspace(-1, 2, 3, dtype=torch.float64)):
                whole = weight, *arguments, *done, list(wanted)
                torch.library.opcheck(op.gradient_op, whole, raise_exception=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_more(dtype: torch.dtype) -> None:
    node, edge, lengths = random_scores((2, 500, 3), 0).to(dtype), random_scores((1, 1, 3, 3), 1).to(dtype), None
    lengths = torch.tensor([500, 400])
    log_z, nodes, *_ = chain.forward_backward(Chains(node, edge, lengths))
    wanted, marginals, _ = reference.forward_backward(node.double(), edge.double(), lengths)
    assert nodes.dtype == dtype
    assert log_z.dtype == torch.float64  # rounded once, by who asks
    equal(log_z.double(), wanted, rtol=torch.finfo(dtype).eps, atol=0)
    equal(nodes.double(), marginals, rtol=0, atol=torch.finfo(dtype).eps)


def test_a_batch_without_entries_has_gradients() -> None:
    node, edge = torch.zeros(0, 5, 3, requires_grad=True), torch.zeros(1, 1, 3, 3, requires_grad=True)
    chains = Chains(node, edge, torch.zeros(0, dtype=torch.int64))
    done = chain.forward_backward(chains)
    grads = torch.autograd.grad(chain.log_partition(chains, done).sum(), (node, edge))
    assert grads[0].shape == node.shape
    assert torch.equal(grads[1], torch.zeros_like(edge))
