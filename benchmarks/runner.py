"""Runs a case at one shape: build, check every contender's numbers, and only then take times."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.case import OURS, AbsentError, Builder, Case, Contender, Numbers, version
from benchmarks.timing import OtherWork, Spread, alternate, busy_seconds, interleave, ratios

Status = Literal["ok", "wrong", "failed", "absent", "untimed"]
Log = Callable[[str], None]


@dataclass
class Row:
    """One contender at one shape: a line of the CSV file. Times are in milliseconds, ratios are its time over ours;
    ``cold`` ones are of single calls after other work; ``others`` is how many processors other processes kept busy
    meanwhile, so that a disturbed measurement shows.
    """

    case: str
    shape: str
    contender: str
    version: str = ""
    status: Status = "untimed"
    note: str = ""
    error: float | None = None
    tolerance: float | None = None
    repeats: int = 0
    first_ms: float | None = None
    median_ms: float | None = None
    q1_ms: float | None = None
    q3_ms: float | None = None
    min_ms: float | None = None
    max_ms: float | None = None
    ratio: float | None = None
    ratio_q1: float | None = None
    ratio_q3: float | None = None
    target: float | None = None
    cold_repeats: int = 0
    cold_ms: float | None = None
    cold_q1_ms: float | None = None
    cold_q3_ms: float | None = None
    cold_ratio: float | None = None
    cold_ratio_q1: float | None = None
    cold_ratio_q3: float | None = None
    cold_target: float | None = None
    others: float | None = None
    threads: int = 0
    date: str = ""
    machine: str = ""
    python: str = ""
    numpy: str = ""
    torch: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def processor() -> str:
    """The processor and how many of its cores this process sees."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


@dataclass
class Setting:
    """How to time, and on what."""

    repeats: int = 15
    threads: int = 2
    max_seconds: float = 30.0
    modes: Sequence[Literal["hot", "cold"]] = ("hot", "cold")
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())
    machine: str = field(default_factory=processor)


def run(case: Case, shape: str, setting: Setting, log: Log) -> list[Row]:
    """One row per contender. A peer with wrong numbers is not timed; where ours are wrong or missing, nobody is."""
    workload = case.workload(shape, setting.threads)
    log(f"{case.name} / {shape}" + (f" ({workload.note})" if workload.note else ""))
    rows = {
        name: Row(
            case.name,
            shape,
            name,
            tolerance=workload.tolerances.get(name, workload.tolerance),
            target=workload.targets.get(name),
            cold_target=workload.cold_targets.get(name),
            threads=setting.threads,
            date=setting.date,
            machine=setting.machine,
            python=platform.python_version(),
            numpy=version("numpy"),
            torch=version("torch"),
        )
        for name in workload.contenders
    }
    try:
        reference = workload.reference()
    except Exception as error:
        log(f"  RED: no reference, {_described(error)}")
        for row in rows.values():
            row.status, row.note = "failed", f"no reference to check against: {_described(error)}"
        return list(rows.values())
    calls: dict[str, Callable[[], Any]] = {}
    for name, build in workload.contenders.items():
        contender = _gate(rows[name], build, reference)
        if contender is not None:
            calls[name] = contender.call
        row = rows[name]
        against = f" (error {row.error:.1e}, tolerance {row.tolerance:.0e})" if row.error is not None else ""
        log(f"  check  {name}: {'right' if row.status == 'untimed' else row.status}{against}{_dash(row.note)}")
    if is_red(list(rows.values())):
        log("  RED: nothing is timed at this shape")
    else:
        _time(rows, calls, setting, log)
    if workload.note:
        rows[OURS].note = _joined(workload.note, rows[OURS].note)
    return list(rows.values())


def is_red(rows: list[Row]) -> bool:
    """Whether the correctness gate is shut: wrong numbers from us, or none."""
    return any(row.contender == OURS and row.status in ("wrong", "failed", "absent") for row in rows)


def distance(numbers: Numbers, reference: Numbers) -> float:
    """The largest ``max |a − b| / max(1, max |b|)`` over all; infinite where one is missing, misshapen or NaN."""
    worst = 0.0
    for name, right in reference.items():
        got, expected = numbers.get(name), np.asarray(right, dtype=np.float64)
        if got is None or np.shape(got) != expected.shape:
            return float("inf")
        gap = np.abs(np.asarray(got, dtype=np.float64) - expected).max(initial=0.0)
        scale = max(1.0, np.abs(expected).max(initial=0.0))
        worst = max(worst, float("inf") if np.isnan(gap) else float(gap / scale))
    return worst


def _gate(row: Row, build: Builder, reference: Numbers) -> Contender | None:
    """Build and call a contender once and compare; the contender if it is right."""
    try:
        contender = build()
        row.version = contender.version or version(contender.package)
        start = time.perf_counter()
        answer = contender.call()
        row.first_ms = (time.perf_counter() - start) * 1e3
        row.error = distance(contender.read(answer), reference)
    except AbsentError as absent:
        row.status, row.note = "absent", str(absent)
        return None
    except Exception as error:  # a peer that breaks is reported; ours turns the gate red
        row.status, row.note = "failed", _described(error)
        return None
    if not row.error <= row.tolerance:  # type: ignore[operator]
        row.status = "wrong"
        return None
    return contender


def _time(rows: Mapping[str, Row], calls: Mapping[str, Callable[[], Any]], setting: Setting, log: Log) -> None:
    start, before = time.perf_counter(), busy_seconds()

    samples: dict[str, dict[str, list[float]]] = {}
    for mode in setting.modes:

        def progress(done: int, mode: str = mode) -> None:
            if done == setting.repeats or done % 5 == 0:
                log(f"  timing {mode} {done}/{setting.repeats} rounds, {time.perf_counter() - start:.0f} s")

        if mode == "hot":
            taken = interleave(calls, setting.repeats, max_seconds=setting.max_seconds, progress=progress)
        else:
            taken = alternate(calls, setting.repeats, OtherWork(), max_seconds=setting.max_seconds, progress=progress)
        samples[mode] = taken
    after, seconds = busy_seconds(), time.perf_counter() - start
    others = None
    if before and after:
        others = max(0.0, (after[0] - before[0]) - (after[1] - before[1])) / seconds
        log(f"  other processes kept {others:.2f} processors busy")
    for name in calls:
        row = rows[name]
        row.status, row.others = "ok", others
        for mode, taken in samples.items():
            times = Spread.of([seconds * 1e3 for seconds in taken[name]])
            relative = Spread.of(ratios(taken[name], taken[OURS]))
            if mode == "hot":
                row.repeats, target = len(taken[name]), row.target
                row.median_ms, row.q1_ms, row.q3_ms = times.median, times.q1, times.q3
                row.min_ms, row.max_ms = times.low, times.high
                row.ratio, row.ratio_q1, row.ratio_q3 = relative.median, relative.q1, relative.q3
            else:
                row.cold_repeats, target = len(taken[name]), row.cold_target
                row.cold_ms, row.cold_q1_ms, row.cold_q3_ms = times.median, times.q1, times.q3
                row.cold_ratio, row.cold_ratio_q1, row.cold_ratio_q3 = relative.median, relative.q1, relative.q3
            goal = "" if target is None else f", target {target:g}: {'met' if relative.median >= target else 'MISSED'}"
            log(f"  {mode:4} {name}: {times.median:.3f} ms, {relative.median:.2f} × lnz{goal}")


def _described(error: Exception) -> str:
    """The class of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).split(chr(10), 1)[0]}"


def _dash(note: str) -> str:
    return f" — {note}" if note else ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
