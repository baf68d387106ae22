"""``lnz evaluate``: the table of ``lnz fit`` on new data."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentParser

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.checkpoints import load_checkpoint
from lnz.tasks.console import Console
from lnz.tasks.module import TaskModule
from lnz.tasks.new_rows import NETWORK, network_of
from lnz.tasks.new_rows import evaluate as new_rows
from lnz.tasks.options import Help
from lnz.tasks.parsing import Strict
from lnz.tasks.run import quiet
from lnz.tasks.task import Task

TASKS = {
    "segment": ("lnz.tasks.segment.run", "SegmentTask"),
    "tag": ("lnz.tasks.tag.run", "TagTask"),
    "parse": ("lnz.tasks.parse.run", "ParseTask"),
    "density": ("lnz.tasks.density.run", "DensityTask"),
    "transcribe": ("lnz.tasks.transcribe.run", "TranscribeTask"),
}
"""Module and class of each task, imported only when asked for."""


class _Parser(Strict, ArgumentParser):
    """The options of the data of a task."""


def task_of(name: str) -> Task:
    """The task of that name."""
    module, cls = TASKS[name]
    return getattr(import_module(module), cls)()


def checkpoints_of(model: Path, last: str = "seed-*/checkpoints/last.ckpt") -> list[Path]:
    """The checkpoint itself, or the last one of each seed of a run folder, in order."""
    if not model.is_dir():
        return [model]
    found = sorted(model.glob(last), key=lambda path: (len(path.parts[-3]), path))
    return found or [model / "seed-0" / "checkpoints" / "last.ckpt"]  # whose absence is then told


def parser_of(task: Task) -> ArgumentParser:
    """The options of new data for a task."""
    parser = _Parser(
        prog="lnz evaluate",
        usage="lnz evaluate MODEL [--data.OPTION VALUE …] [--json] [--output FILE]",
        description=f"The table of lnz fit {task.name} on new data; the model was trained by it.",
        formatter_class=Help,
    )
    parser.add_argument("model", type=Path, help="checkpoint, or run folder of lnz fit: all its seeds")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")
    parser.add_argument("--output", type=Path | None, help="write the results as JSON here too")
    parser.add_class_arguments(task.test, "data", skip={"module"})
    return parser


def evaluate(model: Path, argv: Sequence[str], console: Console) -> None:
    """Judge the model on the data that ``argv`` asks for, and show the table or JSON.

    Raises:
        SystemExit: a wrong option.
        FormatError, OSError: a bad checkpoint or bad data.
    """
    network = network_of(model)
    if network is not None:
        new_rows(model, network, argv, console)
        return
    quiet()
    results: list[Any] = []
    about = ""
    found = checkpoints_of(model)
    task = task_of(_named(found[0]))
    parser = parser_of(task)
    options = parser.parse_args(list(argv))
    for source in found:
        module = task.module.from_checkpoint(load_checkpoint(source), str(source))
        making: Any = [(partial(_made_for, module), task.test, False)]
        try:
            data = parser.instantiate(options, instantiators=making).data
        except FormatError:
            raise
        except ValueError as error:
            parser.error(str(error))
        trainer = pl.Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=console.is_terminal,
            enable_model_summary=False,
            devices=1,
            deterministic=True,
            use_distributed_sampler=False,
        )
        results.append(task.evaluate(seed_of(source), trainer, module, data))
        about = f"{data.says}; weights of {model}"
    written = json.dumps([dataclasses.asdict(result) for result in results], indent=1)
    if options.output is not None:
        with atomic_write(options.output) as file:
            file.write(written + "\n")
    if options.json:
        console.say(written)
    else:
        console.print(task.table(results, about))


def _made_for(module: TaskModule, cls: type[Any], *args: Any, **kwargs: Any) -> Any:
    return cls(module, *args, **kwargs)


def _named(source: Path) -> str:
    """The task of a checkpoint."""
    name = load_checkpoint(source).get("lnz", {}).get("task")
    if name == "em":
        raise FormatError(f"{source}: of a run that learns by EM: pass its run folder, which holds {NETWORK}")
    if name not in TASKS:
        raise FormatError(f"{source}: expected a checkpoint of lnz fit {' or '.join(TASKS)}, got task {name!r}")
    return name


def seed_of(source: Path) -> int:
    """The seed that the folder of a checkpoint is named for; 0 where none is."""
    found = re.fullmatch(r"seed-(\d+)", source.resolve().parent.parent.name)
    return int(found[1]) if found else 0
