"""Every objective with one budget: a run each, and one table of them all."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Sequence
from io import StringIO
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from rich.table import Table

from lnz.tasks.console import Console
from lnz.tasks.run import Interrupted, write
from lnz.tasks.run import run as run_task
from lnz.tasks.run_folder import check_free, run_folder
from lnz.tasks.segment import report
from lnz.tasks.segment.objectives import COMPARED
from lnz.tasks.task import Task

HEADINGS = [*report.VERSUS.headings(), "beliefs converged %", "ms per step"]


def run(task: Task, argv: Sequence[str], config: Any, console: Console) -> None:
    """Train by each objective, in a folder of its name in the run folder, and compare.

    A run that was stopped goes on with ``--ckpt_path last``; what is finished then is not done again.

    Raises:
        What :func:`lnz.tasks.run.run` does.
    """
    output = run_folder(task, config)
    results: dict[str, list[report.Result]] = {}
    if rank_zero_only.rank == 0:
        for name in COMPARED:  # all before the first: a refusal should not come after hours
            check_free(output / name, config)
    for name in COMPARED:
        folder = output / name
        if rank_zero_only.rank == 0:
            console.say(f"objective {name}")
        try:
            run_task(task, [*argv, "--objective", name, "--output", str(folder)], Console(file=StringIO()))
        except Interrupted as stop:
            again = [part for part in argv if part != "--overwrite"]
            how = ["lnz", "fit", task.name, *again, "--output", str(output), "--ckpt_path", "last"]
            raise Interrupted(shlex.join(how), stop.code) from stop
        kept = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        results[name] = [report.Result(**result) for result in kept]
    if rank_zero_only.rank != 0:
        return
    write(output / "comparison.md", markdown(results))
    console.print(table(results))
    console.say(f"the same in Markdown: {output / 'comparison.md'}")


def rows(results: dict[str, list[report.Result]]) -> dict[str, list[str]]:
    """Per objective, the cells below :data:`HEADINGS`; means over seeds, with their standard deviation."""
    shown = {}
    for name, of in results.items():
        measured = report.VERSUS.summary(of)["mrf"]
        cells = [report.VERSUS.cell("mrf", measure, *value) for measure, value in measured.items()]
        converged, step = (
            statistics.fmean(values) for values in zip(*((r.converged, r.step_seconds) for r in of), strict=True)
        )
        shown[name] = [*cells, f"{100 * converged:.0f}", f"{1000 * step:.0f}"]
    return shown


def table(results: dict[str, list[report.Result]]) -> Table:
    """The table for a terminal."""
    shown = Table(title="Segmentation by every objective", caption=caption(results), caption_justify="left")
    for column, heading in enumerate(["", *HEADINGS]):
        shown.add_column(heading, justify="right" if column else "left")
    for name, cells in rows(results).items():
        shown.add_row(name, *cells)
    return shown


def markdown(results: dict[str, list[report.Result]]) -> str:
    """The table as Markdown."""
    lines = [
        ["", *HEADINGS],
        ["---", *("--:" for _ in HEADINGS)],
        *([name, *cells] for name, cells in rows(results).items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{caption(results)}\n"


def caption(results: dict[str, list[report.Result]]) -> str:
    """What was run."""
    of = next(iter(results.values()))
    spread = ", mean ± standard deviation" if len(of) > 1 else ""
    seconds = sum(result.seconds for each in results.values() for result in each)
    return (
        f"Seed {', '.join(str(result.seed) for result in of)}{spread}; validation images, weights of the last epoch. "
        f"One step is the MRF's loss and gradient on one batch. {seconds:.0f} s of training for all of it, the softmax "
        "beside each MRF included."
    )
