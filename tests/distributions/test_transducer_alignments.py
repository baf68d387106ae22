"""TransducerAlignments: the shared suite for both topologies against enumeration, closed forms, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import strategies as st

import lnz
from lnz.distributions import TransducerAlignments
from tests.distributions import transducer_oracle
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(
    blank: torch.Tensor, label: torch.Tensor, lengths: torch.Tensor, sizes: torch.Tensor, one: bool
) -> Instance:
    return Instance(
        (blank, label),
        lambda b, l: TransducerAlignments(b, l, lengths, sizes, one_label_per_frame=one),
        lambda b, l: transducer_oracle.alignments(b, l, lengths, sizes, one),
    )


def empty_lattices(one: bool) -> dict[str, Instance]:
    """A batch of none, no frame, no label."""
    found = {}
    for axis, B, T, U in (("batch", 0, 3, 2), ("frames", 2, 0, 2), ("labels", 2, 3, 0)):
        lengths, sizes = torch.full((B,), T), torch.full((B,), 0 if axis == "frames" else U)
        found[axis] = instance(random_scores((B, T, U + 1), 0), random_scores((B, T, U), 1), lengths, sizes, one)
    return found


def beyond(lengths: torch.Tensor, sizes: torch.Tensor, T: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Arcs that leave a node beyond the frames or the labels."""
    late = (torch.arange(T) >= lengths[:, None])[..., None]
    blanks = (torch.arange(3) > sizes[:, None])[:, None]
    labels = (torch.arange(2) >= sizes[:, None])[:, None]
    return late | blanks, late | labels


@st.composite
def lattices(draw: st.DrawFn, one: bool) -> Instance:
    batch, U = draw(batch_shapes), draw(st.integers(0, 3))
    T, seed = draw(st.integers(0, 4)), draw(seeds)
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint((T + 1) // 2, T + 1, batch, generator=generator)
    sizes = torch.randint(U + 1, batch, generator=generator)
    most = lengths if one else torch.where(lengths > 0, U, 0)
    sizes = torch.minimum(sizes, most) if draw(st.integers(0, 5)) else sizes  # else some entries have no alignment
    missing = draw(impossibilities) / 2
    blank, label = random_scores((*batch, T, U + 1), seed, missing), random_scores((*batch, T, U), seed + 1, missing)
    return instance(blank, label, lengths, sizes, one)


class TestSeveralLabelsPerFrame(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return lattices(False)

    @staticmethod
    def example() -> Instance:
        lengths, sizes = torch.tensor([3, 2]), torch.tensor([2, 1])
        return instance(random_scores((2, 3, 3), 0), random_scores((2, 3, 2), 1), lengths, sizes, False)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_lattices(False)

    @staticmethod
    def padding() -> tuple[torch.Tensor, ...]:
        return beyond(torch.tensor([3, 2]), torch.tensor([2, 1]), 3)


class TestOneLabelPerFrame(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return lattices(True)

    @staticmethod
    def example() -> Instance:
        lengths, sizes = torch.tensor([4, 3]), torch.tensor([2, 1])
        return instance(random_scores((2, 4, 3), 0), random_scores((2, 4, 2), 1), lengths, sizes, True)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_lattices(True)

    @staticmethod
    def padding() -> tuple[torch.Tensor, ...]:
        return beyond(torch.tensor([4, 3]), torch.tensor([2, 1]), 4)


def test_path_counts_are_binomial_coefficients() -> None:
    """C(T − 1 + U, U) alignments of U labels in T frames; C(T, U) with one label per frame at most."""
    for T in (0, 1, 2, 5, 40):
        for U in (0, 1, 3, 12):
            arcs = torch.randn(T, U + 1, dtype=torch.float64), torch.randn(T, U, dtype=torch.float64)
            several = math.comb(T - 1 + U, U) if T else int(U == 0)
            for one, count in ((False, several), (True, math.comb(T, U))):
                p = TransducerAlignments(*arcs, one_label_per_frame=one)
                equal(p.log_count.exp(), torch.tensor(float(count), dtype=torch.float64))


def test_labels_are_emitted_once_and_frames_end_once() -> None:
    lengths, sizes = torch.tensor([30, 12, 30]), torch.tensor([7, 7, 0])
    blank, label = random_scores((3, 30, 8), 0), random_scores((3, 30, 7), 1)
    p = TransducerAlignments(blank, label, lengths, sizes)
    blanks, labels = p.marginals
    equal(labels.sum(-2), (torch.arange(7) < sizes[:, None]).double())
    equal(blanks.sum(-1), (torch.arange(30) < lengths[:, None]).double())
    blanks, labels = TransducerAlignments(blank, label, lengths, sizes, one_label_per_frame=True).marginals
    equal(labels.sum(-2), (torch.arange(7) < sizes[:, None]).double())
    equal(blanks.sum(-1) + labels.sum(-1), (torch.arange(30) < lengths[:, None]).double())


@pytest.mark.parametrize("one", [False, True])
def test_best_alignments_equal_those_of_the_reference(one: bool) -> None:
    lengths, sizes = torch.tensor([40, 20, 30, 11, 10, 40]), torch.tensor([10, 10, 3, 7, 10, 0])
    blank, label = random_scores((6, 40, 11), 0, 0.1).float(), random_scores((6, 40, 10), 1, 0.1).float()
    p = TransducerAlignments(blank, label, lengths, sizes, one_label_per_frame=one)
    with lnz.ops.backend("reference"):
        wanted, scores_wanted = p.topk(1)
    actual, best = p.topk(1)
    assert torch.equal(actual, wanted)
    equal(best, scores_wanted, rtol=1e-6, atol=1e-5)


def test_scores_of_labels_in_frames_can_be_added() -> None:
    p = TransducerAlignments(random_scores((4, 3), 0), random_scores((4, 2), 1))
    added = random_scores((2, 4), 2)  # one score per label and frame
    for y in p.sample((20,), generator=torch.Generator().manual_seed(0)):
        equal(p.with_node_scores(added).score(y), p.score(y) + added[torch.arange(2), y].sum())


def test_broadcast_scores_are_kept() -> None:
    blank, label = random_scores((4, 3), 0).requires_grad_(), random_scores((2, 1, 4, 2), 1)
    p = TransducerAlignments(blank, label, torch.tensor([4, 3, 2]))
    assert p.scores[0] is blank
    assert p.batch_shape == (2, 3)
    gradient = torch.autograd.grad(p.log_partition.sum(), blank)[0]
    equal(gradient, p.marginals[0].sum((0, 1)))


def test_alignments_of_other_lengths_or_topology_cannot_be_compared() -> None:
    arcs = torch.zeros(4, 3), torch.zeros(4, 2)
    p = TransducerAlignments(*arcs)
    for q in (
        TransducerAlignments(*arcs, torch.tensor(3)),
        TransducerAlignments(*arcs, None, torch.tensor(1)),
        TransducerAlignments(*arcs, one_label_per_frame=True),
        TransducerAlignments(torch.zeros(5, 3), torch.zeros(5, 2)),
    ):
        with pytest.raises(ValueError, match="expected alignments of equal lengths, target lengths and topology"):
            torch.distributions.kl_divergence(p, q)


B, L = torch.zeros(2, 5, 4), torch.zeros(2, 5, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((B[0, 0], L), ValueError, r"blank_arcs: expected shape \[\*batch, T, U \+ 1\], got \[4\]"),
        ((B[..., :0], L), ValueError, r"blank_arcs: expected shape \[\*batch, T, U \+ 1\], got \[2, 5, 0\]"),
        ((B, B), ValueError, r"label_arcs: expected shape \[\*batch, 5, 3\], got \[2, 5, 4\]"),
        ((B, L.long()), TypeError, "label_arcs: expected floating point scores, got dtype torch.int64"),
        ((B, torch.zeros(3, 5, 3)), ValueError, "expected batch shapes of blank_arcs and label_arcs that"),
        (
            (B, L, torch.tensor([6, 1])),
            ValueError,
            r"^lengths: expected values in \[0, 5\], the frames, got 6 at \[0\]",
        ),
        ((B, L, torch.zeros(2)), TypeError, "^lengths: expected integers, got dtype torch.float32"),
        (
            (B, L, None, torch.tensor([1, 4])),
            ValueError,
            r"target_lengths: expected values in \[0, 3\], the labels, got 4 at \[1\]",
        ),
        ((B, L, None, "ab"), TypeError, "target_lengths: expected integers, got 'ab'"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TransducerAlignments(*arguments)


def test_frames_that_are_no_alignment() -> None:
    p = TransducerAlignments(torch.zeros(5, 3), torch.zeros(5, 2), torch.tensor(4))
    for y in ([2, 1], [0, 4]):  # descending, beyond the length
        assert torch.isneginf(p.log_prob(torch.tensor(y)))
        assert torch.isneginf(p.score(torch.tensor(y)))
    once = TransducerAlignments(torch.zeros(5, 3), torch.zeros(5, 2), one_label_per_frame=True)
    assert torch.isneginf(once.log_prob(torch.tensor([1, 1])))
    with pytest.raises(ValueError, match=r"y: expected labels in \[0, 5\), or -100 for unobserved, got 5 at \[1\]"):
        p.score(torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="y: expected a full labelling, got -100"):
        p.score(torch.tensor([0, -100]))
