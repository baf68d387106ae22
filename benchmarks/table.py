"""Results as a CSV file, and the page of the documentation that is made from it."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.case import OURS, Case
from benchmarks.runner import Row

_FIELDS = [field.name for field in dataclasses.fields(Row)]
_NUMBERS = {field.name for field in dataclasses.fields(Row) if "float" in str(field.type)}
_COUNTS = {"repeats", "cold_repeats", "threads"}

_INTRODUCTION = """\
# Speed against the field

Every contender computes the same numbers from the same inputs; they are compared with a reference first, and nobody is
timed whose numbers are wrong (where lnz's are, nobody at all). Repeats are interleaved in one process (A B A B …) after
warm-up, so that a machine whose speed drifts treats all alike; compilation and the building of graphs are left out.
*Hot* calls are repeated at once. *Cold* ones are single calls, each after the same other work (a matrix product on
torch's threads, and 64 MB written), which is how a layer is called in a step of training. Times are medians with their
quartiles; "× lnz" is the contender's time over lnz's of the same round, again median and
quartiles, so above 1 lnz is faster. "Error" is the largest deviation from the reference, relative to the largest number
where that is above 1.

This page is generated from `{source}` by `python -m benchmarks --render {source} --out {target}`;
`benchmarks/README.md` says how to install the peers and measure again.
"""


def read(path: Path) -> list[Row]:
    """The rows of a CSV file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(file)]


def update(path: Path, rows: Sequence[Row]) -> None:
    """Write ``rows`` in place of those of the same case and shape, keeping the others; the file is exchanged whole."""
    measured = {(row.case, row.shape) for row in rows}
    kept = [row for row in read(path) if (row.case, row.shape) not in measured]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.as_dict().items()} for row in (*kept, *rows))
    draft.replace(path)


def render(rows: Sequence[Row], cases: Iterable[Case], source: str, target: str) -> str:
    """The page: for every case that has rows a section, for every shape a block of its table."""
    parts = [_INTRODUCTION.format(source=source, target=target)]
    for case in cases:
        mine = [row for row in rows if row.case == case.name]
        if mine:
            order = {shape: position for position, shape in enumerate(case.shapes)}
            mine.sort(key=lambda row: order.get(row.shape, len(order)))  # stable: contenders keep their order
            parts.append(_section(case, mine))
    return "\n".join(parts)


def _section(case: Case, rows: list[Row]) -> str:
    lines = [f"## {case.title}", "", case.summary, ""]
    lines += [
        "| shape | contender | hot ms (quartiles) | × lnz | cold ms (quartiles) | × lnz | error | remarks |",
        "|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for shape, block in groupby(rows, key=lambda row: row.shape):
        lines += [_line(row, shape if first else "") for first, row in _first(block)]
    conditions = {(row.date, row.machine, row.threads, row.python, row.torch, row.numpy) for row in rows}
    for date, machine, threads, python, torch, numpy in sorted(conditions):
        lines += ["", f"{date}; {machine}; {threads} threads; Python {python}, torch {torch}, NumPy {numpy}."]
    disturbed = max((row.others or 0.0 for row in rows), default=0.0)
    if disturbed >= 0.1:
        lines[-1] += f" Other processes kept up to {disturbed:.1f} processors busy meanwhile."
    return "\n".join([*lines, ""])


def _line(row: Row, shape: str) -> str:
    if row.status == "ok":
        times = _spread(row.median_ms, row.q1_ms, row.q3_ms), _spread(row.cold_ms, row.cold_q1_ms, row.cold_q3_ms)
        hot = _spread(row.ratio, row.ratio_q1, row.ratio_q3)
        cold = _spread(row.cold_ratio, row.cold_ratio_q1, row.cold_ratio_q3)
        if row.contender == OURS:
            hot, cold = "1" if hot else "", "1" if cold else ""
    else:
        times = {"wrong": "wrong numbers", "untimed": "not timed"}.get(row.status, row.status), ""
        hot = cold = ""
    error = "" if row.error is None else f"{row.error:.0e}"
    remarks = [row.note] if row.note else []
    for mode, target, ratio in (("hot", row.target, row.ratio), ("cold", row.cold_target, row.cold_ratio)):
        if target is not None and ratio is not None:
            remarks.append(f"{mode} target {_short(target)}{'' if ratio >= target else ': missed'}")
    if 0 < row.repeats < 5:
        remarks.append(f"{row.repeats} repeats")
    name = " ".join(word for word in (row.contender, row.version) if word)
    cells = (shape, name, times[0], hot, times[1], cold, error, "; ".join(remarks))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _first(rows: Iterable[Row]) -> Iterable[tuple[bool, Row]]:
    return ((position == 0, row) for position, row in enumerate(rows))


def _spread(median: float | None, low: float | None, high: float | None) -> str:
    return "" if median is None else f"{_short(median)} ({_short(low)}–{_short(high)})"


def _short(value: float | None) -> str:
    """Three significant digits without an exponent."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _text(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(name: str, text: str) -> Any:
    if name in _COUNTS:
        return int(text)
    if name in _NUMBERS:
        return float(text) if text else None
    return text
