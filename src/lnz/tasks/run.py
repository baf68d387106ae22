"""``lnz fit TASK``: the seeds one after the other, and what is left in the run folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.checkpoints import load_checkpoint
from lnz.tasks.module import TaskModule
from lnz.tasks.options import TaskCLI
from lnz.tasks.task import Result, Task
from lnz.tasks.trainer import History, make_trainer


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; the last checkpoint is kept."""


def run(task: Task, argv: list[str], console: Console) -> None:
    """Parse ``argv``, train each seed, and show and keep the results.

    Raises:
        SystemExit: a wrong option.
        FormatError, OSError: bad input, or a run folder that cannot be written; before training.
        Interrupted: Ctrl-C.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's, of torch
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    cli = TaskCLI(task, argv)
    config = cli.config
    if config.seeds < 1:
        cli.parser.error(f"seeds: expected a positive integer, got {config.seeds}")
    if config.ckpt_path == "last" and config.output is None:
        cli.parser.error("ckpt_path: 'last' needs --output, the run folder whose last checkpoint is meant")
    output = run_folder(task, config)
    first = config.seed_everything
    if first < 0:
        cli.parser.error(f"seed_everything: expected an integer of at least 0, got {first}")
    seeds = [first + k for k in range(config.seeds)]
    if rank_zero_only.rank == 0:
        prepare(output)
        saved = config.clone()
        saved.output, saved.ckpt_path = output, None
        with atomic_write(output / "config.yaml") as file:
            file.write(cli.parser.dump(saved))
    results = []
    for seed in seeds:
        folder = output / f"seed-{seed}"
        finished = folder / "results.json"
        checkpoint = resume_from(task, config.ckpt_path, folder, seed == first)
        if config.ckpt_path and finished.is_file():
            results.append(task.result(**json.loads(finished.read_text(encoding="utf-8"))))
            continue
        try:
            result = fit_seed(cli, seed, folder, checkpoint)
        except Interrupted as stop:
            raise Interrupted(f"lnz fit {task.name} --config {output / 'config.yaml'} --ckpt_path last") from stop
        results.append(result)
    if rank_zero_only.rank == 0:
        finish(task, results, output, console)


def run_folder(task: Task, config: Any) -> Path:
    """The run folder asked for, that of the checkpoint to go on from, or a new one."""
    if config.output is not None:
        return config.output.resolve()
    if config.ckpt_path:
        seed_folder = Path(config.ckpt_path).resolve().parent.parent
        if re.fullmatch(r"seed-\d+", seed_folder.name):
            return seed_folder.parent
    return Path("runs", task.name, datetime.now().strftime("%Y-%m-%d-%H%M%S")).resolve()


def prepare(output: Path) -> None:
    """Make the run folder, and find out now whether it can be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_write(output / ".writable") as file:
            file.write("")
        (output / ".writable").unlink()
    except OSError as error:
        raise OSError(error.errno, f"run folder cannot be written: {error.strerror}", str(output)) from error


def resume_from(task: Task, ckpt_path: str | None, folder: Path, is_first: bool) -> Path | None:
    """The checkpoint that a seed goes on from, if any.

    A path is that of one seed: the one of its folder in this run, or the first where it comes from elsewhere. The other
    seeds go on from their own last checkpoints, or, where they have none yet, start from the beginning.

    Raises:
        FormatError: the checkpoint is missing, cannot be read, or is of another task.
    """
    if ckpt_path is None:
        return None
    path = folder / "checkpoints" / "last.ckpt"
    required = False
    if ckpt_path != "last":
        given = Path(ckpt_path).resolve()
        origin = given.parent.parent
        of_this_run = origin.parent == folder.parent and re.fullmatch(r"seed-\d+", origin.name)
        required = origin == folder if of_this_run else is_first
        path = given if required else path
    if not required and not path.is_file():
        return None
    task.module.from_checkpoint(load_checkpoint(path), str(path))
    return path


def check_fits(module: TaskModule, checkpoint: Mapping[str, Any], source: str) -> None:
    """Raise :class:`~lnz.errors.FormatError` unless a checkpoint holds the weights of a module of these settings."""
    try:
        module.load_state_dict(checkpoint["state_dict"])  # as the trainer will again
    except RuntimeError as error:
        asked, kept = module.settings, checkpoint["lnz"]["settings"]
        differ = [f"{name} {kept.get(name)!r}, not {asked[name]!r}" for name in asked if kept.get(name) != asked[name]]
        why = "; ".join(differ) or str(error).splitlines()[-1].strip()
        raise FormatError(f"{source}: expected a checkpoint of the model asked for, got one of {why}") from error


def fit_seed(cli: TaskCLI, seed: int, folder: Path, checkpoint: Path | None) -> Any:
    """Train and judge one seed; its folder then holds checkpoints, logs, results and picture."""
    config = cli.config.clone()
    config.seed_everything = config.data.seed = seed
    pl.seed_everything(seed, workers=True, verbose=False)
    made = cli.make(config)
    if checkpoint is not None:
        check_fits(made.model, load_checkpoint(checkpoint), str(checkpoint))
    history = History()
    trainer = make_trainer(dict(made.trainer), folder, history, cli.task.best)
    started = time.monotonic()
    try:
        trainer.fit(made.model, datamodule=made.data, ckpt_path=str(checkpoint) if checkpoint else None)
    except SystemExit as stop:  # how the trainer leaves after Ctrl-C
        if trainer.interrupted:
            raise Interrupted from stop
        raise
    if trainer.interrupted:
        raise Interrupted
    seconds = time.monotonic() - started
    result = cli.task.judge(seed, trainer, made.model, made.data, seconds, history.points)
    if trainer.is_global_zero:
        with atomic_write(folder / "picture.png", "wb") as file:
            file.write(cli.task.picture(made.model, made.data))
        with atomic_write(folder / "results.json") as file:
            json.dump(dataclasses.asdict(result), file, indent=1)
    return result


def finish(task: Task, results: Sequence[Result], output: Path, console: Console) -> None:
    """Write the report of all seeds, and show the table."""
    shown = (output / f"seed-{results[0].seed}" / "picture.png").read_bytes()
    config = (output / "config.yaml").read_text(encoding="utf-8")
    about = {"run folder": output, "seeds": ", ".join(str(result.seed) for result in results)}
    with atomic_write(output / "picture.png", "wb") as file:
        file.write(shown)
    with atomic_write(output / "results.json") as file:
        json.dump([dataclasses.asdict(result) for result in results], file, indent=1)  # type: ignore[call-overload]
    with atomic_write(output / "report.html") as file:
        file.write(task.page(results, shown, config, about))
    console.print(task.table(results))
    console.print(f"picture: {output / 'picture.png'}\nreport:  {output / 'report.html'}", soft_wrap=True)
