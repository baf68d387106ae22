"""When each word and each label of a text sounds: forced alignment by a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lnz import plot
from lnz.distributions import CTCAlignments
from lnz.errors import LnzError
from lnz.io.alignments import Form, Interval, write_alignment
from lnz.io.atomic import atomic_write
from lnz.io.audio import read_audio
from lnz.io.shards import Kind
from lnz.io.transcripts import Utterance
from lnz.tasks.failures import Failed, attempted
from lnz.tasks.transcribe.alphabet import BLANK, PAUSE, Unknown
from lnz.tasks.transcribe.module import TranscribeModule


@dataclass(frozen=True)
class Aligned:
    """The best alignment of a text with a recording.

    Attributes:
        text: as given.
        duration: of the recording, in seconds.
        log_prob: ln Q(text), of all alignments together.
        words: when each word sounds, from the start of its first label to the end of its last.
        characters: when each character but spaces does; ``None`` where the labels of the model are words.
    """

    text: str
    duration: float
    log_prob: float
    words: list[Interval]
    characters: list[Interval] | None

    @property
    def tiers(self) -> dict[str, list[Interval]]:
        """One or two, by their names in a TextGrid."""
        return {"words": self.words} | ({} if self.characters is None else {"characters": self.characters})


@torch.no_grad()
def align(module: TranscribeModule, waveform: Tensor, text: str, name: str, unknown: Unknown = "error") -> Aligned:
    """Align ``text`` with ``waveform`` ``[N]``.

    A frame of the network stands for the time around its centre, half a frame to either side. The confidence of an
    interval is the mean, over its frames, of the probability, given the text, of what the best alignment has there.
    Where ``unknown`` labels are left out, they and words of nothing else have no interval; where they are stars, any
    label may sound in their place.

    Raises:
        FormatError: the text has a label that the model does not know; ``name`` is told.
        LnzError: the recording is too short for the text; ``name`` is told.
    """
    spelling = module.alphabet.spell(text, name, unknown)
    target, seconds = spelling.classes[None].to(module.device), len(waveform) / module.sample_rate
    p = module(waveform[None].to(module.device))
    needed, frames = module.needed(spelling.classes), int(p.lengths)
    if needed.frames > frames:
        have = f"{seconds:.2f} s, {frames} frames of the model"
        raise LnzError(f"{name}: {needed}, do not fit into {have}: they need {needed.frames}")
    log_probs = with_stars(p.logits.log_softmax(-1))
    scores = log_probs if p.log_prior is None else with_stars(p.logits.log_softmax(-1) - p.log_prior)
    alignments, q = (CTCAlignments(x, target, None, p.lengths, BLANK) for x in (scores, log_probs))
    if alignments.log_partition.isneginf():
        raise LnzError(f"{name}: every alignment has probability 0 under the model")
    z = alignments.argmax()
    spans = alignments.spans(z)[0].cpu()
    certainty = alignments.marginals[0].gather(-1, z[0, :, None])[:, 0].cpu()

    def interval(label: str, first: int, last: int) -> Interval:
        """From the start of label ``first`` to the end of label ``last`` of the target."""
        start, end = int(spans[first, 0]), int(spans[last, 1])
        begins, stops = (min(max((k - 0.5) * module.seconds_per_frame, 0.0), seconds) for k in (start, end))
        return Interval(begins, stops, label, float(certainty[start:end].mean()))

    words = [interval(word, first, last - 1) for word, first, last in spelling.words]
    characters = None
    if module.alphabet.units == "characters":
        characters = [interval(label, k, k) for k, label in enumerate(spelling.labels) if label != PAUSE]
    return Aligned(text, seconds, float(q.log_partition), words, characters)  # Q without the prior


def with_stars(log_probs: Tensor) -> Tensor:
    """Two classes more behind those of ``log_probs`` ``[*, T, C]``: any of the labels, blank apart."""
    star = log_probs[..., BLANK + 1 :].logsumexp(-1, keepdim=True)
    return torch.cat((log_probs, star, star), -1)


class Aligner:
    """Aligns recordings with their texts, one by one.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        unknown: what becomes of labels that the network was not trained on.

    Raises:
        FormatError: a checkpoint of another task or version.
    """

    columns: ClassVar[Mapping[str, Kind]] = {
        "text": "text",
        "duration": "number",
        "seconds_per_frame": "number",
        "log_prob": "number",
        "words": "intervals",
        "characters": "intervals",
    }

    def __init__(self, checkpoint: Mapping[str, Any], source: str, unknown: Unknown = "error") -> None:
        self.module = TranscribeModule.from_checkpoint(checkpoint, source)
        self.unknown: Unknown = unknown

    def __call__(self, utterance: Utterance) -> tuple[Aligned, Tensor]:
        """The alignment of a recording, and its samples.

        Raises:
            LnzError: the recording cannot be read or is too short for its text, or the text has unknown labels.
        """
        waveform, _ = read_audio(utterance.audio, self.module.sample_rate)
        return align(self.module, waveform, utterance.text, str(utterance.audio), self.unknown), waveform

    def about(self, aligned: Aligned) -> dict[str, Any]:
        """What is told beside the intervals."""
        return {
            "text": aligned.text,
            "duration": aligned.duration,
            "seconds_per_frame": self.module.seconds_per_frame,
            "log_prob": aligned.log_prob,
        }

    def rows(self, items: Sequence[Utterance]) -> Iterator[dict[str, Any] | Failed]:
        return attempted(items, self._row)

    def _row(self, utterance: Utterance) -> dict[str, Any]:
        aligned, _ = self(utterance)
        tiers = {name: [interval._asdict() for interval in tier] for name, tier in aligned.tiers.items()}
        return {**self.about(aligned), **tiers}


def align_files(
    checkpoint: Mapping[str, Any],
    source: str,
    utterances: Iterable[Utterance],
    output: Path,
    form: Form = "both",
    picture: bool = False,
    unknown: Unknown = "error",
    strict: bool = False,
) -> Iterator[Aligned | Failed]:
    """Write the alignment of each recording, ``<name>.TextGrid``, ``.json`` and so on; yields each when done.

    A recording that is unreadable or too short for its text, or a text with unknown labels, is yielded as a failure.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        utterances: recordings with their texts.
        output: an existing folder.
        form: of the files.
        picture: whether to draw each alignment over its spectrogram.
        unknown: what becomes of labels that the network was not trained on.
        strict: raise at the first failure instead.

    Raises:
        FormatError: a checkpoint of another task or version.
        OSError: the output cannot be written.
    """
    aligner = Aligner(checkpoint, source, unknown)

    def work(utterance: Utterance) -> Aligned:
        aligned, waveform = aligner(utterance)
        about = {"audio": utterance.audio.name, **aligner.about(aligned)}
        write_alignment(output, utterance.name, form, about, aligned.tiers)
        if picture:
            with atomic_write(output / f"{utterance.name}.png", "wb") as file:
                file.write(plot.png(drawn(aligner.module, [(utterance.name, waveform, aligned.tiers)])))
        return aligned

    yield from attempted(utterances, work, strict)


@torch.no_grad()
def drawn(module: TranscribeModule, recordings: Iterable[tuple[str, Tensor, Mapping[str, list[Interval]]]]) -> Figure:
    """Each recording's log-mel spectrogram with tiers of intervals below."""
    spectrograms, seconds, tiers, titles = [], [], [], []
    for title, waveform, of in recordings:
        features, _ = module.features(waveform[None].to(module.device))
        spectrograms.append(features[0].cpu())
        seconds.append(len(waveform) / module.sample_rate)
        tiers.append(of)
        titles.append(title)
    return plot.alignment(spectrograms, seconds, tiers, titles)
