"""The kernels of semi-Markov chains against the reference: shapes, ranges, impossible scores, length, threads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import lnz
from lnz.ops import backend, semi_markov
from lnz.ops.semi_markov import reference
from lnz.ops.semi_markov.cpu import calls
from lnz.ops.semi_markov.op import KERNELS
from lnz.ops.semi_markov.records import Segments
from tests.suite import equal, random_scores

SIZES = [
    (1, 1, 1),
    (2, 3, 1),
    (7, 9, 3),
    (6, 4, 5),
    (9, 20, 2),
    (12, 5, 8),
    (7, 3, 9),
    (6, 4, 16),
    (5, 3, 17),
    (5, 2, 40),
]
"""T, W and L: several widths in a register, one, several registers to a width; segments wider than the sequence."""


def instance(T: int, W: int, L: int, entries: int, steps: int, impossible: float = 0.0) -> tuple[Tensor, ...]:
    """Eleven sequences, more than the kernels take side by side: a group of short ones, then some of every length."""
    lengths = torch.tensor([min(1, T), 0, 1, 0, 1, 0, 1, 1, T, T // 2, T - 1])
    segment = random_scores((len(lengths), T, W, L), 0, impossible)
    return segment, random_scores((entries, steps, L, L), 1, impossible), lengths


@pytest.mark.parametrize("impossible", [0.0, 0.4])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("entries", [1, 11])
@pytest.mark.parametrize("size", SIZES)
def test_it_equals_the_reference(size: tuple[int, int, int], entries: int, shared: bool, impossible: float) -> None:
    segment, edge, lengths = instance(*size, entries, 1 if shared else size[0] - 1, impossible)
    wanted = reference.forward_backward(segment, edge, lengths)
    for a, w in zip(semi_markov.forward_backward(Segments(segment, edge, lengths)), wanted, strict=True):
        equal(a, w)
    single = semi_markov.forward_backward(Segments(segment.float(), edge.float(), lengths))
    wanted = reference.forward_backward(segment.float().double(), edge.float().double(), lengths)
    for a, w in zip(single, wanted, strict=True):
        equal(a.double(), w, rtol=1e-5, atol=1e-6)
    labels, score = semi_markov.topk(Segments(segment, edge, lengths), 1)
    with backend("reference"):
        best, highest = semi_markov.topk(Segments(segment, edge, lengths), 1)
    equal(score, highest)
    assert torch.equal(labels, best)
    equal(
        semi_markov.topk(Segments(segment.float(), edge.float(), lengths), 1)[1].double(), highest, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("impossible", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [30.0, 100.0, 1e4])
@pytest.mark.parametrize("steps", [1, 11])
def test_any_range_of_scores_is_right(scale: float, dtype: torch.dtype, steps: int, impossible: float) -> None:
    """Exponentials of edges, of segments and of what lies ahead leave the range of either dtype."""
    segment, edge, lengths = instance(12, 4, 6, 1, steps, impossible)
    segment, edge = (scale * segment).to(dtype), (scale * edge).to(dtype)
    wanted = reference.forward_backward(segment.double(), edge.double(), lengths)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-15 * scale * 100
    for a, w in zip(semi_markov.forward_backward(Segments(segment, edge, lengths)), wanted, strict=True):
        equal(a.double(), w, rtol=tolerance, atol=tolerance)
    assert calls.forward_backward(Segments(segment, edge, lengths))[3].all()  # no entry needed the reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_only_way_may_be_far_behind(dtype: torch.dtype, steps: int) -> None:
    """A label that is e^−5000 of another now is the only one that may follow."""
    edge = torch.full((1, steps, 3, 3), -torch.inf, dtype=dtype)
    edge[:, :, 0, 1] = edge[:, :, 1, 2] = edge[:, :, 2, 0] = 0.0
    segment = torch.zeros(1, 6, 1, 3, dtype=dtype)
    segment[0, :, 0, 0], segment[0, 5, 0, 0] = 5000.0, -torch.inf
    log_z, segments, edges = semi_markov.forward_backward(Segments(segment, edge, torch.tensor([6])))
    wanted = reference.forward_backward(segment.double(), edge.double(), torch.tensor([6]))
    for a, w in zip((log_z, segments, edges), wanted, strict=True):
        equal(a.double(), w, rtol=1e-6, atol=1e-6)
    drawn = semi_markov.sample(Segments(segment, edge, torch.tensor([6])), 20, torch.Generator().manual_seed(0))
    assert (segments[0, torch.arange(6), 0, drawn[:, 0]] > 0).all()


def test_impossible_sequences_among_possible_ones() -> None:
    segment, edge, lengths = instance(6, 3, 4, 1, 1)
    segment[8] = -torch.inf
    log_z, segments, edges = semi_markov.forward_backward(Segments(segment, edge, lengths))
    assert torch.isneginf(log_z).tolist() == [b == 8 for b in range(len(lengths))]
    assert (segments[8] == 0).all()
    assert (edges[8] == 0).all()
    labels, score = semi_markov.topk(Segments(segment, edge, lengths), 1)
    assert torch.isneginf(score[0, 8])
    assert (labels[0, 8] == -100).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_long_sequences_do_not_drift(dtype: torch.dtype) -> None:
    """With scores that repeat from step to step, ln Z grows by the same amount, and the middle is stationary."""
    T, W, L = 100_000, 4, 3
    segment, edge = (
        random_scores((1, 1, W, L), 0).to(dtype).expand(1, T, W, L),
        random_scores((1, 1, L, L), 1).to(dtype),
    )
    log_z, segments, _ = semi_markov.forward_backward(Segments(segment, edge, torch.tensor([T])))
    short = reference.forward_backward(segment[:, :400].double(), edge.double(), torch.tensor([400]))
    shorter = reference.forward_backward(segment[:, :300].double(), edge.double(), torch.tensor([300]))
    eps = torch.finfo(dtype).eps
    equal(log_z.double(), short[0] + (T - 400) / 100 * (short[0] - shorter[0]), rtol=max(10 * eps, 1e-11), atol=0)
    for t in (5, T // 2, T - 10):
        like = t if t < 200 else t - T + 400 if t > T - 200 else 200
        equal(segments[0, t].double(), short[1][0, like], rtol=100 * eps, atol=1e-9)
    covering = lnz.SemiMarkov(segment, edge[0, 0]).node_marginals.double().sum(-1)
    equal(covering, torch.ones(1, T, dtype=torch.float64), rtol=1000 * eps, atol=0)


def test_the_mass_of_float32_does_not_drift() -> None:
    """Rounding to one side by a fifth of a unit in the last place, step by step, would be off by 1e-3 at the end."""
    T, W, L = 100_000, 16, 4
    segment, edge, lengths = random_scores((1, T, W, L), 0), random_scores((1, 1, L, L), 1), torch.tensor([T])
    _, segments, edges = semi_markov.forward_backward(Segments(segment.float(), edge.float(), lengths))
    _, wanted, wanted_edges = semi_markov.forward_backward(
        Segments(segment.float().double(), edge.float().double(), lengths)
    )
    equal(segments.double(), wanted, rtol=0, atol=1e-5)
    equal(edges.double(), wanted_edges, rtol=1e-5, atol=0)


def test_ties_are_broken_somehow() -> None:
    segment, edge, lengths = torch.zeros(3, 9, 4, 5), torch.zeros(5, 5), torch.tensor([9, 4, 0])
    p = lnz.SemiMarkov(segment, edge, lengths)
    equal(p.score(p.argmax()), torch.zeros(3))
    counts = [1]
    for n in range(1, 10):
        counts.append(5 * sum(counts[max(0, n - 4) : n]))
    equal(p.log_partition, torch.tensor([math.log(counts[n]) for n in lengths]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("of_edges", [True, False])
def test_what_is_no_score_is_as_in_the_reference(number: float, steps: int, of_edges: bool) -> None:
    segment, edge, lengths = instance(6, 3, 4, 11, steps)
    (edge if of_edges else segment)[8, 0, 1, 2] = number
    for a, w in zip(
        semi_markov.forward_backward(Segments(segment, edge, lengths)),
        reference.forward_backward(segment, edge, lengths),
        strict=True,
    ):
        torch.testing.assert_close(a, w, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_padding_may_hold_anything() -> None:
    segment, edge, lengths = instance(7, 3, 5, 11, 6)
    wanted = semi_markov.forward_backward(Segments(segment, edge, lengths))
    steps = torch.arange(7)
    segment[steps >= lengths[:, None]] = torch.nan
    beyond = steps[:, None] + torch.arange(3) >= lengths[:, None, None]
    segment[beyond] = torch.nan
    edge[steps[1:] >= lengths[:, None]] = torch.nan
    for a, w in zip(semi_markov.forward_backward(Segments(segment, edge, lengths)), wanted, strict=True):
        assert torch.equal(a, w)
    assert (wanted[1][beyond] == 0).all()


@pytest.mark.parametrize("steps", [1, 63])
def test_threads_and_strides_change_nothing(steps: int) -> None:
    shape = (13, 64, 16, 8)
    segment, edge = random_scores(shape, 0).float(), random_scores((1, steps, 8, 8), 1).float()
    lengths = torch.randint(65, (13,), generator=torch.Generator().manual_seed(0))
    turned, across = segment.transpose(1, 2).contiguous().transpose(1, 2), edge.mT.contiguous().mT
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            given = Segments(turned, across, lengths)
            drawn = semi_markov.sample(given, 4, torch.Generator().manual_seed(0))
            results.append((*semi_markov.forward_backward(given), *semi_markov.topk(given, 1), drawn))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_samples_are_as_frequent_as_they_are_probable(scale: float, steps: int, dtype: torch.dtype) -> None:
    T, W, L, n = 8, 3, 4, 20_000
    segment, edge = random_scores((2, T, W, L), 0, 0.2), random_scores((1, steps, L, L), 1, 0.3)
    segment, edge, lengths = (scale * segment / 8).to(dtype), (scale * edge).to(dtype), torch.tensor([T, 5])
    drawn = semi_markov.sample(Segments(segment, edge, lengths), n, torch.Generator().manual_seed(0))
    starts = reference.forward_backward(segment.double(), edge.double(), lengths)[1].sum(2).clamp(max=1)
    seen = torch.stack([(drawn == label).double().mean(0) for label in range(L)], -1)
    assert ((seen - starts).abs() <= 5 * (starts * (1 - starts) / n).sqrt() + 1e-9).all()


def test_the_reference_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a kernel was called")

    for name in ("forward_backward", "viterbi", "sample"):
        monkeypatch.setattr(calls, name, refuse)
    monkeypatch.setattr(KERNELS, "_found", {})
    monkeypatch.setenv("LNZ_BACKEND", "reference")
    p = lnz.SemiMarkov(random_scores((4, 2, 3), 0), random_scores((3, 3), 1))
    assert torch.isfinite(p.log_partition)
    assert p.argmax().shape == (4,)
    assert p.sample((2,)).shape == (2, 4)
    monkeypatch.setenv("LNZ_BACKEND", "auto")
    with pytest.raises(AssertionError, match="a kernel was called"):
        p.argmax()
