"""CTCAlignments: the shared suite for every topology against enumeration, closed forms, and what is its own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz.distributions import CTCAlignments
from tests.distributions import ctc_oracle
from tests.suite import DistributionSuite, Instance, batch_shapes, equal, impossibilities, random_scores, seeds


def instance(
    scores: torch.Tensor,
    targets: torch.Tensor,
    sizes: torch.Tensor,
    lengths: torch.Tensor,
    blank: int | None,
    merge: bool,
) -> Instance:
    return Instance(
        (scores,),
        lambda scores: CTCAlignments(scores, targets, sizes, lengths, blank, merge),
        lambda scores: ctc_oracle.alignments(scores, targets, sizes, lengths, blank, merge),
    )


def empty_lattices(blank: int | None, merge: bool) -> dict[str, Instance]:
    """A batch of none, no frame, no label."""
    found = {}
    for axis, B, T, S in (("batch", 0, 4, 2), ("frames", 2, 0, 2), ("labels", 2, 4 if blank is not None else 0, 0)):
        targets = torch.full((B, S), 2 if blank != 2 else 1)
        sizes, lengths = torch.full((B,), 0 if axis == "frames" else S), torch.full((B,), T)
        found[axis] = instance(random_scores((B, T, 3), 0), targets, sizes, lengths, blank, merge)
    return found


def beyond(lengths: torch.Tensor, T: int) -> tuple[torch.Tensor]:
    """The padding of frames."""
    return ((torch.arange(T) >= lengths[:, None])[..., None].expand(-1, -1, 3),)


@st.composite
def lattices(draw: st.DrawFn, blank: int | None, merge: bool) -> Instance:
    batch, C, S = draw(batch_shapes), draw(st.integers(2, 3)), draw(st.integers(0, 3))
    T = draw(st.integers(0 if batch else 1, 5))
    seed = draw(seeds)
    generator = torch.Generator().manual_seed(seed)
    labels = [c for c in range(C) if c != blank]
    targets = torch.tensor(labels)[torch.randint(len(labels), (*batch, S), generator=generator)]
    lengths = torch.randint((T + 1) // 2, T + 1, batch, generator=generator)
    if blank is None and not merge:
        sizes = lengths.clamp(max=S)  # nothing else can be spelt
    else:
        sizes = torch.minimum(torch.randint(S + 1, batch, generator=generator), lengths)
        if blank is None:
            sizes = sizes.clamp(min=min(1, S))
    return instance(
        random_scores((*batch, T, C), seed, draw(impossibilities) / 2), targets, sizes, lengths, blank, merge
    )


class TestRepeatsCollapsed(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return lattices(0, True)

    @staticmethod
    def example() -> Instance:
        targets, sizes, lengths = torch.tensor([[1, 1], [2, 0]]), torch.tensor([2, 1]), torch.tensor([4, 3])
        return instance(random_scores((2, 4, 3), 0), targets, sizes, lengths, 0, True)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_lattices(0, True)

    @staticmethod
    def padding() -> tuple[torch.Tensor, ...]:
        return beyond(torch.tensor([4, 3]), 4)


class TestRepeatsKept(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return lattices(1, False)

    @staticmethod
    def example() -> Instance:
        targets, sizes, lengths = torch.tensor([[2, 2], [0, 0]]), torch.tensor([2, 1]), torch.tensor([3, 3])
        return instance(random_scores((2, 3, 3), 0), targets, sizes, lengths, 1, False)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_lattices(1, False)


class TestNoBlank(DistributionSuite):
    @staticmethod
    def instances() -> st.SearchStrategy[Instance]:
        return lattices(None, True)

    @staticmethod
    def example() -> Instance:
        targets, sizes, lengths = torch.tensor([[0, 1, 0], [2, 1, 0]]), torch.tensor([3, 2]), torch.tensor([4, 3])
        return instance(random_scores((2, 4, 3), 0), targets, sizes, lengths, None, True)

    @staticmethod
    def empties() -> dict[str, Instance]:
        return empty_lattices(None, True)

    @staticmethod
    def padding() -> tuple[torch.Tensor, ...]:
        return beyond(torch.tensor([4, 3]), 4)


def test_path_counts_are_binomial_coefficients() -> None:
    """C(T + U − R, 2 U) alignments of U labels with R repeats; T = 6, "aab": 28."""
    for word in ("aab", "ab", "a", "", "aaaa", "abcabc"):
        targets = torch.tensor([["abc".index(c) + 1 for c in word]], dtype=torch.int64)
        repeats = sum(a == b for a, b in itertools.pairwise(word))
        for T in (0, 1, 3, 6, 9, 30):
            p = CTCAlignments(torch.randn(1, T, 4, dtype=torch.float64), targets)
            count = math.comb(T + len(word) - repeats, 2 * len(word)) if len(word) + repeats <= T else 0
            equal(p.log_count.exp(), torch.tensor([float(count)], dtype=torch.float64))
    assert math.comb(6 + 3 - 1, 6) == 28


def test_where_repeats_are_kept_labels_choose_their_frames() -> None:
    p = CTCAlignments(torch.zeros(50, 3, dtype=torch.float64), torch.tensor([1, 1, 2, 1]), collapse_repeats=False)
    equal(p.log_count.exp(), torch.tensor(float(math.comb(50, 4)), dtype=torch.float64))


def test_best_alignments_equal_those_of_the_reference(generator: torch.Generator) -> None:
    for blank, merge in ((0, True), (3, False), (None, True)):
        scores = torch.randn(6, 40, 5, generator=generator)
        targets = torch.arange(10).remainder(3).expand(6, 10) + (blank == 0)
        lengths, sizes = torch.tensor([40, 20, 30, 25, 10, 40]), torch.tensor([10, 10, 3, 7, 10, 1])
        p = CTCAlignments(scores, targets, sizes, lengths, blank, merge)
        with lnz.ops.backend("reference"):
            wanted, scores_wanted = p.topk(1)
        actual, best = p.topk(1)
        assert torch.equal(actual, wanted)
        equal(best, scores_wanted, rtol=1e-6, atol=1e-5)


def test_spans_say_where_labels_begin_and_end() -> None:
    z = torch.tensor([0, 1, 1, 0, 1, 2, 2, 2, 0])
    p = CTCAlignments(torch.zeros(9, 3), torch.tensor([1, 1, 2, -100]))
    wanted = torch.tensor([[1.0, 3.0], [4.0, 5.0], [5.0, 8.0], [torch.nan, torch.nan]])
    equal(p.spans(z), wanted, equal_nan=True)
    equal(p.spans(z, seconds_per_frame=0.02), 0.02 * wanted, equal_nan=True)
    kept = CTCAlignments(torch.zeros(4, 3), torch.tensor([1, 1]), collapse_repeats=False)
    equal(kept.spans(torch.tensor([1, 1, 0, 0])), torch.tensor([[0.0, 1.0], [1.0, 2.0]]))


def test_spans_of_many_samples_are_those_of_each(generator: torch.Generator) -> None:
    """Samples have axes in front of the batch; one alignment may serve a batch of targets that it spells."""
    targets, lengths = torch.tensor([[1, 1, 2], [2, -100, -100]]), torch.tensor([7, 5])
    p = CTCAlignments(torch.randn(2, 7, 3, generator=generator), targets, lengths=lengths)
    z = p.sample((3, 4), generator)
    spans = p.spans(z)
    assert spans.shape == (3, 4, 2, 3, 2)
    for i, j in itertools.product(range(3), range(4)):
        equal(spans[i, j], p.spans(z[i, j]), equal_nan=True)
    equal(p.spans(p.topk(2)[0])[0], p.spans(), equal_nan=True)
    same = CTCAlignments(torch.zeros(2, 3, 3), torch.tensor([1, 2]))
    equal(same.spans(torch.tensor([1, 0, 2])), torch.tensor([[[0.0, 1.0], [2.0, 3.0]]] * 2))


def test_spans_of_what_is_no_alignment_are_refused() -> None:
    p = CTCAlignments(torch.zeros(2, 8, 3), torch.tensor([[1, 2], [1, -100]]))
    z = p.argmax()
    z[1] = 0
    with pytest.raises(ValueError, match=r"z: expected alignments, which spell the targets, .* at \[1\]"):
        p.spans(z)
    z[1, 0] = -100
    with pytest.raises(ValueError, match=r"z: expected a full labelling, got -100 \(unobserved\)$"):
        p.spans(z)
    with pytest.raises(ValueError, match=r"^z: expected shape \[\*batch, 8\], got \[2, 7\]"):
        p.spans(z[:, :7])
    for value in (-1.0, 0.0, torch.nan):
        with pytest.raises(ValueError, match="seconds_per_frame: expected a positive number, got"):
            p.spans(seconds_per_frame=value)


def test_alignments_of_other_targets_cannot_be_compared() -> None:
    x = torch.zeros(4, 3)
    p, q = (CTCAlignments(x, torch.tensor(y)) for y in ([1, 2], [2, 1]))
    with pytest.raises(ValueError, match="expected alignments of equal targets"):
        torch.distributions.kl_divergence(p, q)


@given(st.data())
def test_ctc_gives_them_and_its_log_prob_is_their_partition_less_the_frames(data: st.DataObject) -> None:
    one = data.draw(lattices(0, True))
    p = one.p
    assert isinstance(p, CTCAlignments)
    q = lnz.CTC(p.scores, p.lengths)
    given = q.alignments(p.targets, p.target_lengths)
    equal(given.log_partition, p.log_partition)
    inside = torch.arange(p.event_shape[0]) < p.lengths[..., None]
    frames = p.scores.logsumexp(-1).masked_fill(~inside, 0.0).sum(-1)
    wanted = (p.log_partition - frames).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    equal(q.log_prob(p.targets, p.target_lengths), wanted)


def test_a_blank_beyond_the_number_of_frames_is_a_class_all_the_same() -> None:
    """Two frames of five classes, the last of which is the blank."""
    scores = random_scores((2, 5), 0)
    p = lnz.distributions.CTCAlignments(scores, torch.tensor([1]), torch.tensor(1), blank=4)
    wanted = torch.stack([scores[0, a] + scores[1, b] for a, b in ((1, 1), (1, 4), (4, 1))]).logsumexp(0)
    equal(p.log_partition, wanted)


def test_node_scores_are_added() -> None:
    scores, added = random_scores((2, 4, 3), 0), random_scores((2, 4, 3), 1)
    targets = torch.tensor([[1, 2], [2, 2]])
    p = lnz.distributions.CTCAlignments(scores, targets)
    wanted = lnz.distributions.CTCAlignments(scores + added, targets)
    equal(p.with_node_scores(added).log_partition, wanted.log_partition)


def test_targets_of_another_batch_are_named() -> None:
    with pytest.raises(ValueError, match=r"targets: expected a batch shape that broadcasts with \[2\], got \[3\]"):
        lnz.distributions.CTCAlignments(torch.zeros(2, 4, 3), torch.ones(3, 2, dtype=torch.int64))
