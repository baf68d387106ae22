"""SecondOrderChain: the shared suite, closed forms, its kinship with LinearChain and MRF, and its checks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lnz
from tests import oracles
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(node: Tensor, edge: Tensor, triple: Tensor, lengths: Tensor | None) -> Instance:
    return Instance(
        (node, edge, triple),
        lambda node, edge, triple: lnz.SecondOrderChain(node, edge, triple, lengths),
        lambda node, edge, triple: oracles.second_order_chain(node, edge, triple, lengths),
    )


def empty_chains(shared: bool, with_lengths: bool) -> dict[str, Instance]:
    """A batch of none, and sequences of no step."""
    found = {}
    for axis, B, T in (("batch", 0, 4), ("steps", 2, 0)):
        lengths = torch.zeros(B, dtype=torch.int64) if with_lengths else None
        edge = random_scores((2, 2) if shared else (B, max(0, T - 1), 2, 2), 1)
        triple = random_scores((2, 2, 2) if shared else (B, max(0, T - 2), 2, 2, 2), 2)
        found[axis] = instance(random_scores((B, T, 2), 0), edge, triple, lengths)
    return found


@st.composite
def chains(draw: st.DrawFn, shared: bool, with_lengths: bool) -> Instance:
    batch, T, L, seed = draw(batch_shapes), draw(st.integers(0, 4)), draw(st.integers(1, 3)), draw(seeds)
    impossible = draw(impossibilities) / 2
    own = draw(st.sampled_from([(), batch]))
    edges = draw(st.sampled_from([max(0, T - 1), 1]))
    triples = draw(st.sampled_from([max(0, T - 2), 1]))
    lengths = None
    if with_lengths:
        shape = draw(st.sampled_from([(), batch]))
        lengths = torch.randint(T + 1, shape, generator=torch.Generator().manual_seed(seed))
    return instance(
        random_scores((*batch, T, L), seed, impossible),
        random_scores((L, L) if shared else (*own, edges, L, L), seed + 1, impossible / 2),
        random_scores((L, L, L) if shared else (*own, triples, L, L, L), seed + 2, impossible / 2),
        lengths,
    )


class TestSharedTables(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return chains(shared=True, with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((2, 3, 2), 0), random_scores((2, 2), 1), random_scores((2, 2, 2), 2), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_chains(shared=True, with_lengths=False)


class TestTablesPerPositionAndLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return chains(shared=False, with_lengths=True)

    @staticmethod
    def example() -> Instance:
        lengths = torch.tensor([4, 1, 3])
        return instance(
            random_scores((3, 4, 2), 0), random_scores((3, 3, 2, 2), 1), random_scores((3, 2, 2, 2, 2), 2), lengths
        )

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_chains(shared=False, with_lengths=True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        beyond = torch.arange(4) >= torch.tensor([4, 1, 3])[:, None]
        shapes = (3, 4, 2), (3, 3, 2, 2), (3, 2, 2, 2, 2)
        return tuple(beyond[:, i:].reshape(3, 4 - i, *[1] * (i + 1)).expand(shape) for i, shape in enumerate(shapes))


# Closed forms and kin ----------------------------------------------------------------------------------------------


def test_words_without_three_ones_in_a_row_are_tribonacci_numbers() -> None:
    triple = torch.zeros(2, 2, 2, dtype=torch.float64)
    triple[1, 1, 1] = -torch.inf
    numbers = [1, 2, 4, 7, 13, 24, 44, 81, 149, 274]
    p = lnz.SecondOrderChain(torch.zeros(10, 9, 2).double(), torch.zeros(2, 2).double(), triple, torch.arange(10))
    equal(p.log_count, torch.tensor(numbers, dtype=torch.float64).log())
    assert (p.topk(20)[0][:, 4] == 1).all(-1).sum() == 0


def test_without_triples_it_is_a_linear_chain() -> None:
    node, edge, lengths = (
        random_scores((5, 6, 3), 0),
        random_scores((5, 5, 3, 3), 1, 0.1),
        torch.tensor([6, 3, 2, 1, 0]),
    )
    p, chain = (
        lnz.SecondOrderChain(node, edge, torch.zeros(3, 3, 3).double(), lengths),
        lnz.LinearChain(node, edge, lengths),
    )
    equal(p.log_partition, chain.log_partition)
    equal(p.marginals[0], chain.marginals[0])
    equal(p.marginals[1], chain.marginals[1])
    equal(p.entropy(), chain.entropy())
    equal(p.topk(5)[1], chain.topk(5)[1])
    for ours, wanted in zip(p.max_marginals(), chain.max_marginals(), strict=False):
        equal(ours, wanted)


def test_a_second_order_markov_chain_has_log_partition_zero_and_its_own_marginals() -> None:
    pair = random_scores((3, 3), 0).flatten().log_softmax(-1).reshape(3, 3)
    following = random_scores((3, 3, 3), 1).log_softmax(-1)
    edge = torch.cat((pair[None], torch.zeros(4, 3, 3, dtype=torch.float64)))
    p = lnz.SecondOrderChain(torch.zeros(6, 3, dtype=torch.float64), edge, following)
    equal(p.log_partition, torch.zeros((), dtype=torch.float64))
    wanted = pair.exp()
    for t in range(5):
        equal(p.marginals[1][t], wanted)
        if t < 4:
            joint = wanted.unsqueeze(-1) * following.exp()
            equal(p.marginals[2][t], joint)
            wanted = joint.sum(0)


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


@given(chains(shared=False, with_lengths=True))
def test_max_marginals(instance: Instance) -> None:
    p, oracle = instance.p, instance.oracle
    wanted = [torch.full((len(oracle.entries), *shape), -torch.inf).double() for shape in oracle.part_shapes]
    for b, entry in enumerate(oracle.entries):
        for y in entry:
            for table, parts in zip(wanted, y.parts, strict=True):
                for part in parts:
                    table[(b, *part)] = max(table[(b, *part)].item(), y.score)
    for actual, table in zip(p.max_marginals(), wanted, strict=True):
        equal(actual, table.reshape(actual.shape))


@given(chains(shared=False, with_lengths=True))
def test_label_scores_give_the_conditionals_of_each_label(instance: Instance) -> None:
    p, oracle = instance.p, instance.oracle
    if not oracle.feasible:
        return
    y, scores = oracle.labellings()
    best = y.gather(0, scores.argmax(0, keepdim=True)[..., None].expand(1, *y.shape[1:]))[0]
    conditionals = p.log_conditionals(best)
    for t in range(p.event_shape[0]):
        hidden = best.clone()
        hidden[..., t] = -100
        wanted = p.score(best) - oracle.condition(hidden).log_partition
        equal(conditionals[..., t], wanted)


# Padding, batches, size --------------------------------------------------------------------------------------------


def test_each_entry_of_a_batch_is_what_it_is_alone() -> None:
    node, edge, triple = random_scores((5, 5, 3), 0), random_scores((3, 3), 1), random_scores((3, 3, 3), 2)
    lengths = torch.tensor([5, 2, 0, 1, 3])
    p = lnz.SecondOrderChain(node, edge, triple, lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = lnz.SecondOrderChain(node[b, :n], edge, triple)
        equal(p.log_partition[b], alone.log_partition)
        equal(p.marginals[0][b, :n], alone.marginals[0])
        equal(p.marginals[2][b, : max(0, n - 2)], alone.marginals[2])
        assert torch.equal(p.argmax()[b, :n], alone.argmax())
        assert (p.argmax()[b, n:] == -100).all()


def test_batch_shapes_broadcast() -> None:
    node, edge, triple = random_scores((2, 1, 4, 2), 0), random_scores((2, 2), 1), random_scores((3, 2, 2, 2, 2), 2)
    lengths = torch.tensor([[4], [3]])
    p = lnz.SecondOrderChain(node, edge, triple, lengths)
    assert p.batch_shape == (2, 3)
    q = lnz.SecondOrderChain(node.expand(2, 3, 4, 2), edge, triple.expand(2, 3, 2, 2, 2, 2), lengths.expand(2, 3))
    equal(p.log_partition, q.log_partition)
    equal(p.marginals[2], q.marginals[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_chains_of_many_labels_stay_small_and_right(dtype: torch.dtype) -> None:
    """The marginals of triples would take 400 MB, those of pairs of states ten times that; neither is made."""
    T, L = 1000, 10
    node, edge, triple = random_scores((100, T, 1), 0), random_scores((1, 1), 1), random_scores((1, 1, 1), 2)
    p = lnz.SecondOrderChain(*(s.expand(*s.shape[: s.dim() - k], *(L,) * k).to(dtype)
                               for s, k in ((node, 1), (edge, 2), (triple, 3))))  # fmt: skip
    assert len(p.marginals) == 3
    wanted = T * math.log(L) + node[..., 0].sum(-1) + (T - 1) * edge.sum() + (T - 2) * triple.sum()
    equal(p.log_partition.double(), wanted, rtol=1e-5)
    equal(p.marginals[0], torch.full((100, T, L), 1 / L, dtype=dtype), rtol=1e-4)


# Checks ------------------------------------------------------------------------------------------------------------

NODE, EDGE, TRIPLE = torch.zeros(2, 5, 3), torch.zeros(3, 3), torch.zeros(3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (NODE[0, 0], EDGE, TRIPLE),
            ValueError,
            r"node_scores: expected shape \[\*batch, T, L\] with L > 0, got \[3\]",
        ),
        ((NODE, EDGE[:2], TRIPLE), ValueError, r"edge_scores: expected shape \[3, 3\] or .* got \[2, 3\]"),
        (
            (NODE, EDGE, EDGE),
            ValueError,
            r"triple_scores: expected shape \[3, 3, 3\] or \[\*batch, 3, 3, 3, 3\], got \[3, 3\]",
        ),
        ((NODE, EDGE, torch.zeros(4, 3, 3, 3)), ValueError, r"triple_scores: expected shape .* got \[4, 3, 3, 3\]"),
        ((NODE, EDGE, TRIPLE.to("meta")), TypeError, "triple_scores: expected device cpu as node_scores, got meta"),
        ((NODE, EDGE, TRIPLE.tolist()), TypeError, "triple_scores: expected a torch.Tensor, got list"),
        ((NODE, EDGE, TRIPLE, torch.tensor([6, 2])), ValueError, r"lengths: expected values in \[0, 5\].* got 6"),
        (
            (NODE, EDGE, torch.zeros(4, 1, 3, 3, 3), torch.tensor([5, 2])),
            ValueError,
            r"batch shapes of node_scores, edge_scores, lengths and triple_scores .* got \[2\], \[\], \[2\], \[4\]",
        ),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lnz.SecondOrderChain(*arguments)


def test_a_full_labelling_is_asked_for_by_score() -> None:
    p = lnz.SecondOrderChain(NODE, EDGE, TRIPLE, torch.tensor([5, 2]))
    y = torch.zeros(2, 5, dtype=torch.int64)
    y[1, 2:] = -100  # padding
    equal(p.score(y), torch.zeros(2))
    y[0, 3] = -100
    with pytest.raises(ValueError, match="y: expected a full labelling, got -100"):
        p.score(y)


def test_two_latent_labels_among_three_have_no_conditionals() -> None:
    p = lnz.SecondOrderChain(NODE, EDGE, TRIPLE)
    y = torch.zeros(2, 5, dtype=torch.int64)
    y[0, [1, 3]] = -100
    with pytest.raises(ValueError, match="latent"):
        p.label_scores(y)
