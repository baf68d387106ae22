"""LinearChain: the shared suite for every form of edge scores and lengths, closed forms, and what is its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def chain_instance(node: torch.Tensor, edge: torch.Tensor, lengths: torch.Tensor | None) -> Instance:
    return Instance(
        (node, edge),
        lambda node, edge: lnz.LinearChain(node, edge, lengths),
        lambda node, edge: oracles.linear_chain(node, edge, lengths),
    )


def empty_chains(edge_shape: Callable[[int, int], tuple[int, ...]], with_lengths: bool) -> dict[str, Instance]:
    """A batch of none, and sequences of no step."""
    found = {}
    for axis, B, T in (("batch", 0, 3), ("steps", 2, 0)):
        lengths = torch.zeros(B, dtype=torch.int64) if with_lengths else None
        found[axis] = chain_instance(random_scores((B, T, 2), 0), random_scores(edge_shape(B, T), 1), lengths)
    return found


def beyond(lengths: torch.Tensor, edge_shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """The padding of three steps, and of the edges between them where each has its own."""
    after = torch.arange(3) >= lengths[:, None]
    edges = after[:, 1:, None, None] if len(edge_shape) > 2 else torch.zeros(1, 1, dtype=torch.bool)
    return after[..., None].expand(-1, -1, 2), edges.expand(edge_shape)


@st.composite
def chains(draw: st.DrawFn, shared: bool, with_lengths: bool) -> Instance:
    batch, T, L, seed = draw(batch_shapes), draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(seeds)
    impossible = draw(impossibilities)
    steps = draw(st.sampled_from([max(0, T - 1), 1]))
    edge_batch = draw(st.sampled_from([(), batch]))
    edge_shape = (L, L) if shared else (*edge_batch, steps, L, L)
    lengths = None
    if with_lengths:
        lengths_shape = draw(st.sampled_from([(), batch]))
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(T + 1, lengths_shape, generator=generator)
    return chain_instance(
        random_scores((*batch, T, L), seed, impossible), random_scores(edge_shape, seed + 1, impossible / 2), lengths
    )


class TestSharedEdges(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return chains(shared=True, with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return chain_instance(random_scores((2, 3, 2), 0), random_scores((2, 2), 1), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_chains(lambda B, T: (2, 2), with_lengths=False)


class TestSharedEdgesAndLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return chains(shared=True, with_lengths=True)

    @staticmethod
    def example() -> Instance:
        return chain_instance(random_scores((3, 3, 2), 0), random_scores((2, 2), 1), torch.tensor([3, 1, 2]))

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_chains(lambda B, T: (2, 2), with_lengths=True)

    @staticmethod
    def padding() -> tuple[torch.Tensor, ...]:
        return beyond(torch.tensor([3, 1, 2]), (2, 2))


class TestEdgesPerPosition(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return chains(shared=False, with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return chain_instance(random_scores((2, 3, 2), 0), random_scores((2, 2, 2, 2), 1), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_chains(lambda B, T: (B, max(0, T - 1), 2, 2), with_lengths=False)


class TestEdgesPerPositionAndLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return chains(shared=False, with_lengths=True)

    @staticmethod
    def example() -> Instance:
        return chain_instance(random_scores((3, 3, 2), 0), random_scores((3, 2, 2, 2), 1), torch.tensor([3, 1, 2]))

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_chains(lambda B, T: (B, max(0, T - 1), 2, 2), with_lengths=True)

    @staticmethod
    def padding() -> tuple[torch.Tensor, ...]:
        return beyond(torch.tensor([3, 1, 2]), (3, 2, 2, 2))


# Closed forms ------------------------------------------------------------------------------------------------------


def test_a_uniform_chain_counts_its_labellings() -> None:
    p = lnz.LinearChain(torch.zeros(1000, 7, dtype=torch.float64), torch.zeros(7, 7, dtype=torch.float64))
    equal(p.log_partition, torch.tensor(1000 * math.log(7), dtype=torch.float64))
    equal(p.entropy(), p.log_partition)
    equal(p.node_marginals, torch.full((1000, 7), 1 / 7, dtype=torch.float64))


def test_paths_without_two_ones_in_a_row_are_fibonacci_numbers() -> None:
    edge = torch.tensor([[0.0, 0.0], [0.0, -torch.inf]], dtype=torch.float64)
    numbers = [2, 3, 5, 8, 13, 21, 34, 55, 89, 144]
    for T, number in enumerate(numbers, start=1):
        p = lnz.LinearChain(torch.zeros(T, 2, dtype=torch.float64), edge)
        equal(p.log_count, torch.tensor(math.log(number), dtype=torch.float64))
        if T <= 5:
            assert (p.topk(20)[1] == 0).sum() == min(20, number)


def test_a_markov_chain_has_log_partition_zero_and_its_own_marginals() -> None:
    initial, transition = random_scores((4,), 0).log_softmax(-1), random_scores((4, 4), 1).log_softmax(-1)
    node = torch.zeros(6, 4, dtype=torch.float64)
    node[0] = initial
    p = lnz.LinearChain(node, transition)
    equal(p.log_partition, torch.zeros((), dtype=torch.float64))
    wanted = initial.exp()
    for t in range(6):
        equal(p.node_marginals[t], wanted)
        wanted = wanted @ transition.exp()


def test_without_edges_it_is_a_product_of_softmaxes() -> None:
    node = random_scores((3, 50, 4), 0)
    p = lnz.LinearChain(node, torch.zeros(4, 4, dtype=torch.float64))
    equal(p.log_partition, node.logsumexp(-1).sum(-1))
    equal(p.node_marginals, node.softmax(-1))
    assert torch.equal(p.argmax(), node.argmax(-1))


# Padding and batches ----------------------------------------------------------------------------------------------


@given(st.data())
def test_padding_changes_nothing(data: st.DataObject) -> None:
    instance = data.draw(chains(shared=data.draw(st.booleans()), with_lengths=True))
    node, edge = instance.leaves
    p = instance.p
    junk = random_scores((*node.shape[:-2], 3, node.shape[-1]), 5, 0.5)
    wide_node = torch.cat((node, junk), -2)
    if edge.dim() > 2 and edge.shape[-3] not in (0, 1):
        edge = torch.cat((edge, random_scores((*edge.shape[:-3], 3, *edge.shape[-2:]), 6, 0.5)), -3)
    elif edge.dim() > 2 and edge.shape[-3] == 0:
        edge = random_scores((*edge.shape[:-3], node.shape[-2] + 2, *edge.shape[-2:]), 6, 0.5)
    wide = lnz.LinearChain(wide_node, edge, p.lengths)
    T = node.shape[-2]
    equal(wide.log_partition, p.log_partition)
    if instance.oracle.feasible:
        equal(wide.node_marginals[..., :T, :], p.node_marginals)
        assert (wide.node_marginals[..., T:, :] == 0).all()
        best = wide.argmax()
        assert torch.equal(best[..., :T], p.argmax())
        assert (best[..., T:] == -100).all()
        equal(wide.entropy(), p.entropy())
        best[..., T:] = 12345  # padding of a labelling is ignored
        equal(wide.log_prob(best), p.log_prob(p.argmax()))
        equal(wide.condition(best).log_partition, p.score(p.argmax()))


def test_batch_order_changes_nothing() -> None:
    node, edge = random_scores((5, 4, 3), 0), random_scores((5, 3, 3, 3), 1)
    lengths, order = torch.tensor([4, 0, 2, 1, 3]), torch.tensor([3, 0, 4, 2, 1])
    p, q = lnz.LinearChain(node, edge, lengths), lnz.LinearChain(node[order], edge[order], lengths[order])
    equal(q.log_partition, p.log_partition[order])
    for a, b in zip(q.marginals, p.marginals, strict=True):
        equal(a, b[order])
    assert torch.equal(q.argmax(), p.argmax()[order])


def test_batch_shapes_of_scores_and_lengths_broadcast() -> None:
    node, edge, lengths = random_scores((2, 1, 3, 2), 0), random_scores((4, 2, 2, 2), 1), torch.tensor([[3], [2]])
    p = lnz.LinearChain(node, edge, lengths)
    assert p.batch_shape == (2, 4)
    q = lnz.LinearChain(node.expand(2, 4, 3, 2), edge.expand(2, 4, 2, 2, 2), lengths.expand(2, 4))
    equal(p.log_partition, q.log_partition)
    equal(p.marginals[1], q.marginals[1])


@given(st.data())
def test_equals_its_mrf(data: st.DataObject) -> None:
    instance = data.draw(chains(shared=data.draw(st.booleans()), with_lengths=data.draw(st.booleans())))
    p = instance.p
    if p.event_shape == (0,):
        with pytest.raises(ValueError, match="to_mrf: expected a chain of at least one step, got T = 0"):
            p.to_mrf()
        return
    q = p.to_mrf()
    equal(q.log_partition, p.log_partition)
    equal(q.log_count, p.log_count)
    if instance.oracle.feasible:
        best = p.argmax()
        equal(q.log_prob(best), p.log_prob(best))  # the −100 of padding is "unobserved" there: one label is possible
        equal(q.entropy(), p.entropy())


@given(st.data())
def test_boundary_scores_are_scores_of_the_first_and_the_last_label(data: st.DataObject) -> None:
    instance = data.draw(chains(shared=True, with_lengths=data.draw(st.booleans())))
    p, (node, _) = instance.p, instance.leaves
    L, seed = p.num_labels, data.draw(seeds)
    start, end = random_scores((*p.batch_shape, L), seed, 0.1), random_scores((L,), seed + 1, 0.1)
    y, scores = instance.oracle.labellings()
    first, last = torch.zeros_like(scores), torch.zeros_like(scores)
    for index in itertools.product(*map(range, scores.shape)):
        labels = [label for label in y[index].tolist() if label != -100]
        if labels:
            first[index], last[index] = start[(*index[1:], labels[0])], end[labels[-1]]
    for kwargs, added in (
        ({}, 0.0),
        ({"start": start}, first),
        ({"end": end}, last),
        ({"start": start, "end": end}, first + last),
    ):
        q = p.with_boundary_scores(**kwargs)
        equal(q.log_partition, (scores + added).logsumexp(0))
        assert q.scores[0].shape == (*p.batch_shape, *node.shape[-2:])


def test_boundary_scores_broadcast_and_pass_gradients() -> None:
    node, edge, lengths = random_scores((2, 1, 3, 2), 0), random_scores((2, 2), 1), torch.tensor([[3], [1]])
    leaves = [scores.requires_grad_() for scores in (node, edge, random_scores((4, 2), 2), random_scores((2,), 3))]

    def value(node: torch.Tensor, edge: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        return lnz.LinearChain(node, edge, lengths).with_boundary_scores(start, end).log_partition

    assert value(*leaves).shape == (2, 4)
    assert torch.autograd.gradcheck(value, leaves)
    several = [torch.stack((leaf, leaf * 2)) for leaf in leaves]
    one_by_one = [value(*(leaf[i] for leaf in several)) for i in range(2)]
    equal(torch.func.vmap(value)(*several), torch.stack(one_by_one))
    p = lnz.LinearChain(node, edge, lengths)
    with pytest.raises(ValueError, match=r"start: expected shape \[\*batch, 2\], got \[3\]"):
        p.with_boundary_scores(torch.zeros(3).double())
    with pytest.raises(ValueError, match=r"end: expected a batch shape that broadcasts with \[2, 1\], got \[3, 3\]"):
        p.with_boundary_scores(end=torch.zeros(3, 3, 2).double())
    equal(p.with_boundary_scores(end=torch.ones(2)).log_partition, p.log_partition + 1)  # promoted
    with pytest.raises(ValueError, match="start: 2 of 2 scores are NaN"):
        p.with_boundary_scores(torch.full((2,), torch.nan).double())


# Laziness and size ------------------------------------------------------------------------------------------------


def test_edge_marginals_are_made_only_when_asked_for() -> None:
    T, L = 1000, 50  # the edge marginals of the whole batch would take 4 GB
    p = lnz.LinearChain(torch.zeros(200, T, L), torch.zeros(L, L), torch.full((200,), 2))
    assert p.marginals[0].shape == (200, T, L)
    assert len(p.marginals) == 2
    assert p.max_marginals()[0].shape == (200, T, L)


def test_a_long_chain_keeps_its_accuracy_in_float32() -> None:
    node, edge = random_scores((1, 20_000, 4), 0), random_scores((4, 4), 1)
    single, double = lnz.LinearChain(node.float(), edge.float()), lnz.LinearChain(node, edge)
    equal(single.log_partition.double(), double.log_partition, rtol=1e-6, atol=0)
    equal(single.node_marginals.double(), double.node_marginals, rtol=0, atol=1e-4)


# Bad input --------------------------------------------------------------------------------------------------------

NODE, EDGE = torch.zeros(2, 5, 3), torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((NODE[0, 0], EDGE), ValueError, r"node_scores: expected shape \[\*batch, T, L\] with L > 0, got \[3\]"),
        ((NODE, EDGE[:2]), ValueError, r"edge_scores: expected shape \[3, 3\] or \[\*batch, 4, 3, 3\], got \[2, 3\]"),
        ((NODE, torch.zeros(5, 3, 3)), ValueError, r"edge_scores: expected shape .* got \[5, 3, 3\]"),
        ((NODE, EDGE.to("meta")), TypeError, "edge_scores: expected device cpu as node_scores, got meta"),
        ((NODE, EDGE, torch.tensor([6, 2])), ValueError, r"lengths: expected values in \[0, 5\].* got 6 at \[0\]"),
        ((NODE, EDGE, torch.tensor([1, -2])), ValueError, r"lengths: expected values in \[0, 5\].* got -2 at \[1\]"),
        ((NODE, EDGE, torch.tensor([1.0, 2.0])), TypeError, "lengths: expected integers, got dtype torch.float32"),
        ((NODE, EDGE, [1.5, 2]), TypeError, "lengths: expected integers, got dtype torch.float32"),
        ((NODE, EDGE, ["a", "b"]), TypeError, "lengths: expected integers, got .'a', 'b'."),
        (
            (NODE, EDGE, torch.tensor([1, 2, 3])),
            ValueError,
            r"expected batch shapes .* broadcast .* \[2\], \[\], \[3\]",
        ),
        ((NODE.tolist(), EDGE), TypeError, "node_scores: expected a torch.Tensor, got list"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lnz.LinearChain(*arguments)


def test_infeasible_entries_are_named() -> None:
    node = torch.zeros(4, 3, 2)
    node[1, 1] = node[3, 2] = -torch.inf
    p = lnz.LinearChain(node, torch.zeros(2, 2), torch.tensor([3, 3, 3, 2]))  # that of the last entry is padding
    assert torch.isneginf(p.log_partition).tolist() == [False, True, False, False]
    for call in (lambda: p.marginals, lambda: p.node_marginals, p.argmax, p.sample):
        with pytest.raises(lnz.InfeasibleError, match=r"no labelling has a finite score in batch entries \[1\]"):
            call()


def test_a_full_labelling_is_asked_for_by_score() -> None:
    p = lnz.LinearChain(NODE, EDGE, torch.tensor([5, 2]))
    y = torch.zeros(2, 5, dtype=torch.int64)
    y[1, 2:] = -100  # padding
    equal(p.score(y), torch.zeros(2))
    y[0, 3] = -100
    with pytest.raises(ValueError, match="y: expected a full labelling, got -100"):
        p.score(y)


def test_one_pass_serves_any_number_of_backward_calls() -> None:
    """Each answer is a node of its own in the graph of gradients: none takes what another needs."""
    node = random_scores((2, 4, 3), 0).requires_grad_()
    edge = random_scores((3, 3), 1).requires_grad_()
    y = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]])
    answers = {
        "log_prob": lambda p: p.log_prob(y).sum(),
        "log_partition": lambda p: p.log_partition.sum(),
        "entropy": lambda p: p.entropy().sum(),
        "marginals": lambda p: p.marginals[0].square().sum(),
    }
    alone = {name: torch.autograd.grad(of(lnz.LinearChain(node, edge)), (node, edge)) for name, of in answers.items()}
    p = lnz.LinearChain(node, edge)
    for name in ("log_prob", "log_prob", "log_partition", "marginals", "entropy", "log_partition", "log_prob"):
        for got, wanted in zip(torch.autograd.grad(answers[name](p), (node, edge)), alone[name], strict=True):
            equal(got, wanted)


def test_only_segments_have_labels_that_go_on() -> None:
    """−1, which continues a segment, is no label of a chain."""
    y = torch.tensor([[0, 1], [0, -1], [0, 2]])
    assert lnz.LinearChain(torch.zeros(2, 2), torch.zeros(2, 2)).support.check(y).tolist() == [True, False, False]
    assert lnz.SemiMarkov(torch.zeros(2, 2, 2), torch.zeros(2, 2)).support.check(y).tolist() == [True, True, False]
