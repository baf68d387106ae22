"""Which stretch of a recording says what: Praat's TextGrid, through praatio, JSON, SRT and CTM."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write

Form = Literal["textgrid", "json", "both", "srt", "ctm"]
"""Of files of alignments; ``both`` is the first two."""


class Interval(NamedTuple):
    """A label and the seconds from and to which it lasts; and how probable that is, frame by frame on average.

    ``acoustic`` is how far the label is above what else may sound there (:class:`lnz.nn.Word`), NaN where not known.
    """

    start: float
    end: float
    label: str
    confidence: float = math.nan
    acoustic: float = math.nan


Tiers = Mapping[str, Sequence[Interval]]
"""Intervals by the name of their tier, in order of time; within a tier they do not overlap."""


def write_alignment(folder: Path, name: str, form: Form, about: Mapping[str, Any], tiers: Tiers) -> None:
    """Write ``name`` with the ending of ``form`` into a folder: ``about["duration"]`` seconds of tiers.

    SRT and CTM have the intervals of the first tier alone.
    """
    if form not in get_args(Form):
        raise ValueError(f"form: expected one of {', '.join(get_args(Form))}, got {form!r}")
    if form in ("textgrid", "both"):
        write_textgrid(folder / f"{name}.TextGrid", about["duration"], tiers)
    if form in ("json", "both"):
        write_json(folder / f"{name}.json", about, tiers)
    first = next(iter(tiers.values()))
    if form == "srt":
        write_srt(folder / f"{name}.srt", first)
    if form == "ctm":
        write_ctm(folder / f"{name}.ctm", name, first)


def write_textgrid(path: Path, duration: float, tiers: Tiers) -> None:
    """Write tiers as a TextGrid in Praat's long form, with empty intervals where nothing is said.

    Args:
        path: the file, replaced in one step.
        duration: seconds of the recording.
        tiers: their intervals have start < end and a label that is not blank; confidences are left out.
    """
    from praatio.utilities import textgrid_io

    content: dict[str, Any] = {"xmin": 0.0, "xmax": duration, "tiers": []}
    for name, intervals in tiers.items():
        entries = [(interval.start, interval.end, interval.label) for interval in intervals]
        tier = {"class": "IntervalTier", "name": name, "xmin": 0.0, "xmax": duration, "entries": entries}
        content["tiers"].append(tier)
    with atomic_write(path) as file:
        file.write(textgrid_io.getTextgridAsStr(content, "long_textgrid", includeBlankSpaces=True))


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """The interval tiers of a TextGrid, without empty intervals.

    Raises:
        FormatError: the file is missing, truncated or no TextGrid.
    """
    from praatio import textgrid

    if not path.is_file():
        raise FormatError(f"{path}: expected a TextGrid, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="error")
        tiers = grid.tiers
    except Exception as error:  # whatever its parser runs into: a text that ends too soon is an IndexError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(f"{path}: cannot be read as a TextGrid ({reason})") from error
    if not tiers:
        raise FormatError(f"{path}: expected a TextGrid with tiers, got none")
    read = {
        tier.name: [Interval(float(start), float(end), label) for start, end, label in map(tuple, tier.entries)]
        for tier in tiers
        if isinstance(tier, textgrid.IntervalTier)
    }
    for name, intervals in read.items():
        for interval in intervals:
            if not -math.inf < interval.start < interval.end < math.inf:
                bounds = f"{interval.start} to {interval.end}"
                raise FormatError(f"{path}: expected intervals with start < end in tier {name!r}, got {bounds}")
    return read


def write_json(path: Path, about: Mapping[str, Any], tiers: Tiers) -> None:
    """Write one object: what ``about`` says, and per tier a list of ``{"label", "start", "end", "confidence"}``.

    And ``"acoustic"``; numbers that are NaN are left out.
    """

    def known(interval: Interval) -> dict[str, Any]:
        entry = interval._asdict()
        return {key: value for key, value in entry.items() if key == "label" or not math.isnan(value)}

    listed = {name: list(map(known, intervals)) for name, intervals in tiers.items()}
    with atomic_write(path) as file:
        json.dump({**about, **listed}, file, indent=1, ensure_ascii=False)
        file.write("\n")


def write_srt(path: Path, intervals: Sequence[Interval]) -> None:
    """Write subtitles (SubRip), one per interval, to the millisecond."""
    with atomic_write(path) as file:
        for k, interval in enumerate(intervals, 1):
            file.write(f"{k}\n{_clock(interval.start)} --> {_clock(interval.end)}\n{interval.label}\n\n")


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def write_ctm(path: Path, recording: str, intervals: Sequence[Interval]) -> None:
    """Write NIST's time-marked form: a line of recording, channel 1, start, duration, label, confidence per interval.

    Blanks in names, which would end a column, become ``_``.
    """
    name = "_".join(recording.split())
    with atomic_write(path) as file:
        for start, end, label, confidence, _ in intervals:
            sure = "" if math.isnan(confidence) else f" {confidence:.4f}"
            file.write(f"{name} 1 {start:.3f} {end - start:.3f} {'_'.join(label.split())}{sure}\n")
