"""Checks first; then times by events of the device, interleaved A B A B …, the cache flushed between."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu.cases import Answers, Case
from benchmarks.timing import Spread

FLUSHED = 2**28  # bytes: more than the cache of any card


class Row(NamedTuple):
    """One contender in one case."""

    device: str
    case: str
    contender: str
    right: bool
    repeats: int
    ms: float
    ms_q1: float
    ms_q3: float
    gigabytes_per_s: float
    gigaoperations_per_s: float
    ratio: float  # of its time to that of lnz


def differences(answers: Answers, wanted: Answers) -> float:
    """The largest difference, relative to the largest finite number of each answer, at least 1."""
    worst = 0.0
    for name in wanted:
        found, want = answers[name].double().cpu(), wanted[name].double().cpu()
        scale = max(1.0, want[want.isfinite()].abs().max().item())
        worst = max(worst, (found - want).abs().max().item() / scale)
    return worst


def run(case: Case, device: torch.device, name: str, seconds: float) -> list[Row]:
    """Rows of a case; of contenders whose answers are wrong, and of all where lnz's are, without times."""
    wanted = case.reference()
    errors = {who: differences(call(), wanted) for who, call in case.calls.items()}
    right = {who: error <= case.tolerance for who, error in errors.items()}
    for who, error in errors.items():
        print(f"  {who}: largest relative difference {error:.1e}, {'right' if right[who] else 'WRONG'}", flush=True)
    rows = [Row(name, case.name, who, right[who], 0, *[float("nan")] * 6) for who in case.calls]
    if not right["lnz"]:
        return rows
    times = _interleaved({who: call for who, call in case.calls.items() if right[who]}, device, seconds)
    ours = Spread.of(times["lnz"]).median
    for i, row in enumerate(rows):
        if row.contender in times:
            spread = Spread.of(times[row.contender])
            rows[i] = row._replace(
                repeats=len(times[row.contender]),
                ms=1e3 * spread.median,
                ms_q1=1e3 * spread.q1,
                ms_q3=1e3 * spread.q3,
                gigabytes_per_s=case.work.bytes / spread.median / 1e9,
                gigaoperations_per_s=case.work.operations / spread.median / 1e9,
                ratio=spread.median / ours,
            )
    return rows


def _interleaved(
    calls: dict[str, Callable[[], Answers]], device: torch.device, seconds: float
) -> dict[str, list[float]]:
    flushed = torch.empty(FLUSHED if device.type != "cpu" else 1, dtype=torch.uint8, device=device)
    times: dict[str, list[float]] = {who: [] for who in calls}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or not all(times.values()):
        for who, call in calls.items():
            flushed.zero_()
            times[who].append(_timed(call, device))
    return times


def _timed(call: Callable[[], Answers], device: torch.device) -> float:
    if device.type == "cpu":  # by the interpreter: for the path, not for the number
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    first, last = (torch.Event(device, enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def write(path: Path, rows: list[Row]) -> None:
    """As CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
