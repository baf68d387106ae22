"""``lnz fit TASK``: the seeds one after the other, and what is left in the run folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.checkpoints import load_checkpoint
from lnz.tasks.calibrated import calibrate_run
from lnz.tasks.console import Console
from lnz.tasks.module import TaskModule
from lnz.tasks.options import TaskCLI
from lnz.tasks.run_folder import check_free, prepare, resume_from, run_folder
from lnz.tasks.task import Result, Task
from lnz.tasks.trainer import History, make_trainer

TERMINATED = 128 + signal.SIGTERM


class Interrupted(KeyboardInterrupt):
    """A run was stopped by Ctrl-C or SIGTERM; what is finished is kept, and ``str`` says how to go on.

    Attributes:
        code: the exit status, 128 + the signal.
    """

    def __init__(self, how: str = "", code: int = 128 + signal.SIGINT) -> None:
        super().__init__(how)
        self.code = code


def run(task: Task, argv: list[str], console: Console) -> None:
    """Parse ``argv``, train each seed, and show and keep the results.

    Raises:
        SystemExit: a wrong option.
        FormatError, OSError: bad input, or a run folder that cannot be written; before training.
        Interrupted: Ctrl-C or SIGTERM.
    """
    quiet()
    cli = TaskCLI(task, argv)
    config = cli.config
    if config.seeds < 1:
        cli.parser.error(f"seeds: expected a positive integer, got {config.seeds}")
    if config.ckpt_path == "last" and config.output is None:
        cli.parser.error("ckpt_path: 'last' needs --output, the run folder whose last checkpoint is meant")
    if config.ckpt_path and config.overwrite:
        cli.parser.error("overwrite: a run that --ckpt_path goes on with is not to be replaced")
    output = run_folder(task, config)
    first = config.seed_everything
    if first < 0:
        cli.parser.error(f"seed_everything: expected an integer of at least 0, got {first}")
    if rank_zero_only.rank == 0:
        check_free(output, config)
        prepare(output, config.overwrite)
        saved = config.clone()
        saved.output, saved.ckpt_path, saved.overwrite = output, None, False
        with atomic_write(output / "config.yaml") as file:
            file.write(cli.parser.dump(saved))
    try:
        results = [fit_or_read(cli, first + k, output, k == 0) for k in range(config.seeds)]
        if rank_zero_only.rank == 0:
            finish(task, results, output, console)
    except KeyboardInterrupt as stop:
        how = shlex.join(["lnz", "fit", task.name, "--config", str(output / "config.yaml"), "--ckpt_path", "last"])
        raise Interrupted(how, getattr(stop, "code", 128 + signal.SIGINT)) from stop


def quiet() -> None:
    """Silence what Lightning says about itself."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # Lightning's, of torch
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def fit_or_read(cli: TaskCLI, seed: int, output: Path, is_first: bool) -> Any:
    """The result of one seed: read, where a run that is gone on with has finished it."""
    folder = output / f"seed-{seed}"
    checkpoint = resume_from(cli.task, cli.config.ckpt_path, folder, is_first)
    if cli.config.ckpt_path and (folder / "results.json").is_file():
        return cli.task.result(**json.loads((folder / "results.json").read_text(encoding="utf-8")))
    return fit_seed(cli, seed, folder, checkpoint)


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
    try:
        trainer = make_trainer(dict(made.trainer), folder, history, cli.task.best)
    except (ValueError, MisconfigurationException) as error:
        cli.parser.error(f"trainer: {error}")
    with leaving(trainer):
        trainer.fit(made.model, datamodule=made.data, ckpt_path=str(checkpoint) if checkpoint else None)
    if getattr(config, "calibrate", False):  # an option of some tasks
        with leaving(trainer):
            calibrate_run(trainer, made.model, made.data, folder)
    with leaving(trainer):
        result = cli.task.judge(seed, trainer, made.model, made.data, history.seconds, history.points)
    if trainer.is_global_zero:
        write(folder / "picture.png", cli.task.picture(made.model, made.data))
        write(folder / "results.json", json.dumps(dataclasses.asdict(result), indent=1))
    return result


@contextmanager
def leaving(trainer: pl.Trainer) -> Iterator[None]:
    """Turn the ways in which a trainer leaves after a signal into :class:`Interrupted`."""
    try:
        yield
    except SystemExit as stop:
        if trainer.interrupted:
            raise Interrupted(code=TERMINATED if stop.code == TERMINATED else 128 + signal.SIGINT) from stop
        raise
    if trainer.interrupted:
        raise Interrupted


def finish(task: Task, results: Sequence[Result], output: Path, console: Console) -> None:
    """Write the report of all seeds, and show the table."""
    shown = (output / f"seed-{results[0].seed}" / "picture.png").read_bytes()
    config = (output / "config.yaml").read_text(encoding="utf-8")
    about = {"run folder": output, "seeds": ", ".join(str(result.seed) for result in results)}
    write(output / "picture.png", shown)
    write(output / "report.html", task.page(results, shown, config, about))
    write(output / "results.json", json.dumps([dataclasses.asdict(result) for result in results], indent=1))  # type: ignore[call-overload]
    console.print(task.table(results))
    console.say(f"picture: {output / 'picture.png'}\nreport:  {output / 'report.html'}")


def write(path: Path, content: str | bytes) -> None:
    """Write a file in one step, from what is there already: a kill in between can leave nothing half-done."""
    with atomic_write(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)
