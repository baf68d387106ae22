"""``lnz fit`` of the tasks that learn by EM: options, run folder, progress; no trainer."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from jsonargparse import ArgumentParser
from rich.table import Table

from lnz.errors import FormatError
from lnz.tasks.console import Console
from lnz.tasks.em_learning import Told
from lnz.tasks.options import Help, check_configs
from lnz.tasks.parsing import Strict
from lnz.tasks.run import TERMINATED, Interrupted, write
from lnz.tasks.run_folder import prepare

EVERY = 10.0
"""Seconds between the lines of a log, where no terminal shows the progress."""
CHECKPOINTS = "checkpoints"


class EMTask(ABC):
    """What differs between the tasks that learn by EM; :func:`run` does the rest."""

    name: ClassVar[str]
    description: ClassVar[str]
    examples: ClassVar[str]
    data: ClassVar[type[Any]]
    model: ClassVar[type[Any]]

    @abstractmethod
    def fit(self, run: Run) -> Finished:
        """Learn, and write the models into the run folder."""


class Run:
    """One run: its data and model as asked for, its seed and folder, and how it tells where it is.

    Attributes:
        data: of the task's class.
        model: of the task's class.
        seed: of all random numbers.
        output: the run folder.
        resume: go on from the checkpoints that it holds.
        console: for progress.
    """

    def __init__(self, made: Any, output: Path, resume: bool, console: Console) -> None:
        self.data, self.model, self.seed = made.data, made.model, made.seed_everything
        self.output, self.resume, self.console = output, resume, console

    @contextmanager
    def progress(self, about: str, starts: int) -> Iterator[Told]:
        """Show each iteration on a terminal; in a log, a line every ten seconds."""
        shown = self.console.status(about) if self.console.is_terminal else None
        told = time.monotonic()

        def tell(start: int, iteration: int, log_evidence: float) -> None:
            nonlocal told
            of = f"start {start + 1}/{starts}, " if starts > 1 else ""
            text = f"{about}{of}iteration {iteration}  ln L {log_evidence:.4f}"
            if shown is not None:
                shown.update(text)
            elif time.monotonic() - told > EVERY:
                self.console.say(text)
                told = time.monotonic()

        if shown is None:
            yield tell
            return
        with shown:
            yield tell


class Finished:
    """What a finished run shows and keeps.

    Args:
        results: plain values, for results.json.
        table: for the terminal.
        page: the report as HTML, of its configuration.
        picture: PNG.
        files: what was written besides, by what it is called.
    """

    def __init__(self, results: Any, table: Table, page: Any, picture: bytes, files: dict[str, Path]) -> None:
        self.results, self.table, self.page, self.picture, self.files = results, table, page, picture, files


class _Parser(Strict, ArgumentParser):
    """jsonargparse's parser with full option names and our errors."""


def parser_of(task: EMTask) -> ArgumentParser:
    """The options of a task."""
    parser = _Parser(
        prog=f"lnz fit {task.name}",
        usage=f"lnz fit {task.name} [--config FILE] [--output DIR] [options]",
        description=task.description,
        epilog=task.examples,
        formatter_class=Help,
    )
    parser.add_argument("-c", "--config", action="config", help="Configuration file, as config.yaml of a run.")
    parser.add_argument("--seed_everything", "--seed", type=int, default=0, help="Seed of all random numbers.")
    parser.add_argument("--output", type=Path | None, help=f"Run folder; by default, runs/{task.name}/<time>.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the run that --output holds.")
    parser.add_argument("--resume", action="store_true", help="Go on with the run that --output holds.")
    parser.add_class_arguments(task.data, "data")
    parser.add_class_arguments(task.model, "model")
    return parser


def run(task: EMTask, argv: list[str], console: Console) -> None:
    """Parse ``argv``, learn, and show and keep the results.

    Raises:
        SystemExit: a wrong option.
        FormatError, OSError: bad input, or a run folder that cannot be written; before anything is learned.
        Interrupted: Ctrl-C or SIGTERM; the checkpoint of the last iteration is kept.
    """
    parser = parser_of(task)
    check_configs(argv)
    config = parser.parse_args(argv)
    if config.seed_everything < 0:
        parser.error(f"seed_everything: expected an integer of at least 0, got {config.seed_everything}")
    if config.resume and (config.output is None or config.overwrite):
        parser.error("resume: needs --output, the run folder to go on with, and no --overwrite")
    output = config.output or Path("runs", task.name, datetime.now().strftime("%Y-%m-%d-%H%M%S"))
    output = output.resolve()
    _check_free(output, config.overwrite, config.resume)
    try:
        made = parser.instantiate(config)
    except FormatError:
        raise
    except ValueError as error:
        parser.error(str(error))
    prepare(output, config.overwrite)
    if config.overwrite:
        shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
    saved = config.clone()
    saved.output, saved.overwrite, saved.resume, saved.config = output, False, False, None
    write(output / "config.yaml", parser.dump(saved))
    try:
        finished = task.fit(Run(made, output, config.resume, console))
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != TERMINATED:
            raise
        how = shlex.join(["lnz", "fit", task.name, "--config", str(output / "config.yaml"), "--resume"])
        raise Interrupted(how, TERMINATED if isinstance(stop, SystemExit) else 128 + signal.SIGINT) from stop
    write(output / "picture.png", finished.picture)
    write(output / "report.html", finished.page((output / "config.yaml").read_text("utf-8"), {"run folder": output}))
    write(output / "results.json", json.dumps(finished.results, indent=1))
    console.print(finished.table)
    files = {**finished.files, "picture": output / "picture.png", "report": output / "report.html"}
    width = max(map(len, files)) + 1
    console.say("\n".join(f"{name + ':':<{width}} {path}" for name, path in files.items()))


def _check_free(output: Path, overwrite: bool, resume: bool) -> None:
    """Raise unless the folder may be written: no run is there, or it is gone on with or replaced.

    Raises:
        FormatError: it holds a run, finished or not.
    """
    if overwrite or resume or not output.is_dir():
        return
    if (output / "results.json").exists():
        raise FormatError(f"{output}: holds a finished run; choose another --output, or replace it by --overwrite")
    if any((output / CHECKPOINTS).glob("*.ckpt")):
        raise FormatError(
            f"{output}: holds a run that was stopped; go on with it by --resume, choose another --output, or replace "
            "it by --overwrite"
        )
