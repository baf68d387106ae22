"""Which stretch of a recording says what: Praat's TextGrid, through praatio, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write


class Interval(NamedTuple):
    """A label and the seconds from and to which it lasts; and how probable that is, frame by frame on average."""

    start: float
    end: float
    label: str
    confidence: float = math.nan


Tiers = Mapping[str, Sequence[Interval]]
"""Intervals by the name of their tier, in order of time; within a tier they do not overlap."""


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
        entries = [(start, end, label) for start, end, label, _ in intervals]
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
    """Write one object: what ``about`` says, and per tier a list of ``{"label", "start", "end", "confidence"}``."""
    listed = {name: [interval._asdict() for interval in intervals] for name, intervals in tiers.items()}
    with atomic_write(path) as file:
        json.dump({**about, **listed}, file, indent=1, ensure_ascii=False)
        file.write("\n")
