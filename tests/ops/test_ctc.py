"""The CTC op: kernels against the reference, extreme ranges, layouts, and its registration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnz.ops import backend, ctc
from lnz.ops.ctc import decode, op
from lnz.ops.ctc.op import CTC
from lnz.ops.ctc.records import Frames
from tests.suite import equal, impossibilities, random_scores, seeds


def random_lattice(B: int, T: int, C: int, S: int, seed: int, blank: int | None, merge: bool) -> ctc.Lattice:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(C, (B, S), generator=generator)
    if blank is not None:
        labels = torch.where(labels == blank, (blank + 1) % C, labels)
    lengths = torch.randint(T // 2, T + 1, (B,), generator=generator)
    sizes = torch.randint(S + 1, (B,), generator=generator)
    return ctc.lattice(labels, lengths, sizes, blank, merge)


def value_and_gradient(
    name: str, scores: torch.Tensor, prior: torch.Tensor, of: ctc.Lattice, normalise: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    with backend(name):  # type: ignore[arg-type]
        leaf = scores.detach().requires_grad_()
        value = ctc.log_prob(leaf, prior, of, normalise)
        return value.detach(), torch.autograd.grad(value, leaf, torch.arange(1.0, 1 + len(value)).to(value))[0]


@given(st.data())
def test_kernels_equal_the_reference(data: st.DataObject) -> None:
    draw = data.draw
    B, T, C, S, seed = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 40)),
        draw(st.integers(2, 9)),
        draw(st.integers(0, 20)),
        draw(seeds),
    )
    of = random_lattice(B, T, C, S, seed, draw(st.sampled_from([0, C - 1, None])), draw(st.booleans()))
    scores = draw(st.sampled_from([1.0, 30.0, 1e3])) * random_scores((B, T, C), seed, draw(impossibilities) / 4)
    prior = 0.3 * random_scores((C,), seed)
    normalise = draw(st.booleans())
    wanted = value_and_gradient("reference", scores, prior, of, normalise)
    for actual, want in zip(value_and_gradient("auto", scores, prior, of, normalise), wanted, strict=True):
        equal(actual, want)
    single = scores.float()
    wanted = value_and_gradient("reference", single.double(), prior.float().double(), of, normalise)
    actual = value_and_gradient("auto", single, prior.float(), of, normalise)
    equal(actual[0].double(), wanted[0], rtol=1e-6, atol=1e-4)
    equal(actual[1].double(), wanted[1], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0, 1e5])
def test_any_range_of_logits_is_right_in_float32(scale: float) -> None:
    """In the exponential domain with a clamp, logits × 30 gave a wrong loss and NaN."""
    T, B, C, S = 200, 4, 20, 40
    scores = (scale * random_scores((B, T, C), 0)).float()
    of = random_lattice(B, T, C, S, 1, 0, True)
    value, gradient = value_and_gradient("auto", scores, torch.zeros(C), of, True)
    wanted = value_and_gradient("reference", scores.double(), torch.zeros(C).double(), of, True)
    equal(value.double(), wanted[0], rtol=1e-6, atol=1e-3)
    equal(gradient.double(), wanted[1], rtol=0, atol=4 * 2e-5)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e3])
@pytest.mark.parametrize(("blank", "merge"), [(0, True), (19, False), (None, False)])
def test_any_range_is_right_in_float64_in_every_topology(scale: float, blank: int | None, merge: bool) -> None:
    T, B, C, S = 150, 3, 20, 30
    scores = scale * random_scores((B, T, C), 0, 0.0)
    of = random_lattice(B, T, C, S, 2, blank, merge)
    if blank is None:
        of = of._replace(lengths=of.target_lengths)  # nothing else can be spelt
    prior = torch.zeros(C, dtype=torch.float64)
    wanted = value_and_gradient("reference", scores, prior, of, True)
    assert torch.isfinite(wanted[0]).all()
    for actual, want in zip(value_and_gradient("auto", scores, prior, of, True), wanted, strict=True):
        equal(actual, want, rtol=1e-11, atol=1e-9)


def test_many_frames_at_one_extreme_neither_overflow_nor_vanish() -> None:
    """e^±3e8 in all: exponents that no float64 has; and sums of equal paths, whose mantissas only ever grow."""
    for level in (-1e5, 0.0, 1e5):
        scores = torch.full((1, 3000, 3), level, dtype=torch.float64)
        of = ctc.lattice(torch.tensor([[1, 2, 1]]), torch.tensor([3000]), torch.tensor([3]), 0, True)
        value, slopes = value_and_gradient("auto", scores, torch.zeros(3, dtype=torch.float64), of, False)
        count = math.comb(3000 + 3, 6)  # the alignments, of the same score each
        equal(value, torch.tensor([3000 * level + math.log(count)], dtype=torch.float64), rtol=1e-14, atol=1e-9)
        equal(slopes.sum(-1), torch.ones(1, 3000, dtype=torch.float64))


def test_an_alignment_lost_to_underflow_is_found() -> None:
    """Only the path that is a thousand nats behind after half of the frames can end."""
    T = 400
    scores = torch.zeros(1, T, 3)
    scores[0, : T // 2, 1] = -50.0
    scores[0, T // 2 :, 0] = -torch.inf
    of = ctc.lattice(torch.tensor([[1] * 100 + [2]]), torch.tensor([T]), torch.tensor([101]), 0, False)
    scores[0, T // 2 :, 2] = 0.0
    scores[0, T // 2 + 1 :] = -torch.inf
    scores[0, T // 2 + 1 :, 0] = 0.0
    for dtype in (torch.float32, torch.float64):
        value, gradient = value_and_gradient("auto", scores.to(dtype), torch.zeros(3, dtype=dtype), of, False)
        wanted = value_and_gradient("reference", scores.double(), torch.zeros(3).double(), of, False)
        assert torch.isfinite(wanted[0]).all()
        equal(value.double(), wanted[0], rtol=1e-6, atol=0)
        equal(gradient.double(), wanted[1], rtol=1e-5, atol=1e-6)


def test_a_long_recording_keeps_its_accuracy() -> None:
    T, C, S = 20_000, 8, 300
    scores = random_scores((1, T, C), 0)
    of = ctc.lattice(torch.arange(S)[None].remainder(C - 1) + 1, torch.tensor([T]), torch.tensor([S]), 0, True)
    value, gradient = value_and_gradient("auto", scores.float(), torch.zeros(C), of, True)
    wide = value_and_gradient("auto", scores.float().double(), torch.zeros(C).double(), of, True)
    equal(value.double(), wide[0], rtol=1e-6, atol=0)
    equal(gradient.double(), wide[1], rtol=0, atol=2e-5)


def test_time_major_scores_are_not_copied_and_give_the_same() -> None:
    scores, of = random_scores((3, 50, 6), 0), random_lattice(3, 50, 6, 9, 0, 0, True)
    time_major = scores.transpose(0, 1).contiguous().transpose(0, 1)
    prior = torch.zeros(6, dtype=torch.float64)
    results = [
        value_and_gradient("auto", x, prior, of, True) for x in (scores, time_major, scores.expand(2, 3, 50, 6)[1])
    ]
    assert results[1][1].stride() == time_major.stride()
    for value, gradient in results[1:]:
        equal(value, results[0][0])
        equal(gradient, results[0][1])


def test_threads_change_nothing() -> None:
    scores, of = random_scores((7, 300, 12), 0).float(), random_lattice(7, 300, 12, 30, 0, 0, True)
    one = value_and_gradient("auto", scores, torch.zeros(12), of, True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = value_and_gradient("auto", scores, torch.zeros(12), of, True)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(one, three, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("blank", "merge"), [(0, True), (0, False), (None, True)])
@pytest.mark.parametrize("T", [1, 2, 15, 16, 17, 150])
def test_where_the_lattice_is_not_kept_the_gradient_is_the_same(
    T: int, blank: int | None, merge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From blocks of √T frames, at every remainder; and the value alone."""
    scores, of = random_scores((3, T, 5), T, 0.03), random_lattice(3, T, 5, min(T, 9), T, blank, merge)
    prior = 0.3 * random_scores((5,), 1)
    for normalise in (True, False):
        whole = value_and_gradient("auto", scores, prior, of, normalise)
        with monkeypatch.context() as patch:
            patch.setattr(op, "whole_lattice", lambda *_: False)
            blocks = value_and_gradient("auto", scores, prior, of, normalise)
            time_major = scores.transpose(0, 1).contiguous().transpose(0, 1)
            again = value_and_gradient("auto", time_major, prior, of, normalise)
        for value, gradient in (blocks, again):
            equal(value, whole[0], rtol=1e-13, atol=0)
            equal(gradient, whole[1], rtol=1e-12, atol=1e-14)
        for name in ("auto", "reference"):
            with backend(name):  # type: ignore[arg-type]
                equal(ctc.log_prob(scores, prior, of, normalise), whole[0], rtol=1e-11, atol=1e-11)


def test_what_lies_over_padding_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, of = random_scores((4, 20, 5), 0), random_lattice(4, 20, 5, 6, 0, 0, True)
    of = of._replace(lengths=torch.tensor([20, 0, 7, 13]), target_lengths=torch.tensor([6, 0, 2, 5]))
    poisoned = scores.masked_fill((torch.arange(20) >= of.lengths[:, None])[..., None], torch.nan)
    wanted = value_and_gradient("auto", scores, torch.zeros(5, dtype=torch.float64), of, True)
    for name, whole in (("auto", True), ("auto", False), ("reference", True)):
        monkeypatch.setattr(op, "whole_lattice", lambda *_, whole=whole: whole)
        found = value_and_gradient(name, poisoned, torch.zeros(5, dtype=torch.float64), of, True)
        for actual, want in zip(found, wanted, strict=True):
            equal(actual, want)


@pytest.mark.parametrize("scale", [1e30, 1e300])
def test_at_any_size_of_scores_occupancies_are_probabilities(scale: float) -> None:
    of = random_lattice(2, 30, 6, 8, 3, 0, True)
    scores = scale * random_scores((2, 30, 6), 5)
    for name in ("auto", "reference"):
        _, gradient = value_and_gradient(name, scores, torch.zeros(6, dtype=torch.float64), of, False)
        inside = torch.arange(30) < of.lengths[:, None]
        equal(gradient.sum(-1), inside * torch.tensor([[1.0], [2.0]], dtype=torch.float64))
        assert (gradient >= 0).all()


def test_walks_back_along_few_columns_choose_as_those_along_all(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, of = random_scores((2, 37, 5), 0), random_lattice(2, 37, 5, 7, 1, 0, True)

    def drawn() -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return *ctc.topk(scores, of, 3), ctc.sample(scores, of, 4, generator)

    wanted = drawn()
    monkeypatch.setattr(decode, "HELD", 0)
    for actual, want in zip(drawn(), wanted, strict=True):
        equal(actual, want)


def test_collapse() -> None:
    z = torch.tensor([[0, 1, 1, 0, 1, 2], [2, 2, 2, 2, 1, 1]])
    lengths = torch.tensor([6, 3])
    labels, sizes = ctc.collapse(z, lengths, 0, True)
    assert labels.tolist() == [[1, 1, 2, -100, -100, -100], [2, -100, -100, -100, -100, -100]]
    assert sizes.tolist() == [3, 1]
    labels, sizes = ctc.collapse(z, lengths, 0, False)
    assert labels.tolist() == [[1, 1, 1, 2, -100, -100], [2, 2, 2, -100, -100, -100]]


def test_frames_needed_counts_repeats() -> None:
    labels, sizes = torch.tensor([[1, 1, 2, 2], [1, 2, 1, 1], [1, 1, 0, 0]]), torch.tensor([4, 3, 0])
    for blank, merge, wanted in ((0, True, [6, 3, 0]), (0, False, [4, 3, 0])):
        assert ctc.frames_needed(ctc.lattice(labels, sizes, sizes, blank, merge)).tolist() == wanted
    needed = ctc.frames_needed(ctc.lattice(labels, sizes, sizes, None, True))
    assert needed[0] > 2**60
    assert needed[1:].tolist() == [3, 0]


def test_registration() -> None:
    scores, of = random_scores((2, 5, 4), 0), random_lattice(2, 5, 4, 3, 0, 0, True)
    given = Frames(scores, torch.zeros(4, dtype=torch.float64), of, True)
    torch.library.opcheck(CTC.solve.op, CTC.solve.given.flatten(given))
    done = CTC.solve(given)
    for weight in (None, torch.ones(2, dtype=torch.float64)):
        torch.library.opcheck(CTC.gradient_op, (weight, *CTC.solve.given.flatten(given), *done, [True]))
    time_major = given._replace(scores=scores.transpose(0, 1).contiguous().transpose(0, 1))
    flat = CTC.solve.given.flatten(time_major)
    torch.library.opcheck(CTC.gradient_op, (torch.ones(2, dtype=torch.float64), *flat, *done, [True]))
    torch.library.opcheck(decode.TOPK.op, (scores, *of, 2))
    uniform = torch.rand(3, 2, 5, 2, dtype=torch.float64)
    torch.library.opcheck(decode.SAMPLE.op, (scores, *of[:4], uniform, of.blank, of.stays))
