"""When each word of a text sounds, by the log-probabilities of any CTC network; and whether it sounds at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.checks import check_number, check_positive, check_scores, numbers
from lnz.distributions.ctc_targets import check_blank
from lnz.errors import InfeasibleError
from lnz.ops import ctc

Tokenizer = Callable[[str], Sequence[int]] | Mapping[str, int] | Sequence[str]
"""From a word to its classes: a function; the class of each character; or the characters in the order of classes."""


class Word(NamedTuple):
    """A word and when it sounds.

    Attributes:
        text: as given.
        start: of its first frame, in seconds; NaN where the word is left out.
        end: of its last frame, in seconds; NaN where the word is left out.
        confidence: the probability, under the distribution of all alignments, of being within the word, on average over
            its frames: how sure the *times* are, given that the text is right. Of a word that is left out, the
            probability that it is not.
        acoustic: in nats, how far the word's tokens are above the best other class: the mean over its tokens of the
            mean over their frames. Below 0 the frames rather say something else: the word may not be there. NaN of
            stars and of words that are left out.
    """

    text: str
    start: float
    end: float
    confidence: float
    acoustic: float


def align(
    log_probs: Tensor,
    words: Sequence[str] | str,
    tokenizer: Tokenizer,
    *,
    seconds_per_frame: float = 1.0,
    blank: int = 0,
    separator: int | None = None,
    star: str | None = "*",
    star_cost: float = 1.0,
    skip_cost: float | Sequence[float] | None = None,
) -> list[Word]:
    """Align a text with the log-probabilities of a CTC network: a :class:`Word` for each word, in order.

    The best alignment gives the times, the distribution of all alignments the confidences; both exactly. Silence
    between words belongs to no word. O(T (S + C)) time, and O(S √T) memory beside ``log_probs``: hours at a time.

    Args:
        log_probs: ``[T, C]`` of the classes at each frame, the blank among them.
        words: or a text, which is split at blanks.
        tokenizer: from a word to its classes: a function; a mapping from characters to classes; or the characters in
            the order of the classes, as ``"_abc"``.
        seconds_per_frame: frame t lasts from t to t + 1 times this.
        blank: the class of blank.
        separator: a class between words, such as that of ``|``; ``None`` for none.
        star: the word in whose place anything, or nothing, may be said; ``None`` for none.
        star_cost: what each frame of a star takes off the score, in nats: a star takes the frames of which blanks and
            the words around have a probability below exp −star_cost.
        skip_cost: what leaving out a word takes off the score, in nats: a number, or one for each word (``inf``:
            never); ``None``: no word is left out. A word is left out in a blank, of a frame at least.

    Raises:
        InfeasibleError: too few frames for the words, or a probability of 0 for every alignment.
        TypeError, ValueError: arguments of the wrong type, shape or value; a word with characters that the tokenizer
            does not have, or without any token.
    """
    check_scores("log_probs", log_probs)
    if log_probs.dim() != 2 or log_probs.shape[1] == 0:
        raise ValueError(f"log_probs: expected shape [T, C] with C > 0, got {list(log_probs.shape)}")
    check_blank(blank, log_probs.shape[1], optional=False)
    check_positive("seconds_per_frame", seconds_per_frame)
    check_number("star_cost", star_cost, "a number of at least 0", lambda cost: 0 <= cost < math.inf)
    words = words.split() if isinstance(words, str) else list(words)
    is_star = [star is not None and word == star for word in words]
    costs = _costs(skip_cost, len(words))
    costs[torch.tensor(is_star, dtype=torch.bool)] = 0.0
    if not words:
        return []
    (_, C), spelt = log_probs.shape, []
    for k, word in enumerate(words):
        spelt.append([C] if is_star[k] else tokens_of(word, tokenizer, C, blank, f"words[{k}]"))
    scores = log_probs.detach()
    if any(is_star):  # a class more, of frames that may say anything
        scores = torch.cat((scores, scores.logsumexp(-1, keepdim=True) - star_cost), -1)
    labels, text = _written(spelt, separator, costs)
    of = ctc.lattice(labels, torch.tensor([len(scores)]), torch.tensor([labels.shape[1]]), blank, True)
    of, text = _on(scores.device, of), _on(scores.device, text)
    states, score = ctc.best_states(scores[None], of, text)
    if score == -math.inf:
        raise _impossible(len(scores), len(words), of, costs)
    return _read(words, is_star, scores, states, of, text, seconds_per_frame)


def tokens_of(word: str, tokenizer: Tokenizer, num_classes: int, blank: int, name: str) -> list[int]:
    """The classes of a word; raises where it has none, or others than there are; ``name`` says whose word it is."""
    if callable(tokenizer):
        tokens = [int(token) for token in tokenizer(word)]
    else:
        classes = tokenizer if isinstance(tokenizer, Mapping) else {c: k for k, c in enumerate(tokenizer)}
        for character in word:
            if character not in classes:
                known = " ".join(map(repr, list(classes)[:40])) + (" …" if len(classes) > 40 else "")
                raise ValueError(f"{name}: expected characters among {known}, got {character!r} in {word!r}")
        tokens = [classes[character] for character in word]
    if not tokens:
        raise ValueError(f"{name}: expected at least one token, got none of {word!r}")
    for token in tokens:
        if not 0 <= token < num_classes or token == blank:
            expected = f"classes in [0, {num_classes}) other than the blank, {blank}"
            raise ValueError(f"{name}: expected tokens that are {expected}, got {token} in {word!r}")
    return tokens


def _costs(skip_cost: float | Sequence[float] | None, count: int) -> Tensor:
    if skip_cost is None:
        return torch.full((count,), math.inf, dtype=torch.float64)
    single = isinstance(skip_cost, int | float)
    costs = (float(skip_cost),) * count if single else numbers("skip_cost", skip_cost)
    if len(costs) != count:
        raise ValueError(f"skip_cost: expected a number, or one for each of {count} words, got {len(costs)}")
    for cost in costs:
        check_number("skip_cost", cost, "costs of at least 0", lambda cost: cost >= 0)
    return torch.tensor(costs, dtype=torch.float64)


def _written(spelt: list[list[int]], separator: int | None, costs: Tensor) -> tuple[Tensor, ctc.Words]:
    """The labels ``[1, S]`` of words, separators between them, and where each word begins and ends."""
    labels, begins, ends = [], [], []
    for tokens in spelt:
        if labels and separator is not None:
            labels.append(separator)
        begins.append(len(labels))
        labels.extend(tokens)
        ends.append(len(labels))
    bounds = torch.tensor([*begins, len(labels)]), torch.tensor(ends)
    return torch.tensor([labels]), ctc.Words(*bounds, costs)


def _on(device: torch.device, parts: Any) -> Any:
    return parts.__class__(*(x.to(device) if isinstance(x, Tensor) else x for x in parts))


def _impossible(frames: int, words: int, of: ctc.Lattice, costs: Tensor) -> InfeasibleError:
    needed = int(ctc.frames_needed(of))
    if frames < needed and costs.isinf().all():
        return InfeasibleError(f"log_probs: expected at least {needed} frames for {words} words, got {frames}")
    return InfeasibleError(f"log_probs: every alignment of the {words} words has probability 0 in {frames} frames")


def _read(
    words: list[str],
    is_star: list[bool],
    scores: Tensor,
    states: Tensor,
    of: ctc.Lattice,
    text: ctc.Words,
    seconds_per_frame: float,
) -> list[Word]:
    """What the best alignment and the posteriors say of each word."""
    T, S = len(states), of.labels.shape[1]
    frames, place = torch.arange(T, device=states.device), states // 2
    spoken = states % 2 == 1
    place, at = place[spoken], frames[spoken]
    starts = torch.full((S,), T, device=at.device).scatter_reduce(0, place, at, "amin")
    stops = torch.zeros(S, dtype=torch.int64, device=at.device).scatter_reduce(0, place, at + 1, "amax")
    starts, stops = starts[text.begins[:-1]], stops[text.ends - 1]
    asked = torch.full((T,), -1, device=at.device)
    for w, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        asked[start:stop] = w  # nothing of a word that is left out
    posteriors = ctc.word_posteriors(scores[None], of, text, asked)
    sums = torch.cat((posteriors.within.new_zeros(1), posteriors.within.cumsum(0)))
    confidence = (sums[stops] - sums[starts.clamp(max=T)]) / (stops - starts)
    acoustic = _acoustic(scores[:, :-1] if any(is_star) else scores, place, at, of, text)
    found = []
    columns = (starts, stops, confidence, acoustic, 1 - posteriors.left_out)
    for k, (start, stop, sure, heard, said) in enumerate(zip(*(x.tolist() for x in columns), strict=True)):
        if stop == 0:
            found.append(Word(words[k], math.nan, math.nan, max(0.0, said), math.nan))
            continue
        times = start * seconds_per_frame, stop * seconds_per_frame
        found.append(Word(words[k], *times, min(1.0, sure), math.nan if is_star[k] else heard))
    return found


def _acoustic(scores: Tensor, place: Tensor, at: Tensor, of: ctc.Lattice, text: ctc.Words) -> Tensor:
    """Of each word, the mean over its tokens of their mean margin over the best other class, ``[W]``.

    ``place`` and ``at`` ``[n]`` are tokens of the text and the frames in which the best alignment has them.
    """
    S, C = of.labels.shape[1], scores.shape[1]
    top, which = scores.topk(min(2, C), -1)
    own = of.labels[0][place].clamp(max=C - 1)  # of stars no answer is given
    other = torch.where(which[at, 0] == own, top[at, -1], top[at, 0])
    margin = (scores[at, own] - other).double()
    total = margin.new_zeros(S).index_add(0, place, margin)
    token = total / torch.bincount(place, minlength=S).clamp(min=1)
    word = torch.repeat_interleave(torch.arange(len(text.ends), device=at.device), text.ends - text.begins[:-1])
    within = torch.arange(S, device=at.device)
    within = within[within < text.ends[torch.searchsorted(text.begins, within, right=True) - 1]]
    sums = token.new_zeros(len(text.ends)).index_add(0, word, token[within])
    return sums / (text.ends - text.begins[:-1])
