"""Words with times and confidences: planted texts, stars, words left out, words that are not there."""

import math
import time
from itertools import product

import pytest
import torch

import lnz
from lnz.ops import backend
from tests import memory

ALPHABET = "_abcdefghijklmnopqrstuvwxyz"
TEXT = ["when", "the", "quick", "brown", "fox", "jumps", "over", "that", "lazy", "dog", "nobody", "minds"]


def emissions(words, frames, start, seed=0, sure=6.0, pause=8):
    """Log-probabilities that say ``words`` from frame ``start`` on, in noise; and the frames of each word."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, len(ALPHABET), generator=generator)
    classes, spans, t = torch.zeros(frames, dtype=torch.int64), [], start
    for word in words:
        begin, last = t, None
        for character in word:
            t += character == last  # a blank between equal characters
            size = int(torch.randint(1, 4, (), generator=generator))
            classes[t : t + size] = ALPHABET.index(character)
            t, last = t + size, character
        spans.append((begin, t))
        t += pause
    assert t - pause <= frames
    logits[torch.arange(frames), classes] += sure
    return logits.log_softmax(-1), spans


def random_words(count, generator):
    sizes = torch.randint(3, 8, (count,), generator=generator).tolist()
    return ["".join(ALPHABET[int(k)] for k in torch.randint(1, 27, (n,), generator=generator)) for n in sizes]


def test_confidence_and_acoustic_equal_enumeration():
    torch.manual_seed(0)
    T, words, labels = 6, ["ab", "b"], [1, 2, 2]
    x = (2 * torch.randn(T, 4, dtype=torch.float64)).log_softmax(-1)
    total, inside = 0.0, torch.zeros(T, 2, dtype=torch.float64)
    best = (-math.inf, ())
    for z in product(range(4), repeat=T):
        spelt = [c for t, c in enumerate(z) if c and (t == 0 or c != z[t - 1])]
        if spelt != labels:
            continue
        place, at, last = [], -1, 0
        for c in z:
            at += bool(c) and c != last
            place.append(at if c else -1)
            last = c
        score = sum(x[t, c].item() for t, c in enumerate(z))
        best = max(best, (score, tuple(place)))
        total += math.exp(score)
        first = [t for t in range(T) if place[t] in (0, 1)]
        inside[first[0] : first[-1] + 1, 0] += math.exp(score)
        inside[[t for t in range(T) if place[t] == 2], 1] += math.exp(score)
    found = lnz.align(x, words, "_abc", seconds_per_frame=0.5)
    for k, (word, of) in enumerate(zip(found, ((0, 1), (2,)), strict=True)):
        frames = [t for t in range(T) if best[1][t] in of]
        assert (word.text, word.start, word.end) == (words[k], frames[0] / 2, (frames[-1] + 1) / 2)
        expected = inside[frames[0] : frames[-1] + 1, k].mean() / total
        assert word.confidence == pytest.approx(expected.item(), abs=1e-12)
        margins = []
        for label in of:
            at = [t for t in range(T) if best[1][t] == label]
            others = [torch.cat((x[t, : labels[label]], x[t, labels[label] + 1 :])).max() for t in at]
            margins.append(sum((x[t, labels[label]] - o).item() for t, o in zip(at, others, strict=True)) / len(at))
        assert word.acoustic == pytest.approx(sum(margins) / len(margins), abs=1e-12)


def test_a_sentence_at_20_to_22_seconds_of_25_is_found_within_50_ms():
    words = ["the", "lazy", "dog", "sleeps"]
    x, spans = emissions(words, 1250, 1000, pause=6)
    assert spans[-1][1] <= 1100
    found = lnz.align(x, words, ALPHABET, seconds_per_frame=0.02)
    for word, (begin, end) in zip(found, spans, strict=True):
        assert abs(word.start - 0.02 * begin) <= 0.05
        assert abs(word.end - 0.02 * end) <= 0.05
        assert word.confidence > 0.9
        assert word.acoustic > 2


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("where", [0, 4, len(TEXT)])
def test_a_star_moves_other_boundaries_by_a_frame_at_most(seed, where):
    x, _ = emissions(TEXT, 500, 20, seed)
    plain = lnz.align(x, TEXT, ALPHABET)
    starred = lnz.align(x, [*TEXT[:where], "*", *TEXT[where:]], ALPHABET)
    del starred[where]
    for one, other in zip(plain, starred, strict=True):
        assert abs(one.start - other.start) <= 1
        assert abs(one.end - other.end) <= 1


def test_a_star_stands_for_what_the_text_has_not():
    x, spans = emissions(TEXT, 500, 20)
    words = [*TEXT[:3], "*", *TEXT[6:]]
    found = lnz.align(x, words, ALPHABET)
    said = [spans[0], spans[1], spans[2], None, *spans[6:]]
    for word, span in zip(found, said, strict=True):
        if span is not None:
            assert abs(word.start - span[0]) <= 1
            assert abs(word.end - span[1]) <= 1
    star = found[3]
    assert spans[3][0] - 1 <= star.start < star.end <= spans[5][1] + 1
    assert math.isnan(star.acoustic)
    without = lnz.align(x, [*TEXT[:3], *TEXT[6:]], ALPHABET)  # nothing else may take these frames
    assert len(without) == len(words) - 1


def test_a_word_that_is_not_there_is_left_out_at_its_cost():
    x, spans = emissions([*TEXT[:4], *TEXT[5:]], 500, 20)
    found = lnz.align(x, TEXT, ALPHABET, skip_cost=5.0)
    assert [word.text for word in found if math.isnan(word.start)] == [TEXT[4]]
    assert found[4].confidence < 0.05
    assert math.isnan(found[4].end)
    assert math.isnan(found[4].acoustic)
    for word, span in zip([*found[:4], *found[5:]], spans, strict=True):
        assert abs(word.start - span[0]) <= 1
    costs = [math.inf] * len(TEXT)
    assert not any(math.isnan(word.start) for word in lnz.align(x, TEXT, ALPHABET, skip_cost=costs))
    costs[4] = 5.0
    assert math.isnan(lnz.align(x, TEXT, ALPHABET, skip_cost=costs)[4].start)


@pytest.mark.parametrize("sure", [4.0, 6.0])
def test_words_exchanged_are_flagged_and_others_are_not(sure):
    """A word other than the one that is said is below 0 in at least 95 %, one that is said in at most 5 %."""
    generator = torch.Generator().manual_seed(0)
    flagged, alarms, exchanged, kept = 0, 0, 0, 0
    for seed in range(40):
        words = random_words(12, generator)
        x, _ = emissions(words, 700, 20, seed, sure)
        text, others = list(words), random_words(3, generator)
        for place, other in zip((2, 5, 9), others, strict=True):
            text[place] = other
        for k, word in enumerate(lnz.align(x, text, ALPHABET)):
            below = word.acoustic < 0
            if k in (2, 5, 9):
                exchanged, flagged = exchanged + 1, flagged + below
            else:
                kept, alarms = kept + 1, alarms + below
    assert flagged >= 0.95 * exchanged
    assert alarms <= 0.05 * kept


def test_tokenizers_are_functions_mappings_or_alphabets():
    x, _ = emissions(["ab", "cd"], 60, 5)
    mapping = {c: k for k, c in enumerate(ALPHABET)}
    ways = [ALPHABET, list(ALPHABET), mapping, lambda word: [mapping[c] for c in word]]
    first, *others = [lnz.align(x, "ab cd", way) for way in ways]
    assert all(other == first for other in others)


def test_separators_belong_to_no_word():
    x = torch.full((9, 4), -8.0)
    x[torch.arange(9), torch.tensor([0, 1, 1, 3, 3, 2, 2, 0, 0])] = 0.0
    found = lnz.align(x.log_softmax(-1), "a b", "_ab|", separator=3)
    assert [(word.start, word.end) for word in found] == [(1.0, 3.0), (5.0, 7.0)]


def test_the_reference_gives_the_same():
    x, _ = emissions(TEXT[:3], 90, 5)
    words = [TEXT[0], "*", *TEXT[1:3]]
    kernel = lnz.align(x, words, ALPHABET, skip_cost=4.0)
    with backend("reference"):
        plain = lnz.align(x, words, ALPHABET, skip_cost=4.0)
    for one, other in zip(kernel, plain, strict=True):
        assert one.text == other.text
        assert one[1:] == pytest.approx(other[1:], nan_ok=True, abs=1e-9)


def test_no_words_and_words_of_one_frame():
    x, _ = emissions(["ab"], 30, 5)
    assert lnz.align(x, "", ALPHABET) == []
    (word,) = lnz.align(x[:1], "a", ALPHABET)
    assert (word.start, word.end) == (0.0, 1.0)
    assert word.confidence == pytest.approx(1.0)


X = torch.zeros(3, 4).log_softmax(-1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.zeros(2, 3, 4), "a", "_abc"), {}, r"log_probs: expected shape \[T, C\] with C > 0, got \[2, 3, 4\]"),
        ((X * torch.nan, "a", "_abc"), {}, "log_probs: 12 of 12 scores are NaN"),
        ((X, "a é", "_abc"), {}, r"words\[1\]: expected characters among '_' 'a' 'b' 'c', got 'é' in 'é'"),
        ((X, "a _", "_abc"), {}, r"words\[1\]: expected tokens that are classes in \[0, 4\) other than the blank, 0"),
        ((X, "a", lambda _: [4]), {}, r"words\[0\]: expected tokens that are classes .* got 4 in 'a'"),
        ((X, "a", lambda _: []), {}, r"words\[0\]: expected at least one token, got none of 'a'"),
        ((X, "aa bc", "_abc"), {}, "log_probs: expected at least 5 frames for 2 words, got 3"),
        (
            (X, "a", "_abc"),
            {"skip_cost": [1.0, 2.0]},
            "skip_cost: expected a number, or one for each of 1 words, got 2",
        ),
        ((X, "a", "_abc"), {"skip_cost": -1.0}, "skip_cost: expected costs of at least 0, got -1.0"),
        ((X, "a", "_abc"), {"star_cost": -1.0}, "star_cost: expected a number of at least 0, got -1.0"),
        ((X, "a", "_abc"), {"blank": 4}, r"blank: expected a class in \[0, 4\), got 4"),
        ((X, "a", "_abc"), {"seconds_per_frame": 0.0}, "seconds_per_frame: expected a positive number"),
        ((torch.full((3, 4), -torch.inf), "a", "_abc"), {}, "every alignment of the 1 words has probability 0"),
    ],
)
def test_errors_name_the_argument(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        lnz.align(*arguments, **options)


@memory.linux
@pytest.mark.slow
def test_half_an_hour_of_5000_tokens_takes_little_memory():
    """90,000 frames and 5,000 tokens: a whole lattice would be 7 GB."""
    generator = torch.Generator().manual_seed(0)
    words = random_words(1000, generator)
    x, spans = emissions(words, 90_000, 100, pause=60)
    lnz.align(x[:200], words[:1], ALPHABET, skip_cost=30.0)  # compiled
    before, start = memory.begin(), time.perf_counter()
    found = lnz.align(x, words, ALPHABET, seconds_per_frame=0.02, skip_cost=30.0)
    taken, seconds = memory.peak() - before, time.perf_counter() - start
    assert taken < 512 * 2**20
    assert seconds < 300
    for word, (start, _) in zip(found, spans, strict=True):
        assert abs(word.start - 0.02 * start) <= 0.05
