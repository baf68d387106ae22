"""The best alignments of CTC: the kernel and the reference against a recursion in plain Python."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lnz.ops import backend, ctc
from lnz.ops.ctc.beam import search
from tests.distributions.ctc_oracle import spelt
from tests.suite import equal, impossibilities, random_scores, seeds


def best_score(x: list[list[float]], y: list[int], blank: int | None, collapse: bool) -> float:
    """The score of the best alignment of y: over the number of labels that frames have spelt, and the last class."""
    ends = {(0, None): 0.0}
    for frame in x:
        after: dict[tuple[int, int | None], float] = {}
        for (u, last), score in ends.items():
            ways = [] if blank is None else [(u, blank)]
            if collapse and last not in (None, blank):
                ways.append((u, last))
            if u < len(y) and not (collapse and y[u] == last):
                ways.append((u + 1, y[u]))
            for way in ways:
                after[way] = max(after.get(way, -math.inf), score + frame[way[1]])
        ends = after
    return max((score for (u, _), score in ends.items() if u == len(y)), default=-math.inf)


def check(scores: Tensor, of: ctc.Lattice, z: Tensor, found: Tensor) -> None:
    """Every alignment spells its target, and no other has a higher score in float64."""
    blank = None if of.blank < 0 else of.blank
    for b, x in enumerate(scores.double()):
        n, y = int(of.lengths[b]), of.labels[b, : int(of.target_lengths[b])].tolist()
        frames, classes = x[:n].tolist(), z[b, :n].tolist()
        wanted = best_score(frames, y, blank, of.stays)
        assert z[b, n:].eq(-100).all()
        if wanted == -math.inf:
            assert set(classes) <= {-100}
            assert found[b] == -math.inf
            continue
        assert spelt(tuple(classes), blank, of.stays) == tuple(y)
        actual = sum(row[c] for row, c in zip(frames, classes, strict=True))
        size = sum(abs(row[c]) for row, c in zip(frames, classes, strict=True))
        assert actual == pytest.approx(wanted, rel=0, abs=1e-13 * (1 + size))
        equal(found[b].double(), torch.tensor(wanted).double(), rtol=1e-6, atol=1e-6)


@given(st.data())
def test_no_alignment_is_better(data: st.DataObject) -> None:
    draw = data.draw
    B, C, S, seed = draw(st.integers(1, 4)), draw(st.integers(2, 9)), draw(st.integers(0, 20)), draw(seeds)
    T, blank, merge = draw(st.integers(1, 50)), draw(st.sampled_from([0, 1, C - 1, None])), draw(st.booleans())
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (B, S), generator=generator)
    if blank is not None:
        labels = torch.where(labels == blank, (blank + 1) % C, labels)
    sizes, lengths = torch.randint(S + 1, (B,), generator=generator), torch.randint(T + 1, (B,), generator=generator)
    of = ctc.lattice(labels, lengths, sizes, blank, merge)
    scores = draw(st.sampled_from([1.0, 30.0])) * random_scores((B, T, C), seed, draw(impossibilities) / 8)
    scores = scores.masked_fill((torch.arange(T) >= lengths[:, None])[..., None], torch.nan)
    time_major = scores.transpose(0, 1).contiguous().transpose(0, 1)
    results = [ctc.topk(x, of, 1) for x in (scores, time_major)]
    check(scores, of, results[0][0][0], results[0][1][0])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    z, found = ctc.topk(scores.float(), of, 1)
    check(scores.float(), of, z[0], found[0])


@pytest.mark.parametrize("S", [0, 1, 7, 8, 9, 15, 16, 17, 64])
@pytest.mark.parametrize("spare", [0, 1, 5, 200])
def test_targets_that_fill_their_frames_and_targets_that_do_not(S: int, spare: int) -> None:
    """A kernel looks at eight labels at a time, and only at those that a path can have reached and can still leave."""
    labels = torch.arange(S)[None].remainder(3) + 1
    labels[:, S // 2 :] = labels[:, :1]  # repeats, which need a blank between
    for merge in (True, False):
        of = ctc.lattice(labels, torch.zeros(1, dtype=torch.int64), torch.tensor([S]), 0, merge)
        T = int(ctc.frames_needed(of)) + spare
        scores = random_scores((1, max(T, 1), 5), S).float()
        of = of._replace(lengths=torch.tensor([T]))
        z, found = ctc.topk(scores, of, 1)
        check(scores, of, z[0], found[0])
        if S:
            assert ctc.topk(scores, of._replace(lengths=of.lengths - spare - 1), 1)[1].isneginf().all()


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_sums_of_large_logits_lose_no_digits(name: str) -> None:
    """600 logits around −30 000 add up to −1.8 · 10⁷, which float32 knows to two: paths would differ by less."""
    T, C, S = 600, 30, 250
    scores = (random_scores((1, T, C), 0) - 3e4).float()
    labels = torch.randint(1, C, (1, S), generator=torch.Generator().manual_seed(0))
    of = ctc.lattice(labels, torch.tensor([T]), torch.tensor([S]), 0, True)
    with backend(name):  # type: ignore[arg-type]
        z, found = ctc.topk(scores, of, 1)
        several, _ = ctc.topk(scores, of, 2)
    check(scores, of, z[0], found[0])
    assert torch.equal(several[0], z[0])


def test_of_equal_alignments_the_one_that_leaves_its_states_last_seen_from_the_end() -> None:
    """The same one always: whatever the type of scores, the batch around it and the number of threads."""
    for merge, wanted in ((True, [1, 0, 1, 2, 3, 0]), (False, [1, 1, 2, 3, 0, 0])):
        of = ctc.lattice(torch.tensor([[1, 1, 2, 3]] * 9), torch.full((9,), 6), torch.full((9,), 4), 0, merge)
        for dtype in (torch.float32, torch.float64):
            z, _ = ctc.topk(torch.zeros(9, 6, 4, dtype=dtype), of, 1)
            assert z.tolist() == [[wanted] * 9]
    short = ctc.lattice(torch.tensor([[1, 2]]), torch.tensor([5]), torch.tensor([2]), 0, True)
    assert ctc.topk(torch.zeros(1, 5, 3), short, 1)[0].tolist() == [[[1, 2, 0, 0, 0]]]


def test_threads_change_nothing(generator: torch.Generator) -> None:
    scores = torch.randint(3, (11, 400, 6), generator=generator).float()  # full of ties
    labels, lengths = torch.randint(1, 6, (11, 40), generator=generator), torch.arange(300, 400, 9)[:11]
    of = ctc.lattice(labels, lengths, torch.full((11,), 40), 0, True)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            results.append(ctc.topk(scores, of, 1))
    finally:
        torch.set_num_threads(threads)
    for a, b in itertools.pairwise(results):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


@given(st.data())
def test_the_beam_of_the_kernel_is_that_of_the_reference(data: st.DataObject) -> None:
    draw = data.draw
    B, T, C, beam = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(2, 6)), draw(st.integers(1, 9))
    blank, merge, seed = draw(st.sampled_from([0, C - 1, None])), draw(st.booleans()), draw(seeds)
    scores = draw(st.sampled_from([0.3, 1.0, 10.0])) * random_scores((B, T, C), seed, draw(impossibilities) / 4)
    log_probs = scores.log_softmax(-1).nan_to_num(nan=-torch.inf)
    lengths = torch.randint(T + 1, (B,), generator=torch.Generator().manual_seed(seed))
    found = search(log_probs, lengths, beam, blank, merge, None)
    with backend("reference"):
        wanted = search(log_probs, lengths, beam, blank, merge, None)
    for actual, want in zip(found, wanted, strict=True):
        equal(actual, want)


def test_a_beam_does_not_read_padding() -> None:
    log_probs, lengths = random_scores((3, 9, 4), 0).log_softmax(-1), torch.tensor([9, 0, 4])
    poisoned = log_probs.masked_fill((torch.arange(9) >= lengths[:, None])[..., None], torch.nan)
    for name in ("auto", "reference"):
        with backend(name):  # type: ignore[arg-type]
            found, wanted = (search(x, lengths, 5, 0, True, None) for x in (poisoned, log_probs))
        for actual, want in zip(found, wanted, strict=True):
            equal(actual, want)
