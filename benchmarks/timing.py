"""Interleaved timing: A B A B …, so that a machine whose speed drifts treats all contenders alike.

Hot (:func:`interleave`): a call is repeated, with its data in the cache and its threads awake. Cold
(:func:`alternate`): before every single call comes :class:`OtherWork`, as the rest of a network does in training.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHORT = 0.25
"""Calls below this many seconds are preceded by an untimed one, which brings threads and caches back."""


def busy_seconds() -> tuple[float, float] | None:
    """Processor seconds used so far by all processes and by this one, where the system tells (Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    own = os.times()
    everyone = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return everyone, own.user + own.system


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and extremes."""

    median: float
    q1: float
    q3: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        if len(values) == 1:
            return cls(*values * 5)
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q1, q3, min(values), max(values))


def interleave(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    *,
    sample_seconds: float = 0.02,
    max_seconds: float = 30.0,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Seconds per call, one sample per contender and round.

    Args:
        calls: the contenders, already called once (what the first call compiles is not timed).
        repeats: the number of rounds.
        sample_seconds: a sample repeats a short call until it lasts about this long, and is its mean.
        max_seconds: a contender whose samples have taken this long leaves after the round, having two samples at least.
        clock: a monotonic clock in seconds.
        progress: told the number of finished rounds.

    Returns:
        Per contender its samples; sample i of each is from round i.
    """
    loops: dict[str, int] = {}
    for name, call in calls.items():  # the warm-up round, which also says how long a sample must be
        start = clock()
        call()
        loops[name] = max(1, math.ceil(sample_seconds / max(clock() - start, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(repeats):
        for name, call in calls.items():
            taken = samples[name]
            if len(taken) >= 2 and sum(taken) * loops[name] > max_seconds:
                continue
            if taken and taken[-1] < SHORT:
                call()
            start = clock()
            for _ in range(loops[name]):
                call()
            taken.append((clock() - start) / loops[name])
        progress(done + 1)
    return samples


class OtherWork:
    """A matrix product on torch's threads, and memory of ``megabytes`` written: neither is timed."""

    def __init__(self, size: int = 768, megabytes: int = 64) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        self.left, self.right = (torch.randn(size, size, generator=generator) for _ in range(2))
        self.out, self.memory = torch.empty(size, size), torch.zeros(megabytes * 2**17, dtype=torch.float64)

    def __call__(self) -> None:
        import torch

        torch.mm(self.left, self.right, out=self.out)
        self.memory.add_(1.0)


def alternate(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    between: Callable[[], Any],
    *,
    max_seconds: float = 30.0,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, list[float]]:
    """Seconds of single calls, one per contender and round, each right after ``between``.

    The order turns by one from round to round, so that nobody always follows the one who leaves the most behind.

    Args:
        calls: the contenders, already called.
        repeats: the number of rounds.
        between: what is done before every call, the same before all.
        max_seconds: as of :func:`interleave`.
        clock: a monotonic clock in seconds.
        progress: told the number of finished rounds.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for done in range(repeats):
        first = done % max(1, len(names))
        for name in (*names[first:], *names[:first]):
            taken = samples[name]
            if len(taken) >= 2 and sum(taken) > max_seconds:
                continue
            between()
            start = clock()
            calls[name]()
            taken.append(clock() - start)
        progress(done + 1)
    return samples


def ratios(samples: list[float], ours: list[float]) -> list[float]:
    """How many times as long as ours each sample took, round by round."""
    return [theirs / mine for theirs, mine in zip(samples, ours, strict=False)]
