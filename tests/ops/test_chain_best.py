"""Max-marginals and the k best labellings of chains: kernels against enumeration and reference, long chains, ranges."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnz import ops
from lnz.ops import chain
from lnz.ops.chain import Chains
from lnz.ops.chain.cpu import max_forward
from lnz.ops.chain.cpu import max_marginals as max_marginals_file
from lnz.ops.chain.cpu import topk as topk_file
from lnz.ops.chain.cpu.max_marginals import max_marginals
from lnz.ops.chain.cpu.topk import topk
from lnz.ops.chain.cpu.viterbi import viterbi
from tests.suite import equal, impossibilities, random_scores, seeds


@st.composite
def inputs(draw: st.DrawFn) -> Chains:
    """Also with ties: whole numbers as scores."""
    B, T, L, seed = draw(st.integers(1, 10)), draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(seeds)
    impossible, tied = draw(impossibilities) / 2, draw(st.booleans())
    edge_shape = (draw(st.sampled_from([1, B])), draw(st.sampled_from([1, max(1, T - 1)])), L, L)
    lengths = torch.randint(T + 1, (B,), generator=torch.Generator().manual_seed(seed))
    node, edge = random_scores((B, T, L), seed, impossible), random_scores(edge_shape, seed + 1, impossible)
    return Chains(node.round(), edge.round(), lengths) if tied else Chains(node, edge, lengths)


def score(node: torch.Tensor, edge: torch.Tensor, b: int, y: tuple[int, ...]) -> float:
    tables = edge[b if len(edge) > 1 else 0]
    steps = itertools.pairwise(y)
    pairs = [tables[t if len(tables) > 1 else 0, k, l].item() for t, (k, l) in enumerate(steps)]
    return sum(node[b, t, l].item() for t, l in enumerate(y)) + sum(pairs)


def enumerated(node: torch.Tensor, edge: torch.Tensor, lengths: torch.Tensor) -> list[dict[tuple[int, ...], float]]:
    """Every labelling of each chain, and its score."""
    labels = range(node.shape[2])
    return [
        {y: score(node, edge, b, y) for y in itertools.product(labels, repeat=int(n))} for b, n in enumerate(lengths)
    ]


def check_labellings(arguments: Chains, labels: torch.Tensor, scores: torch.Tensor) -> None:
    """Sorted, distinct, with the scores that they have; −100 over padding, and where there is none."""
    node, edge, lengths = arguments
    assert (scores[:-1] >= scores[1:]).all()
    for b, n in enumerate(lengths.tolist()):
        found = [tuple(y[:n].tolist()) for y in labels[:, b] if n == 0 or y[0] != -100]
        possible = int((scores[:, b] > -torch.inf).sum())
        found = found[:possible]
        assert len(set(found)) == len(found) == possible
        assert (labels[possible:, b] == -100).all()
        assert (labels[:, b, n:] == -100).all()
        own = torch.tensor([score(node, edge, b, y) for y in found], dtype=torch.float64)
        equal(scores[:possible, b].double(), own)


@pytest.mark.parametrize("held", [0, 2**22])  # in blocks of √T steps, and all at once
@given(arguments=inputs(), k=st.sampled_from([2, 3, 7, 40]))
def test_the_k_best_are_those_of_enumeration(held: int, arguments: Chains, k: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(max_forward, "HELD", held)
        labels, scores = chain.topk(arguments, k)
    for b, every in enumerate(enumerated(*arguments)):
        wanted = sorted((s for s in every.values() if s > -torch.inf), reverse=True)[:k]
        equal(scores[: len(wanted), b], torch.tensor(wanted, dtype=torch.float64))
        assert torch.isneginf(scores[len(wanted) :, b]).all()
    check_labellings(arguments, labels, scores)
    with ops.backend("reference"):
        equal(scores, chain.topk(arguments, k)[1])


@pytest.mark.parametrize("held", [0, 2**22])
@given(arguments=inputs())
def test_max_marginals_are_those_of_enumeration(held: int, arguments: Chains) -> None:
    node, _, lengths = arguments
    (B, T, L) = node.shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(max_forward, "HELD", held)
        nodes, edges = chain.max_marginals(arguments), chain.edge_max_marginals(arguments)
    wanted, of_edges = torch.full_like(node, -torch.inf), node.new_full((B, T - 1, L, L), -torch.inf)
    for b, every in enumerate(enumerated(*arguments)):
        for y, s in every.items():
            for t, label in enumerate(y):
                wanted[b, t, label] = max(wanted[b, t, label].item(), s)
            for t, pair in enumerate(itertools.pairwise(y)):
                of_edges[b, t, *pair] = max(of_edges[b, t, *pair].item(), s)
    equal(nodes, wanted)
    equal(edges, of_edges)
    with ops.backend("reference"):
        equal(nodes, chain.max_marginals(arguments))
        equal(edges, chain.edge_max_marginals(arguments))
    best_of_all = chain.topk(arguments, 1)[1][0]
    inside = torch.arange(T) < lengths[:, None]
    equal(nodes.amax(-1)[inside], best_of_all[:, None].expand(B, T)[inside])


@pytest.mark.parametrize("size", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_lanes_and_of_sequences(size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that fill registers or not, sequences that fill tiles or not, on one thread and on two."""
    rounding = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-9}
    for B, T, held in ((1, 200, 0), (11, 30, 2**22)):
        monkeypatch.setattr(max_forward, "HELD", held)
        node, edge = random_scores((B, T, size), 0).to(dtype), random_scores((1, 1, size, size), 1).to(dtype)
        lengths = torch.randint(T // 2, T + 1, (B,), generator=torch.Generator().manual_seed(2))
        with ops.backend("reference"):
            wide = Chains(node, edge, lengths).wide()
            wanted = chain.topk(wide, 6)[1], chain.max_marginals(wide), chain.edge_max_marginals(wide)
        for threads in (1, 2):
            monkeypatch.setattr(topk_file, "threads_for", lambda size, threads=threads: threads)
            monkeypatch.setattr(max_marginals_file, "threads_for", lambda size, threads=threads: threads)
            given = Chains(node, edge, lengths)
            labels, scores = chain.topk(given, 6)
            for actual, exact in zip(
                (scores, chain.max_marginals(given), chain.edge_max_marginals(given)), wanted, strict=True
            ):
                assert actual.dtype == dtype
                equal(actual.double(), exact, **rounding)
            assert ((labels[0] == -100) == (torch.arange(T) >= lengths[:, None])).all()


@pytest.mark.parametrize("scale", [1.0, 60.0, 1e4])
@pytest.mark.parametrize("banded", [False, True])
def test_any_range_of_scores_is_right(scale: float, banded: bool) -> None:
    node, edge = (scale * random_scores((3, 20, 4), 0)).float(), (scale * random_scores((1, 1, 4, 4), 1)).float()
    if banded:
        edge = edge.masked_fill((torch.arange(4) - torch.arange(4)[:, None]).abs() > 1, -torch.inf)
    lengths = torch.tensor([20, 7, 1])
    labels, scores = chain.topk(Chains(node, edge, lengths), 9)
    nodes = chain.max_marginals(Chains(node, edge, lengths))
    with ops.backend("reference"):
        equal(scores, chain.topk(Chains(node, edge, lengths).wide(), 9)[1].float(), rtol=2e-7, atol=0)
        equal(nodes, chain.max_marginals(Chains(node, edge, lengths).wide()).float(), rtol=2e-7, atol=0)
    assert len({tuple(y) for y in labels[:, 0].tolist()}) == 9


def test_a_component_far_behind_keeps_its_digits() -> None:
    """Labels 1 and 2 fall behind by 1000 a step, and are the only ones possible in the end; a tenth between them."""
    T = 20_000
    node = torch.tensor([1000.0, 0.0, -0.1]).repeat(1, T, 1)
    node[0, -1, 0] = -torch.inf
    edge = torch.tensor([[0.0, -torch.inf, -torch.inf], [-torch.inf, 0.0, -1.0], [-torch.inf, -1.0, 0.0]])[None, None]
    nodes = chain.max_marginals(Chains(node, edge, torch.tensor([T])))
    wanted = torch.tensor([-torch.inf, 0.0, -2.1])  # in and out of label 2; out of it alone at either end
    equal(nodes[0, 20:-20], wanted.expand(T - 40, 3), rtol=0, atol=1e-6)
    equal(nodes[0, [0, -1], 2], torch.tensor([-1.1, -1.1]), rtol=0, atol=1e-6)
    labels, scores = chain.topk(Chains(node, edge, torch.tensor([T])), 3)
    equal(scores[:, 0], torch.tensor([0.0, -1.1, -1.1]), rtol=0, atol=1e-6)
    assert (labels[0] == 1).all()
    assert sorted([labels[h, 0].sum().item() - T for h in (1, 2)]) == [1, 1]


def test_ties_are_broken_by_a_rule_and_labellings_stay_distinct() -> None:
    node, edge, lengths = torch.zeros(2, 6, 3), torch.zeros(1, 1, 3, 3), torch.tensor([6, 2])
    labels, scores = chain.topk(Chains(node, edge, lengths), 12)
    assert torch.equal(labels, chain.topk(Chains(node.clone(), edge.clone(), lengths), 12)[0])
    check_labellings(Chains(node, edge, lengths), labels, scores)
    assert torch.isneginf(scores).sum(0).tolist() == [0, 3]
    assert torch.equal(labels[0], viterbi(Chains(node, edge, lengths))[0])


def test_a_fork_at_every_step() -> None:
    """Each step back offers something better than before: the k best are all made of the first steps."""
    T, k = 400, 5
    node = torch.zeros(1, T, 2, dtype=torch.float64)
    node[0, :, 1] = -torch.arange(1.0, T + 1)
    edge, lengths = torch.zeros(1, 1, 2, 2, dtype=torch.float64), torch.tensor([T])
    labels, scores = chain.topk(Chains(node, edge, lengths), k)
    equal(scores[:, 0], -torch.tensor([0.0, 1.0, 2.0, 3.0, 3.0]).double())  # of the sets of whole numbers, by their sum
    assert {tuple(y.nonzero()[:, 0].tolist()) for y in labels[:, 0]} == {(), (0,), (1,), (2,), (0, 1)}


def test_long_chains_do_not_drift() -> None:
    """In blocks of steps; float32 against float64, forwards against backwards, labellings against their own scores."""
    T, L, k = 100_000, 8, 5
    generator = torch.Generator().manual_seed(0)
    node, edge = torch.randn(1, T, L, generator=generator), torch.randn(1, 1, L, L, generator=generator)
    lengths = torch.tensor([T])
    assert max_forward.block_of(Chains(node, edge, lengths)) < T
    wide = Chains(node, edge, lengths).wide()
    labels, scores = topk(Chains(node, edge, lengths), k)
    wide_labels, wide_scores = topk(wide, k)
    assert torch.equal(labels, wide_labels)
    assert torch.equal(scores, wide_scores)
    reverse, reverse_scores = topk(Chains(wide[0].flip(1), wide[1].mT, lengths), k)
    assert torch.equal(reverse.flip(2), labels)
    equal(reverse_scores, scores, rtol=1e-14, atol=0)
    for y, s in zip(labels[:, 0], scores[:, 0], strict=True):
        own = wide[0][0].gather(1, y[:, None]).sum() + wide[1][0, 0][y[:-1], y[1:]].sum()
        equal(s, own, rtol=1e-13, atol=0)
    nodes = max_marginals(wide, False)
    top = nodes.amax(2)
    assert (top == top[0, 0]).all()
    equal(top[0, 0], scores[0, 0], rtol=1e-14, atol=0)
    equal(max_marginals(Chains(wide[0].flip(1), wide[1].mT, lengths), False).flip(1), nodes, rtol=1e-14, atol=0)
    single = max_marginals(Chains(node, edge, lengths), False)
    equal(single, nodes.float(), rtol=1e-7, atol=0)
    loss = 1e-6 + (scores[0, 0] - scores[-1, 0])
    assert ((top[..., None] - nodes < loss).sum(2) > 1).any()  # the labels of the second best are seen here as well


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_accumulated_in_more(dtype: torch.dtype) -> None:
    node, edge = random_scores((2, 300, 3), 0).to(dtype), random_scores((1, 1, 3, 3), 1).to(dtype)
    lengths = torch.tensor([300, 200])
    wide = Chains(node, edge, lengths).wide()
    assert torch.equal(chain.max_marginals(Chains(node, edge, lengths)), chain.max_marginals(wide).to(dtype))
    assert torch.equal(chain.topk(Chains(node, edge, lengths), 3)[1], chain.topk(wide, 3)[1].to(dtype))


@pytest.mark.parametrize("places", [1, 3])
@pytest.mark.parametrize("tables", [1, 24])
def test_sequences_of_a_step_or_none_may_come_first(tables: int, places: int) -> None:
    """A whole group of them has no transition, and must not be the one that prepares the table for the others."""
    lengths = torch.tensor([1] * 9 + [0] * 7 + [4] * 8)
    arguments = Chains(random_scores((24, 4, 4), 0), random_scores((tables, places, 4, 4), 1), lengths)
    for k in (1, 3):
        labels, scores = chain.topk(arguments, k)
        check_labellings(arguments, labels, scores)
        for b, every in enumerate(enumerated(*arguments)):
            equal(scores[0, b].double(), torch.tensor(max(every.values()), dtype=torch.float64))
    actual = chain.max_marginals(arguments), chain.forward_backward(arguments)
    with ops.backend("reference"):
        wanted = chain.max_marginals(arguments), chain.forward_backward(arguments)
    equal(actual[0][0], wanted[0][0])
    equal(actual[1].log_z, wanted[1].log_z)
    equal(actual[1].nodes, wanted[1].nodes)
