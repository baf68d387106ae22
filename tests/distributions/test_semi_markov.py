"""SemiMarkov: the shared suite, closed forms, its kinship with chains, and its checks."""

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


def instance(segment: Tensor, edge: Tensor, lengths: Tensor | None) -> Instance:
    return Instance(
        (segment, edge),
        lambda segment, edge: lnz.SemiMarkov(segment, edge, lengths),
        lambda segment, edge: oracles.semi_markov(segment, edge, lengths),
        (torch.arange(1.0, segment.shape[-2] + 1)[:, None], 0.0),
    )


def empty_segmentations(shared: bool, with_lengths: bool) -> dict[str, Instance]:
    """A batch of none, and sequences of no step."""
    found = {}
    for axis, B, T in (("batch", 0, 3), ("steps", 2, 0)):
        lengths = torch.zeros(B, dtype=torch.int64) if with_lengths else None
        edge = random_scores((2, 2) if shared else (B, max(0, T - 1), 2, 2), 1)
        found[axis] = instance(random_scores((B, T, 2, 2), 0), edge, lengths)
    return found


@st.composite
def segmentations(draw: st.DrawFn, shared: bool, with_lengths: bool) -> Instance:
    batch, T, seed = draw(batch_shapes), draw(st.integers(0, 4)), draw(seeds)
    W, L = draw(st.integers(1, 5)), draw(st.integers(1, 2))
    impossible = draw(impossibilities) / 2
    steps = draw(st.sampled_from([max(0, T - 1), 1]))
    own = draw(st.sampled_from([(), batch]))
    lengths = None
    if with_lengths:
        shape = draw(st.sampled_from([(), batch]))
        lengths = torch.randint(T + 1, shape, generator=torch.Generator().manual_seed(seed))
    return instance(
        random_scores((*batch, T, W, L), seed, impossible),
        random_scores((L, L) if shared else (*own, steps, L, L), seed + 1, impossible / 2),
        lengths,
    )


class TestSharedEdges(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return segmentations(shared=True, with_lengths=False)

    @staticmethod
    def example() -> Instance:
        return instance(random_scores((2, 3, 2, 2), 0), random_scores((2, 2), 1), None)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_segmentations(shared=True, with_lengths=False)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        beyond = torch.arange(3)[:, None] + torch.arange(2) >= 3
        return beyond[..., None].expand(2, 3, 2, 2), torch.zeros(2, 2, dtype=torch.bool)


class TestEdgesPerPositionAndLengths(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return segmentations(shared=False, with_lengths=True)

    @staticmethod
    def example() -> Instance:
        lengths = torch.tensor([3, 1, 2])
        return instance(random_scores((3, 3, 2, 2), 0), random_scores((3, 2, 2, 2), 1), lengths)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_segmentations(shared=False, with_lengths=True)

    @staticmethod
    def padding() -> tuple[Tensor, ...]:
        lengths = torch.tensor([3, 1, 2])
        beyond = torch.arange(3)[:, None] + torch.arange(2) >= lengths[:, None, None]
        edges = torch.arange(1, 3) >= lengths[:, None]
        return beyond[..., None].expand(3, 3, 2, 2), edges[..., None, None].expand(3, 2, 2, 2)


# Closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("W", "L"), [(1, 3), (2, 1), (3, 1), (3, 4), (20, 2)])
def test_it_counts_compositions_with_a_label_per_part(W: int, L: int) -> None:
    """c(n) = L Σ_{w ≤ W} c(n − w): Fibonacci's numbers for W = 2, L = 1; (1 + L)^n / (1 + 1 / L) without a limit."""
    counts = [1]
    for n in range(1, 13):
        counts.append(L * sum(counts[max(0, n - W) : n]))
    p = lnz.SemiMarkov(torch.zeros(12, 12, W, L).double(), torch.zeros(L, L).double(), torch.arange(1, 13))
    equal(p.log_count, torch.tensor([math.log(c) for c in counts[1:]], dtype=torch.float64))
    if W >= 12:
        assert counts[12] == L * (1 + L) ** 11


def test_segments_of_one_step_are_a_linear_chain() -> None:
    node, edge, lengths = random_scores((3, 6, 4), 0), random_scores((3, 5, 4, 4), 1), torch.tensor([6, 3, 0])
    p, chain = lnz.SemiMarkov(node.unsqueeze(-2), edge, lengths), lnz.LinearChain(node, edge, lengths)
    equal(p.log_partition, chain.log_partition)
    equal(p.marginals[0].squeeze(-2), chain.marginals[0])
    equal(p.marginals[1], chain.marginals[1])
    equal(p.node_marginals, chain.node_marginals)
    assert torch.equal(p.argmax(), chain.argmax())
    equal(p.topk(5)[1], chain.topk(5)[1])


def test_scores_that_are_sums_over_steps_are_a_linear_chain_of_runs() -> None:
    """A segment is a run of equal labels, no two runs of a label side by side: the labellings of the chain."""
    T, L = 6, 3
    node, change = random_scores((T, L), 0), random_scores((L, L), 1)
    segment = torch.zeros(T, T, L, dtype=torch.float64)
    for w in range(T):
        for t in range(T - w):
            segment[t, w] = node[t : t + w + 1].sum(0) + w * change.diagonal()
    edge = change.clone().fill_diagonal_(-torch.inf)
    p, chain = lnz.SemiMarkov(segment, edge), lnz.LinearChain(node, change)
    equal(p.log_partition, chain.log_partition)
    equal(p.node_marginals, chain.node_marginals)
    equal(p.entropy(), chain.entropy())
    equal(p.topk(9)[1], chain.topk(9)[1])


@given(segmentations(shared=False, with_lengths=True))
def test_node_marginals_are_the_probabilities_of_what_covers_a_step(instance: Instance) -> None:
    oracle, p = instance.oracle, instance.p
    if not oracle.feasible:
        return
    T, _, L = p.segment_scores.shape[-3:]
    wanted = torch.zeros(len(oracle.entries), T, L, dtype=torch.float64)
    for b, entry in enumerate(oracle.entries):
        for y, probability in zip(entry, oracle.probabilities(b), strict=True):
            for t, w, label in y.parts[0]:
                wanted[b, t : t + w + 1, label] += probability
    equal(p.node_marginals, wanted.reshape(*p.batch_shape, T, L))


# Padding, batches, size --------------------------------------------------------------------------------------------


@given(st.data())
def test_padding_changes_nothing(data: st.DataObject) -> None:
    narrow = data.draw(segmentations(shared=True, with_lengths=True))
    segment, edge = narrow.leaves
    p, T = narrow.p, segment.shape[-3]
    q = lnz.SemiMarkov(torch.cat((segment, random_scores((*segment.shape[:-3], 3, *segment.shape[-2:]), 5, 0.5)), -3),
                       edge, p.lengths)  # fmt: skip
    equal(q.log_partition, p.log_partition)
    if narrow.oracle.feasible:
        equal(q.marginals[0][..., :T, :, :], p.marginals[0])
        assert (q.marginals[0][..., T:, :, :] == 0).all()
        best = q.argmax()
        assert torch.equal(best[..., :T], p.argmax())
        assert (best[..., T:] == -100).all()
        best[..., T:] = 12345  # padding of a labelling is ignored
        equal(q.log_prob(best), p.log_prob(p.argmax()))


def test_each_entry_of_a_batch_is_what_it_is_alone() -> None:
    segment, edge, lengths = random_scores((4, 5, 3, 2), 0), random_scores((2, 2), 1), torch.tensor([5, 2, 0, 4])
    p = lnz.SemiMarkov(segment, edge, lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = lnz.SemiMarkov(segment[b, :n], edge)
        equal(p.log_partition[b], alone.log_partition)
        equal(p.marginals[0][b, :n], alone.marginals[0])
        equal(p.entropy()[b], alone.entropy())
        assert torch.equal(p.argmax()[b, :n], alone.argmax())
        equal(p.topk(4)[1][:, b], alone.topk(4)[1])


def test_batch_shapes_of_scores_and_lengths_broadcast() -> None:
    segment, edge, lengths = random_scores((2, 1, 3, 2, 2), 0), random_scores((4, 2, 2, 2), 1), torch.tensor([[3], [2]])
    p = lnz.SemiMarkov(segment, edge, lengths)
    assert p.batch_shape == (2, 4)
    q = lnz.SemiMarkov(segment.expand(2, 4, 3, 2, 2), edge.expand(2, 4, 2, 2, 2), lengths.expand(2, 4))
    equal(p.log_partition, q.log_partition)
    equal(p.marginals[1], q.marginals[1])


def test_a_segment_that_is_too_wide_is_impossible() -> None:
    p = lnz.SemiMarkov(random_scores((4, 2, 2), 0), random_scores((2, 2), 1))
    y = torch.tensor([1, -1, -1, 0])
    assert torch.isneginf(p.score(y))
    assert torch.isneginf(p.log_prob(y))
    with pytest.raises(lnz.InfeasibleError, match="probability 0"):
        lnz.objectives.nll(p, y)
    assert torch.isneginf(p.condition(torch.tensor([-100, -1, -1, -100])).log_partition)


def test_observed_starts_and_continuations() -> None:
    p = lnz.SemiMarkov(random_scores((5, 3, 2), 0), random_scores((2, 2), 1))
    drawn = p.condition(torch.tensor([-100, -1, -100, 1, -100])).sample((50,), torch.Generator().manual_seed(0))
    assert (drawn[:, 1] == -1).all()
    assert (drawn[:, 3] == 1).all()
    assert len({tuple(y) for y in drawn.tolist()}) > 1


def test_wide_segments_of_a_long_sequence_stay_small() -> None:
    """Widths times pairs of labels would take 2 GB."""
    T, W, L = 300, 40, 150
    p = lnz.SemiMarkov(torch.zeros(T, W, L), torch.zeros(L, L))
    expected = [1]
    for n in range(1, T + 1):
        expected.append(L * sum(expected[max(0, n - W) : n]))
    equal(p.log_partition.double(), torch.tensor(math.log(expected[T]), dtype=torch.float64), rtol=1e-6)
    assert p.argmax().shape == (T,)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_any_range_of_scores_is_right_in_float32(scale: float) -> None:
    segment, edge, lengths = random_scores((2, 20, 4, 3), 0), random_scores((3, 3), 1), torch.tensor([20, 7])
    single = lnz.SemiMarkov((scale * segment).float(), (scale * edge).float(), lengths)
    double = lnz.SemiMarkov(single.segment_scores.double(), single.edge_scores.double(), lengths)
    equal(single.log_partition.double(), double.log_partition, rtol=1e-6)
    for a, w in zip(single.marginals, double.marginals, strict=True):
        equal(a.double(), w, rtol=1e-5, atol=1e-5)


# Checks ------------------------------------------------------------------------------------------------------------

SEGMENT, EDGE = torch.zeros(2, 5, 3, 4), torch.zeros(4, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((SEGMENT[0, 0], EDGE), ValueError, r"segment_scores: expected shape \[\*batch, T, W, L\] .* got \[3, 4\]"),
        ((SEGMENT[:, :, :0], EDGE), ValueError, r"segment_scores: .* W > 0 .* got \[2, 5, 0, 4\]"),
        ((SEGMENT, EDGE[:2]), ValueError, r"edge_scores: expected shape \[4, 4\] or \[\*batch, 4, 4, 4\], got \[2, 4"),
        ((SEGMENT, EDGE.to("meta")), TypeError, "edge_scores: expected device cpu as segment_scores, got meta"),
        ((SEGMENT, EDGE, torch.tensor([6, 2])), ValueError, r"lengths: expected values in \[0, 5\].* got 6 at \[0\]"),
        ((SEGMENT, EDGE, torch.tensor([1, 2, 3])), ValueError, r"batch shapes of segment_scores, edge_scores and leng"),
        ((SEGMENT.tolist(), EDGE), TypeError, "segment_scores: expected a torch.Tensor, got list"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lnz.SemiMarkov(*arguments)


def test_a_full_labelling_is_asked_for_by_score() -> None:
    p = lnz.SemiMarkov(SEGMENT, EDGE, torch.tensor([5, 2]))
    y = torch.tensor([[0, -1, 1, -1, -1], [3, -1, -100, -100, -100]])
    equal(p.score(y), torch.zeros(2))
    y[0, 1] = -100
    with pytest.raises(ValueError, match="y: expected a full labelling, got -100"):
        p.score(y)


def test_it_has_no_scores_of_single_labels() -> None:
    with pytest.raises(TypeError, match="SemiMarkov has no scores of single labels"):
        lnz.objectives.pseudolikelihood(lnz.SemiMarkov(SEGMENT, EDGE), torch.zeros(2, 5, dtype=torch.int64))
