"""What a trained model is judged by: error rates of two decoders, and how far forced alignments are off."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.text import char_error_rate, word_error_rate

from lnz.io.alignments import Interval
from lnz.tasks.transcribe.align import align
from lnz.tasks.transcribe.data import Recording
from lnz.tasks.transcribe.module import TranscribeModule

NEAR = (20, 50, 100)
"""Milliseconds; the share of bounds that are no further off is told."""


@torch.no_grad()
def transcribe(module: TranscribeModule, waveform: Tensor, beam: int | None = None) -> str:
    """The text of a waveform ``[N]``, by the best class of each frame, or by prefix beam search."""
    p = module(waveform[None].to(module.device))
    return module.alphabet.decode((p.greedy() if beam is None else p.decode(beam))[0])


def error_rates(module: TranscribeModule, recordings: Sequence[Recording]) -> dict[str, dict[str, float]]:
    """Per decoder, "greedy" and "beam": the errors per character and per word of all texts together.

    Insertions, deletions and substitutions, over the number in the transcripts; and the share of texts that are wrong.
    """
    gold = [recording.text for recording in recordings]
    rates = {}
    for name, beam in (("greedy", None), ("beam", module.beam)):
        found = [transcribe(module, recording.load(module.sample_rate), beam) for recording in recordings]
        wrong = sum(a != b for a, b in zip(found, gold, strict=True)) / len(gold)
        rates[name] = {
            "cer": float(char_error_rate(found, gold)),
            "wer": float(word_error_rate(found, gold)),
            "texts": wrong,
        }
    return rates


def alignment_errors(module: TranscribeModule, recordings: Iterable[Recording]) -> dict[str, float]:
    """How far the bounds of words are from where they are known to be, in milliseconds; empty where none is known."""
    starts, ends = [], []
    for recording in recordings:
        if recording.gold:
            found = align(module, recording.load(module.sample_rate), recording.text, recording.name).words
            starts += [1000 * (a.start - b.start) for a, b in zip(found, recording.gold, strict=True)]
            ends += [1000 * (a.end - b.end) for a, b in zip(found, recording.gold, strict=True)]
    return distances(starts, ends)


def distances(starts: Sequence[float], ends: Sequence[float]) -> dict[str, float]:
    """Of signed errors of starts and ends: medians, mean distance, and the share within each of :data:`NEAR`."""
    if not starts:
        return {}
    off = [abs(error) for error in (*starts, *ends)]
    near = {f"within_{ms}": statistics.fmean(distance <= ms for distance in off) for ms in NEAR}
    return {
        "words": float(len(starts)),
        "start_median": statistics.median(starts),
        "end_median": statistics.median(ends),
        "mean": statistics.fmean(off),
        "median": statistics.median(off),
        **near,
    }


def gold_tiers(found: dict[str, list[Interval]], recording: Recording) -> dict[str, list[Interval]]:
    """The tiers of an alignment, and what is known, if it is."""
    return {**found, **({"known": recording.gold} if recording.gold else {})}
