"""The page of what kernels need on cards: registers, spills and shared memory, read from the binaries."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import triton

from benchmarks.gpu import cases
from benchmarks.gpu.ahead import Configuration, configurations
from benchmarks.gpu.families import ALL
from lnz.ops.jit.triton.ahead import SHARED_MEMORY, TARGETS, Resources, compiled

BANDWIDTH, RATE, STEP = 4.3e12, 6.0e13, 1e-6
"""Of an H200: bytes and float32 operations per second, seconds for a step that depends on the one before."""


SPILLED = 16
"""Bytes of a thread. The assembler puts one or two numbers that the loop does not touch aside, so that a program more
fits on a processor; what a loop waits for would be more."""


class Compiled(NamedTuple):
    """A configuration on a card."""

    what: Configuration
    target: str
    needs: Resources

    @property
    def fits(self) -> bool:
        return self.needs.spills <= SPILLED and self.needs.shared <= SHARED_MEMORY[self.target]

    @property
    def counts(self) -> bool:
        """Whether it must fit: AMD's numbers are reported beside."""
        return self.target.startswith("sm_")


def plan() -> Iterator[tuple[str, torch.dtype, str]]:
    """Family, dtype and card: every dtype on sm_90, float32 on all."""
    for family in ALL:
        for target in TARGETS:
            yield family, torch.float32, target
        for dtype in (torch.bfloat16, torch.float64):
            yield family, dtype, "sm_90"


def compile_all(out: Path | None, cards: Sequence[str] = tuple(TARGETS), dtype: str | None = None) -> int:
    """Compile for some cards, in one dtype or all, write the page, and return 1 where a kernel does not fit."""
    found: list[Compiled] = []
    wanted = [each for each in plan() if each[2] in cards and dtype in (None, str(each[1]).removeprefix("torch."))]
    for family, kind, target in wanted:
        print(f"{family}, {kind}, {target}", flush=True)
        found += [Compiled(each, target, compiled(each.launch, target)) for each in configurations(family, kind)]
    page = render(found)
    if out is None:
        print(page)
    else:
        out.write_text(page, encoding="utf-8")
    bad = [each for each in found if each.counts and not each.fits]
    for each in bad:
        print(f"does not fit: {each.what.launch.kernel.__name__}, {each.what.shape}, {each}", file=sys.stderr)
    return 1 if bad else 0


def render(found: list[Compiled]) -> str:
    """The page in Markdown."""
    lines = [HEAD.format(version=triton.__version__, count=len(found))]
    for family in ALL:
        mine = [each for each in found if each.what.family == family]
        lines += [f"### {family}", "", *_table(mine), ""]
        for target in TARGETS:
            here = [each for each in mine if each.target == target]
            worst = sum(not each.fits for each in here) or "none"
            lines.append(
                f"- {target}: {len(here)} binaries, {worst} with more spills than that, or too much shared memory"
            )
        lines.append("")
    return "\n".join([*lines, ESTIMATE, *_estimates(), ""])


def _table(found: list[Compiled]) -> list[str]:
    """The most that a kernel needs at a size, whatever the form and the dtype."""
    groups: dict[tuple[str, str], dict[str, list[Resources]]] = defaultdict(lambda: defaultdict(list))
    for each in found:
        if each.what.dtype == torch.float32:
            size = each.what.shape.split(",")[0]
            groups[each.what.launch.kernel.__name__.removesuffix("_kernel"), size][each.target].append(each.needs)
    lines = ["| kernel | first at | " + " | ".join(TARGETS) + " |", "|---|---|" + "---|" * len(TARGETS)]
    for (kernel, size), targets in sorted(groups.items(), key=lambda item: item[0][0]):
        cells = []
        for target in TARGETS:
            most = Resources(*map(max, zip(*targets[target], strict=True))) if targets[target] else None
            cells.append("" if most is None else f"{most.registers} / {most.spills} / {most.shared}")
        lines.append(f"| {kernel} | {size} | " + " | ".join(cells) + " |")
    return lines


def _estimates() -> Iterator[str]:
    yield "| workload | MB | Gop | steps in sequence | by bytes, ms | by operations, ms | by steps, ms |"
    yield "|---|---|---|---|---|---|---|"
    for make in cases.every(torch.device("meta"), False):
        name, work = (case := make()).name, case.work
        times = work.bytes / BANDWIDTH, work.operations / RATE, work.steps * STEP
        cells = [f"{x:.3g}" for x in (work.bytes / 1e6, work.operations / 1e9, work.steps, *(1e3 * t for t in times))]
        yield f"| {name} | " + " | ".join(cells) + " |"


HEAD = """# Kernels for accelerators: what they need

No card could be had: nothing on this page was timed, and no kernel has run on one. The kernels were run by Triton's
interpreter on the CPU, against the reference, and compiled for the cards below. `python -m benchmarks.gpu --compile
--out docs/results/gpu.md` writes this page.

## Compiled ahead

{count} binaries by Triton {version}: every kernel at every configuration that dispatch can choose, in float32 on
all cards, in bfloat16 and float64 on sm_90 too. In the tables are registers of a thread / bytes spilled / bytes of
shared memory of a program, the most at a size, in float32; a size is left out where the binary is the same as at a
smaller one. Up to 16 bytes spilled are one to four numbers that the assembler puts aside so that one more program fits.
"""
ESTIMATE = """## What a card could reach: an estimate

Counted, not measured: the bytes that a workload must move at least, at 4.3 TB/s; what it computes, at 60 Top/s; the
steps that depend on each other, at a microsecond each, which is a guess and no property of a card. The largest of the
three says what bounds it on an H200. `python -m benchmarks.gpu` measures, on a card.
"""
