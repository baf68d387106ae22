"""What a finished run shows: error rates of both decoders, how far alignments are off, and a picture of some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz import plot
from lnz.tasks.page import Page, Row, mean_and_spread
from lnz.tasks.transcribe.judge import NEAR

LOSS = "−ln Q per label, without prior"
TITLES = {"cer": "CER %", "wer": "WER %", "texts": "wrong texts %"}
NOTES = (
    "CER and WER are insertions, deletions and substitutions over "
    "the number of characters and of words in the transcripts. Greedy: the best class of each frame; beam: prefix beam "
    "search."
)


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON.

    Attributes:
        seed: what all was drawn from.
        measures: per decoder ("greedy", "beam"), the numbers of :data:`TITLES`.
        alignment: what :func:`~lnz.tasks.transcribe.judge.distances` says; empty where no bounds are known.
        recordings: how many there are for training and validation.
        left_out: how many of the former are too short for their transcripts.
        prior_scale: of the label prior.
        resolution: seconds per frame of the network.
        beam: the width of the beam.
        seconds: of training.
        history: the logged values of each epoch.
    """

    seed: int
    measures: dict[str, dict[str, float]]
    alignment: dict[str, float]
    recordings: list[int]
    left_out: int
    prior_scale: float
    resolution: float
    beam: int
    seconds: float
    history: list[dict[str, float]]


def summary(results: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Per decoder and measure, mean and standard deviation over seeds."""
    return {
        decoder: {key: mean_and_spread([result.measures[decoder][key] for result in results]) for key in TITLES}
        for decoder in ("greedy", "beam")
    }


def rows_of(results: Sequence[Result]) -> list[Row]:
    """The table's rows, as they are shown."""
    names = {"greedy": "greedy", "beam": f"beam of {results[0].beam}"}
    return [
        Row(names[decoder], [_shown(*value) for value in cells.values()], decoder == "beam")
        for decoder, cells in summary(results).items()
    ]


def alignment_lines(results: Sequence[Result]) -> list[str]:
    """Per seed, how far forced alignments are off, in words."""
    lines = []
    for result in results:
        of = result.alignment
        if of:
            near = ", ".join(f"{100 * of[f'within_{ms}']:.1f} % within {ms} ms" for ms in NEAR)
            lines.append(
                f"Seed {result.seed}: bounds of {of['words']:.0f} words, forced alignment with label prior "
                f"{result.prior_scale:g}: {of['mean']:.0f} ms off on average, median {of['median']:.0f} ms, {near}; "
                f"starts {of['start_median']:+.0f} ms, ends {of['end_median']:+.0f} ms (medians; + is late). "
                f"Frames are {1000 * result.resolution:g} ms."
            )
        if result.left_out:
            lines.append(
                f"Seed {result.seed}: {result.left_out} training recordings are too short for their transcripts, and "
                "were left out."
            )
    return lines


def caption(results: Sequence[Result], about: str = "") -> str:
    """What was judged and how; ``about`` says on what data, by default the validation recordings of the run."""
    seeds = ", ".join(str(result.seed) for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    train, val = results[0].recordings
    seconds = sum(result.seconds for result in results)
    if about:
        return f"Seed {seeds}{spread}. {about}. {NOTES}"
    run = f"{train} recordings for training, {val} for validation. {seconds:.0f} s."
    return f"Seed {seeds}{spread}. {run} Validation recordings, weights of the last epoch. {NOTES}"


def table(results: Sequence[Result], about: str = "") -> Table:
    """The table for a terminal."""
    text = "\n".join((caption(results, about), *alignment_lines(results)))
    shown = Table(title="Transcription", caption=text, caption_justify="left")
    for column, heading in enumerate(("", *TITLES.values())):
        shown.add_column(heading, justify="right" if column else "left")
    for row in rows_of(results):
        shown.add_row(row.name, *row.cells, style="bold" if row.strong else None)
    return shown


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    losses = {
        f"{result.seed} {name}": _points(result, f"{part}/loss")
        for result in results
        for part, name in (("train", "training"), ("val", "validation"))
    }
    errors = {
        f"{result.seed} {name.upper()}": _points(result, f"val/{name}") for result in results for name in ("cer", "wer")
    }
    return Page(
        title="lnz fit transcribe",
        headings=list(TITLES.values()),
        rows=rows_of(results),
        notes=[caption(results), *alignment_lines(results)],
        picture=picture,
        picture_says="spectrograms of validation recordings with forced alignments below, and the known bounds if any",
        charts=[
            plot.png(plot.curves(losses, "−ln Q per label, without prior")),
            plot.png(plot.curves(errors, "errors, greedy")),
        ],
        config=config,
        about=about,
    ).html()


def _points(result: Result, key: str) -> list[tuple[float, float]]:
    return [(p["epoch"], p[key]) for p in result.history if math.isfinite(p.get(key, math.nan))]


def _shown(mean: float, spread: float) -> str:
    text = f"{100 * mean:.2f}"
    return text if math.isnan(spread) else f"{text} ± {100 * spread:.2f}"
