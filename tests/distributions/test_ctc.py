"""CTC: against enumeration of all frame labellings, published values, torch's loss, and its decoders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lnz
from lnz.objectives import nll
from tests.distributions import ctc_oracle
from tests.suite import equal, random_scores, seeds

TOPOLOGIES = [(0, True), (2, True), (1, False), (None, True), (None, False)]
topologies = pytest.mark.parametrize(("blank", "merge"), TOPOLOGIES)


def padded(labels: list[tuple[int, ...]]) -> torch.Tensor:
    width = max(map(len, labels))
    return torch.tensor([[*y, *[-100] * (width - len(y))] for y in labels], dtype=torch.int64)


# Against enumeration -------------------------------------------------------------------------------------------------


@topologies
@given(seed=seeds, T=st.integers(0, 5))
def test_log_prob_of_every_sequence_on_raw_scores(blank: int | None, merge: bool, seed: int, T: int) -> None:
    logits = random_scores((T, 3), seed, 0.1)
    logits[:, seed % 3] = logits[:, seed % 3].clamp(min=-1.0)  # no frame is impossible
    sums = ctc_oracle.label_sequences(logits, blank, merge)
    normaliser = float(logits.logsumexp(-1).sum())
    wanted = torch.tensor([value - normaliser for value in sums.values()], dtype=torch.float64)
    p = lnz.CTC(logits, blank=blank, collapse_repeats=merge)
    actual = p.log_prob(padded(list(sums)))
    equal(actual, wanted)
    equal(actual.exp().sum(), torch.ones((), dtype=torch.float64))
    equal(p.log_partition, torch.zeros((), dtype=torch.float64))


@topologies
def test_gradient_is_occupancy_less_softmax(blank: int | None, merge: bool) -> None:
    logits = random_scores((3, 5, 3), 0).requires_grad_()
    targets = torch.tensor([0, 1, 2]) if blank is None else torch.tensor([[c for c in range(3) if c != blank]])
    if blank is None and not merge:
        targets = torch.tensor([0, 1, 2, 2, 1])
    targets = targets.expand(3, -1)
    p = lnz.CTC(logits, torch.tensor([5, 5, 5]), blank, merge)
    gradient = torch.autograd.grad(p.log_prob(targets).sum(), logits)[0]
    equal(gradient, p.alignments(targets).marginals - logits.softmax(-1))
    assert torch.autograd.gradcheck(lambda x: lnz.CTC(x, None, blank, merge).log_prob(targets), logits)
    assert torch.autograd.gradgradcheck(lambda x: lnz.CTC(x, None, blank, merge).log_prob(targets), logits)


def test_vmap_compile_and_both_backends() -> None:
    targets, sizes = torch.tensor([[1, 1, 2], [2, 0, 0]]), torch.tensor([3, 1])
    logits = random_scores((4, 2, 6, 3), 0)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return -lnz.CTC(x).log_prob(targets, sizes).sum()

    wanted = torch.stack([loss(x) for x in logits])
    equal(torch.vmap(loss)(logits), wanted)
    slopes = torch.vmap(torch.func.grad(loss))(logits)
    for x, slope in zip(logits, slopes, strict=True):
        leaf = x.clone().requires_grad_()
        equal(torch.autograd.grad(loss(leaf), leaf)[0], slope)
    with lnz.ops.backend("reference"):
        equal(torch.stack([loss(x) for x in logits]), wanted)
    torch.compiler.reset()
    equal(torch.compile(loss, fullgraph=True, backend="eager")(logits[0]), wanted[0])


# Published values ----------------------------------------------------------------------------------------------------


def test_published_losses_and_gradients(shared_data: Path) -> None:
    cases = json.loads((shared_data / "ctc_reference" / "ctc_cases.json").read_text())["loss_cases"]
    for case in cases:
        logits = torch.tensor(case["input"], dtype=torch.float64).requires_grad_()
        loss = -lnz.CTC(logits, blank=case["blank"]).log_prob(torch.tensor(case["targets"]))
        loss.backward()
        equal(loss, torch.tensor(case["loss_float64"], dtype=torch.float64))
        assert logits.grad is not None
        equal(logits.grad, torch.tensor(case["grad_wrt_logits_float64"], dtype=torch.float64))


def test_losses_of_the_tutorial() -> None:
    """1.6094379, 7.3557429, 4.9388504."""
    rows = torch.tensor([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]])
    falling = torch.tensor([[-5.0, -4, -3, -2, -1], [-10, -9, -8, -7, -6], [-15, -14, -13, -12, -11]])
    for logits, target, wanted in (
        (rows[:1] * 0, [1], 1.6094379),
        (rows, [3, 3], 7.3557429),
        (falling, [2, 3], 4.9388504),
    ):
        assert -lnz.CTC(logits).log_prob(torch.tensor(target)).item() == pytest.approx(wanted, rel=1e-6)


def test_published_decodings(shared_data: Path) -> None:
    for case in json.loads((shared_data / "ctc_reference" / "ctc_cases.json").read_text())["decode_cases"]:
        probabilities = torch.tensor(case["probs"], dtype=torch.float64)
        logits = torch.where(probabilities > 0, probabilities.log(), -torch.inf)
        p = lnz.CTC(logits, blank=case["blank"])
        vocabulary = case.get("vocab")
        greedy = p.greedy().tolist()
        assert (greedy if vocabulary is None else "".join(vocabulary[c] for c in greedy)) == case["greedy"]
        if "exact_top5" in case:
            labels, scores = p.decode(beam=200, k=5)
            normaliser = probabilities.sum(-1).log().sum()
            for row, score, (text, probability) in zip(labels.tolist(), scores, case["exact_top5"], strict=True):
                assert "".join(vocabulary[c] for c in row if c >= 0) == text
                assert (score + normaliser).exp().item() == pytest.approx(probability, rel=1e-9)


# Decoding ------------------------------------------------------------------------------------------------------------


@topologies
@given(seed=seeds)
def test_a_wide_beam_finds_the_best_sequences(blank: int | None, merge: bool, seed: int) -> None:
    logits = random_scores((2, 4, 3), seed)
    p = lnz.CTC(logits, torch.tensor([4, 3]), blank, merge)
    labels, scores = p.decode(beam=100, k=4)
    for b, n in enumerate((4, 3)):
        sums = ctc_oracle.label_sequences(logits[b, :n].log_softmax(-1), blank, merge)
        wanted = sorted(sums.values(), reverse=True)[:4]
        equal(scores[: len(wanted), b], torch.tensor(wanted, dtype=torch.float64))
        for row, score in zip(labels[:, b].tolist(), wanted, strict=False):
            assert sums[tuple(c for c in row if c != -100)] == pytest.approx(score, abs=1e-9)
        best = tuple(c for c in p.decode(beam=100)[b].tolist() if c != -100)
        assert sums[best] == pytest.approx(max(sums.values()), abs=1e-9)


def test_a_language_model_is_added_once_per_label() -> None:
    logits = random_scores((5, 3), 3)
    bigram = random_scores((4, 3), 4).log_softmax(-1)

    def model(prefixes: torch.Tensor) -> torch.Tensor:
        sizes = (prefixes != -100).sum(-1)
        last = torch.nn.functional.pad(prefixes, (1, 0), value=3).gather(1, sizes[:, None])[:, 0]
        return bigram[last]

    sums = ctc_oracle.label_sequences(logits.log_softmax(-1), 0, True)
    totals = {y: s + sum(float(bigram[a, b]) for a, b in zip((3, *y), y, strict=False)) for y, s in sums.items()}
    labels, scores = lnz.CTC(logits).decode(beam=200, language_model=model, k=3)
    best = sorted(totals, key=lambda y: -totals[y])[:3]
    for row, score, wanted in zip(labels.tolist(), scores.tolist(), best, strict=True):
        assert tuple(c for c in row if c != -100) == wanted
        assert score == pytest.approx(totals[wanted], abs=1e-9)
    with pytest.raises(ValueError, match=r"language_model: expected to return scores of shape \[1, 3\], got \[2\]"):
        lnz.CTC(logits).decode(language_model=lambda prefixes: torch.zeros(2))
    for value, message in ((torch.nan, "2 of 3 scores are NaN"), (torch.inf, r"2 of 3 scores are \+inf")):
        with pytest.raises(ValueError, match=f"language_model: {message}"):
            lnz.CTC(logits).decode(language_model=lambda prefixes, x=value: torch.full((len(prefixes), 3), x))


def test_what_a_language_model_says_of_the_blank_is_ignored() -> None:
    p, says = lnz.CTC(random_scores((5, 3), 0)), torch.tensor([torch.nan, 1.0, -1.0])
    labels, scores = p.decode(beam=8, language_model=lambda prefixes: says.expand(len(prefixes), 3), k=2)
    zero = torch.tensor([0.0, 1.0, -1.0])
    wanted = p.decode(beam=8, language_model=lambda prefixes: zero.expand(len(prefixes), 3), k=2)
    assert torch.equal(labels, wanted[0])
    equal(scores, wanted[1])


def test_a_narrow_beam_is_a_search() -> None:
    p = lnz.CTC(random_scores((3, 12, 5), 0), torch.tensor([12, 0, 7]))
    wide, narrow = (p.decode(beam=beam, k=1)[1][0] for beam in (64, 1))
    assert (wide >= narrow - 1e-12).all()
    assert p.decode().shape == (3, p.decode().shape[1])
    assert (p.decode()[1] == -100).all()
    for beam, k, message in (
        (0, None, "beam: expected a positive integer, got 0"),
        (4, 5, r"k: expected a number in \[1, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            p.decode(beam=beam, k=k)
    with pytest.raises(ValueError, match=r"beam: expected a positive integer, got 2\.5"):
        p.decode(2.5)
    with pytest.raises(ValueError, match=r"k: expected a positive integer, got 1\.5"):
        p.decode(2, k=1.5)


def test_samples_follow_the_distribution() -> None:
    logits = random_scores((4, 3), 0)
    drawn = lnz.CTC(logits).sample((20_000,), generator=torch.Generator().manual_seed(0))
    counts: dict[tuple[int, ...], int] = {}
    for row in drawn.tolist():
        y = tuple(c for c in row if c != -100)
        counts[y] = counts.get(y, 0) + 1
    for y, value in ctc_oracle.label_sequences(logits.log_softmax(-1), 0, True).items():
        q = math.exp(value)
        assert abs(counts.get(y, 0) / 20_000 - q) < 5 * math.sqrt(q * (1 - q) / 20_000) + 1e-9


# What it takes and refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(0, 5, 3, 2), (2, 0, 3, 2), (2, 5, 1, 0), (0, 0, 1, 0)])
def test_nothing_along_an_axis(sizes: tuple[int, int, int, int]) -> None:
    B, T, C, S = sizes
    logits, lengths = random_scores((B, T, C), 0).requires_grad_(), torch.full((B,), T)
    targets, target_lengths = torch.ones(B, S, dtype=torch.int64), torch.full((B,), min(S, T))
    p = lnz.CTC(logits, lengths)
    values = p.log_prob(targets, target_lengths)
    equal(values, logits.log_softmax(-1)[..., 0].sum(-1) if not S or not T else values)
    assert values.shape == (B,)
    assert (torch.autograd.grad(values.sum(), logits)[0] == 0).all() if T == 0 or C == 1 else True
    for model in (None, lambda prefixes: torch.zeros(len(prefixes), C)):
        labels, scores = p.decode(beam=3, k=2, language_model=model)
        assert labels.shape == (2, B, labels.shape[-1])
        assert scores.shape == (2, B)
        assert p.decode(language_model=model).shape[:1] == (B,)
        if T == 0:
            equal(scores[0], torch.zeros(B, dtype=torch.float64))
    assert p.greedy().shape == (B, p.greedy().shape[1])
    assert p.sample((2,)).shape[:2] == (2, B)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_frames_beyond_the_lengths_are_never_looked_at(value: float) -> None:
    logits, lengths = random_scores((3, 6, 4), 0), torch.tensor([6, 0, 4])
    targets = torch.tensor([[1, 1], [-100, -100], [2, 3]])
    poisoned = logits.masked_fill((torch.arange(6) >= lengths[:, None])[..., None], value)
    leaves = [x.clone().requires_grad_() for x in (logits, poisoned)]
    clean, p = (lnz.CTC(leaf, lengths) for leaf in leaves)
    equal(p.log_prob(targets), clean.log_prob(targets))
    equal(*(torch.autograd.grad(q.log_prob(targets).sum(), x)[0] for q, x in zip((clean, p), leaves, strict=True)))
    assert torch.equal(p.greedy(), clean.greedy())
    assert torch.equal(p.decode(), clean.decode())
    drawn = [q.sample((5,), generator=torch.Generator().manual_seed(0)) for q in (p, clean)]
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match=r"logits: \d+ of 72 scores are .*, first at \[0, 2, 1\]"):
        lnz.CTC(
            poisoned.index_put((torch.tensor(0), torch.tensor(2), torch.tensor(1)), torch.tensor(value).double()),
            lengths,
        )


def test_empty_targets_no_frames_and_impossible_targets() -> None:
    logits = random_scores((4, 3, 3), 0).requires_grad_()
    p = lnz.CTC(logits, torch.tensor([3, 0, 0, 3]))
    targets = torch.tensor([[-100] * 2, [-100] * 2, [1, -100], [2, 2]])
    values = p.log_prob(targets)
    equal(values[0], logits[0].log_softmax(-1)[:, 0].sum())
    assert values[1] == 0
    assert torch.isneginf(values[2])
    three = logits[3].log_softmax(-1)
    equal(values[3], three[0, 2] + three[1, 0] + three[2, 2])
    values[[0, 1, 3]].sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1:3] == 0).all()
    with pytest.raises(lnz.InfeasibleError, match=r"probability 0 in batch entries \[2\]") as error:
        nll(p, targets)
    assert error.value.entries == (2,)
    logits.grad = None
    nll(p, targets, zero_infinity=True).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_prior_divides_the_probabilities() -> None:
    logits, prior = random_scores((6, 3), 0).requires_grad_(), torch.tensor([-0.5, -2.0, -3.0], dtype=torch.float64)
    target = torch.tensor([1, 2])
    p = lnz.CTC(logits, log_prior=prior)
    sums = ctc_oracle.label_sequences(logits.detach().log_softmax(-1) - prior, 0, True)
    equal(p.log_prob(target), torch.tensor(sums[(1, 2)], dtype=torch.float64))
    gradient = torch.autograd.grad(p.log_prob(target), logits)[0]
    equal(gradient, p.alignments(target).marginals - logits.softmax(-1))
    with pytest.raises(ValueError, match="log_prior: expected 3 finite values"):
        lnz.CTC(logits, log_prior=torch.zeros(2))


def test_half_precision_and_integer_batches() -> None:
    logits = random_scores((2, 3, 6, 4), 0)
    targets = torch.tensor([1, 2, 3])
    wanted = lnz.CTC(logits).log_prob(targets)
    assert wanted.shape == (2, 3)
    for dtype, rtol in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        leaf = logits.to(dtype).requires_grad_()
        value = lnz.CTC(leaf).log_prob(targets)
        assert value.dtype == dtype
        equal(value.double(), wanted, rtol=rtol, atol=1e-5)
        value.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.dtype == dtype


LOGITS = torch.zeros(2, 5, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lnz.CTC(LOGITS[0, 0]), ValueError, r"logits: expected shape \[\*batch, T, C\] with C > 0, got \[4\]"),
        (lambda: lnz.CTC(LOGITS.long()), TypeError, "logits: expected floating point scores, got dtype torch.int64"),
        (lambda: lnz.CTC(LOGITS * torch.nan), ValueError, "logits: 40 of 40 scores are NaN"),
        (lambda: lnz.CTC(LOGITS, blank=4), ValueError, r"blank: expected a class in \[0, 4\) or None, got 4"),
        (lambda: lnz.CTC(LOGITS, blank=1.0), TypeError, "blank: expected an int or None, got float"),
        (lambda: lnz.CTC(LOGITS, torch.tensor([6, 1])), ValueError, r"lengths: expected values in \[0, 5\].* got 6 at"),
        (lambda: lnz.CTC(LOGITS, torch.zeros(2)), TypeError, "lengths: expected integers, got dtype torch.float32"),
        (
            lambda: lnz.CTC(LOGITS).log_prob(torch.tensor([1, 0])),
            ValueError,
            r"other than the blank, 0, got 0 at \[1\]",
        ),
        (lambda: lnz.CTC(LOGITS).log_prob(torch.tensor([4])), ValueError, r"targets: expected labels in \[0, 4\)"),
        (
            lambda: lnz.CTC(LOGITS).log_prob(torch.zeros(2, 1)),
            TypeError,
            "targets: expected a torch.Tensor of integers",
        ),
        (lambda: lnz.CTC(LOGITS).log_prob(torch.ones(3, 1).long()), ValueError, "targets: expected a batch shape"),
        (
            lambda: lnz.CTC(LOGITS).log_prob(torch.ones(2, 1).long(), torch.tensor([1, 2])),
            ValueError,
            r"target_lengths: expected values in \[0, 1\], the labels of targets, got 2 at \[1\]",
        ),
        (
            lambda: lnz.CTC(LOGITS).log_prob(torch.ones(2, 1).long(), torch.tensor([1, 1, 1])),
            ValueError,
            r"target_lengths: expected a batch shape that broadcasts with \[2\], got \[3\]",
        ),
        (
            lambda: lnz.CTC(LOGITS, torch.tensor([1, 1, 1])),
            ValueError,
            r"lengths: expected a batch shape that broadcasts with \[2\], got \[3\]",
        ),
        (lambda: lnz.CTC(LOGITS).argmax(), TypeError, r"intractable: use decode\(beam"),
        (lambda: lnz.CTC(LOGITS).topk(3), TypeError, r"use decode\(beam=…, k=3\)"),
        (lambda: lnz.CTC(LOGITS).entropy(), TypeError, r"average −log_prob over sample"),
        (lambda: lnz.CTC(LOGITS).marginals, TypeError, r"alignments\(targets\).marginals are those of frames"),
        (lambda: lnz.CTC(LOGITS).log_count, TypeError, r"alignments\(targets\).log_count is for the frame"),
        (lambda: lnz.CTC(LOGITS).condition(None), TypeError, r"alignments\(targets\).condition\(z\) clamps frames"),
        (lambda: lnz.CTC(LOGITS).sample((-1,)), ValueError, "sample_shape: expected sizes of at least 0"),
        (lambda: lnz.CTC(LOGITS).tempered(0), ValueError, "temperature: expected a positive number, got 0"),
    ],
)
def test_arguments_that_make_no_sense(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_temperature_per_batch_entry() -> None:
    logits, temperature = random_scores((2, 5, 4), 0), torch.tensor([0.5, 2.0], dtype=torch.float64)
    targets = torch.tensor([[1, 2], [3, 3]])
    wanted = [lnz.CTC(x).tempered(t).log_prob(y) for x, t, y in zip(logits, (0.5, 2.0), targets, strict=True)]
    equal(lnz.CTC(logits).tempered(temperature).log_prob(targets), torch.stack(wanted))
    with pytest.raises(ValueError, match=r"temperature: expected positive numbers, got -2.0 at \[1\]"):
        lnz.CTC(logits).tempered(torch.tensor([1.0, -2.0]))


def test_the_support_holds_transcripts() -> None:
    p = lnz.CTC(random_scores((3, 5, 4), 0))
    assert p.support.check(p.sample((50,), torch.Generator().manual_seed(0))).all()
    y = torch.tensor([[1, 3, -100], [0, 1, 2], [1, -100, 2], [4, 1, 2], [-100, -100, -100]])
    assert p.support.check(y).tolist() == [True, False, False, False, True]
    assert p.support.check(torch.zeros(2, 0).long()).tolist() == [True, True]
    assert lnz.CTC(p.logits, blank=None).support.check(y).tolist() == [True, True, False, False, True]
    assert lnz.Transducer(random_scores((1, 2, 3, 4), 0)).support.check(y).tolist() == [True, False, False, False, True]


def test_transcripts_have_no_moments() -> None:
    for p in (lnz.CTC(random_scores((5, 4), 0)), lnz.Transducer(random_scores((2, 3, 4), 0))):
        for name in ("mean", "variance", "stddev"):
            with pytest.raises(TypeError, match=rf"{type(p).__name__} has no {name}: .*; use alignments\(targets\)"):
                getattr(p, name)
