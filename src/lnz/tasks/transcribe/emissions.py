"""Alignments by anybody's network: from files of log-probabilities, or from a CTC model of Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lnz.errors import FormatError, InfeasibleError
from lnz.io.alignments import Form, Interval, write_alignment
from lnz.io.audio import read_audio
from lnz.io.emissions import BLANKS, SEPARATORS, read_emissions, read_tokens, read_words
from lnz.io.shards import Kind
from lnz.io.transcripts import Utterance
from lnz.nn.word_alignment import Tokenizer, Word, align, tokens_of
from lnz.tasks.failures import Failed, attempted

WINDOW, CONTEXT = 30.0, 5.0
"""Seconds that a pretrained network hears at a time, and those at either side that only inform the others."""


@dataclass(frozen=True)
class Costs:
    """What :func:`lnz.align` takes for stars and for words that are left out."""

    star: str = "*"
    star_cost: float = 1.0
    skip_cost: float | None = None


@dataclass(frozen=True)
class Classes:
    """What the classes of a network stand for.

    Attributes:
        tokenizer: from a word to classes.
        blank: its class.
        separator: the class between words, or ``None``.
    """

    tokenizer: Tokenizer
    blank: int
    separator: int | None

    @classmethod
    def of(cls, tokens: Sequence[str], source: Path, blank: str | None, separator: str | None) -> Classes:
        """By the names of classes; those of blank and separator are looked for where they are not given.

        A word that is the name of a class is that class; of others, each character is.
        """
        places = {token: k for k, token in enumerate(tokens)}
        for option, name in (("--blank", blank), ("--separator", separator)):
            if name and name not in places:
                raise FormatError(f"{source}: {option}: expected one of its tokens, got {name!r}")
        blank = blank or next((name for name in BLANKS if name in places), None)
        if blank is None:
            raise FormatError(f"{source}: none of its tokens is {', '.join(BLANKS)}; say by --blank which is the blank")
        if separator is None:
            separator = next((name for name in SEPARATORS if name in places), "")
        return cls(_by_name(places), places[blank], places.get(separator))


def _by_name(places: Mapping[str, int]) -> Callable[[str], Sequence[int]]:
    def tokenizer(word: str) -> list[int]:
        if word in places:
            return [places[word]]
        for character in word:
            if character not in places:
                raise ValueError(f"expected characters among the tokens, got {character!r} in {word!r}")
        return [places[character] for character in word]

    return tokenizer


def align_emissions(
    emissions: Path,
    tokens: Path,
    text: Path,
    output: Path,
    form: Form,
    seconds_per_frame: float,
    costs: Costs,
    blank: str | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> list[Word]:
    """Write the alignment of a text with a file of emissions, named as that; scores are normalised first.

    Raises:
        FormatError: naming the file, and the line: what cannot be read, or has tokens that the network has not.
        InfeasibleError: too few frames for the text.
    """
    names, log_probs = read_tokens(tokens), read_emissions(emissions).log_softmax(-1)
    if len(names) != log_probs.shape[1]:
        raise FormatError(f"{tokens}: expected {log_probs.shape[1]} tokens, as {emissions} has, got {len(names)}")
    words = read_words(text, encoding)
    lines = [f"{text}, line {line}" for _, line in words]
    classes = Classes.of(names, tokens, blank, separator)
    spoken = [word for word, _ in words]
    aligned = _aligned(emissions, log_probs, spoken, lines, classes, seconds_per_frame, costs)
    aligned.write(output, form)
    return aligned.found


def align_with_pretrained(
    pretrained: Path, utterances: Iterable[Utterance], output: Path, form: Form, costs: Costs, strict: bool = False
) -> Iterator[list[Word] | Failed]:
    """Write the alignment of each recording by a CTC model in a folder, as ``transformers`` saves it.

    Raises:
        FormatError: the folder has no such model.
        ImportError: transformers is not installed.
    """
    aligner = PretrainedAligner(pretrained, costs)

    def work(utterance: Utterance) -> list[Word]:
        aligned = aligner(utterance)
        aligned.write(output, form)
        return aligned.found

    yield from attempted(utterances, work, strict)


def emissions_of(waveform: Tensor, rate: int, ratio: int, network: Callable[[Tensor], Tensor]) -> Tensor:
    """Scores of a recording ``[N]`` of any length, window by window, ``[T, C]``.

    Args:
        waveform: samples.
        rate: of them, per second.
        ratio: samples per frame of the network.
        network: from samples ``[n]`` to scores ``[about n / ratio, C]``.
    """
    window, context = (int(seconds * rate) // ratio for seconds in (WINDOW, CONTEXT))
    parts, at = [], 0
    while True:
        begin = max(0, at - context)
        scores = network(waveform[begin * ratio : (begin + window) * ratio])
        last = (begin + window) * ratio >= len(waveform)
        kept = scores[at - begin : None if last else window - context]
        parts.append(kept)
        at += len(kept)
        if last or not len(kept):
            return torch.cat(parts)


@dataclass(frozen=True)
class AlignedWords:
    """The words of a text, aligned.

    Attributes:
        source: the file of sound or of emissions.
        text: the words, with blanks between.
        found: where each was found; those that are left out have no times.
        frames: of the network.
        seconds_per_frame: of these.
    """

    source: Path
    text: str
    found: list[Word]
    frames: int
    seconds_per_frame: float

    @property
    def about(self) -> dict[str, Any]:
        """What is told beside the intervals."""
        seconds = {"duration": self.frames * self.seconds_per_frame, "seconds_per_frame": self.seconds_per_frame}
        return {"text": self.text, **seconds}

    @property
    def left_out(self) -> list[int]:
        """The numbers of words that are left out."""
        return [k for k, word in enumerate(self.found) if math.isnan(word.start)]

    @property
    def spoken(self) -> list[Interval]:
        there = (word for word in self.found if not math.isnan(word.start))
        return [Interval(w.start, w.end, w.text, w.confidence, w.acoustic) for w in there]

    def write(self, output: Path, form: Form) -> None:
        """Write files named as the source."""
        words, found = self.text.split(" "), self.found
        left_out = [{"label": words[k], "index": k, "confidence": found[k].confidence} for k in self.left_out]
        about = {"source": self.source.name, **self.about, "left_out": left_out}
        write_alignment(output, self.source.stem, form, about, {"words": self.spoken})


class PretrainedAligner:
    """Aligns recordings with their texts, one by one, by a CTC model that ``transformers`` saved in a folder.

    Raises:
        FormatError: the folder has no such model.
        ImportError: transformers is not installed.
    """

    columns: ClassVar[Mapping[str, Kind]] = {
        "text": "text",
        "duration": "number",
        "seconds_per_frame": "number",
        "words": "intervals",
        "left_out": "integers",
    }

    def __init__(self, folder: Path, costs: Costs, device: str = "cpu") -> None:
        model, self.features, self.classes = _pretrained(folder)
        self.model, self.costs = model.to(device), costs

    def __call__(self, utterance: Utterance) -> AlignedWords:
        """The alignment of a recording.

        Raises:
            LnzError: the recording cannot be read or is too short for its text, or the text has unknown characters.
        """
        rate, ratio = self.features.sampling_rate, self.model.config.inputs_to_logits_ratio
        waveform, _ = read_audio(utterance.audio, rate)
        words = utterance.text.split()
        log_probs = emissions_of(waveform, rate, ratio, self._logits).log_softmax(-1)
        places = [str(utterance.audio)] * len(words)
        return _aligned(utterance.audio, log_probs, words, places, self.classes, ratio / rate, self.costs)

    def rows(self, items: Sequence[Utterance]) -> Iterator[dict[str, Any] | Failed]:
        return attempted(items, self._row)

    def _row(self, utterance: Utterance) -> dict[str, Any]:
        aligned = self(utterance)
        return {**aligned.about, "words": [each._asdict() for each in aligned.spoken], "left_out": aligned.left_out}

    @torch.no_grad()
    def _logits(self, waveform: Tensor) -> Tensor:
        inputs = self.features(waveform.numpy(), sampling_rate=self.features.sampling_rate, return_tensors="pt")
        return self.model(**inputs.to(self.model.device)).logits[0].cpu()


def _aligned(
    source: Path,
    log_probs: Tensor,
    words: list[str],
    places: list[str],
    classes: Classes,
    seconds_per_frame: float,
    costs: Costs,
) -> AlignedWords:
    """Align words, each of a place in a file."""
    for word, place in zip(words, places, strict=True):
        if word != costs.star:
            try:
                tokens_of(word, classes.tokenizer, log_probs.shape[1], classes.blank, place)
            except ValueError as error:
                raise FormatError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from error
    options = {"seconds_per_frame": seconds_per_frame, "blank": classes.blank, "separator": classes.separator}
    options |= {"star": costs.star, "star_cost": costs.star_cost, "skip_cost": costs.skip_cost}
    try:
        found = align(log_probs, words, classes.tokenizer, **options)
    except InfeasibleError as error:
        raise InfeasibleError(f"{source}: {str(error).removeprefix('log_probs: ')}") from error
    return AlignedWords(source, " ".join(words), found, len(log_probs), seconds_per_frame)


def _pretrained(folder: Path) -> tuple[Any, Any, Classes]:
    """A CTC model, what makes its input, and its classes."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError("--hf-model needs transformers: pip install 'lnz[transformers]'") from error
    transformers.utils.logging.set_verbosity_error()
    if not folder.is_dir():
        raise FormatError(
            f"--hf-model: expected a folder, found {'a file' if folder.exists() else 'nothing'}: {folder}"
        )
    try:
        options = {"local_files_only": True}
        features = transformers.AutoFeatureExtractor.from_pretrained(folder, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model = transformers.AutoModelForCTC.from_pretrained(folder, dtype=torch.float32, **options).eval()
        model.config.inputs_to_logits_ratio  # noqa: B018  of models that read samples
    except (OSError, ValueError, KeyError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise FormatError(f"--hf-model: cannot load a CTC model from {folder} ({reason})") from error
    separator = getattr(tokenizer, "word_delimiter_token_id", None)

    def spelling(word: str) -> list[int]:
        tokens = tokenizer(word, add_special_tokens=False).input_ids
        if tokenizer.unk_token_id in tokens:
            raise ValueError(f"expected characters that the tokenizer has, got others in {word!r}")
        return tokens

    return model, features, Classes(spelling, tokenizer.pad_token_id, separator)
