"""The folder of a run: which it is, whether it is free, and where its seeds go on."""

from __future__ import annotations

import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.checkpoints import load_checkpoint
from lnz.tasks.task import Task

REPORTS = ("results.json", "report.html", "picture.png", "config.yaml")
"""What a run leaves beside the folders of its seeds."""
SEED = re.compile(r"seed-\d+")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""Files of a process that was killed while it wrote."""


def run_folder(task: Task, config: Any) -> Path:
    """The run folder asked for, that of the checkpoint to go on from, or a new one."""
    if config.output is not None:
        return config.output.resolve()
    if config.ckpt_path:
        seed_folder = Path(config.ckpt_path).resolve().parent.parent
        if SEED.fullmatch(seed_folder.name):
            return seed_folder.parent
    return Path("runs", task.name, datetime.now().strftime("%Y-%m-%d-%H%M%S")).resolve()


def check_free(output: Path, config: Any) -> None:
    """Raise unless the folder may be written: no run is there, or it is gone on with, or ``--overwrite`` was given.

    Raises:
        FormatError: it holds a run, finished or not.
    """
    if config.overwrite or config.ckpt_path or not output.is_dir():
        return
    if (output / "results.json").exists():
        raise FormatError(f"{output}: holds a finished run; choose another --output, or replace it by --overwrite")
    if any(SEED.fullmatch(folder.name) and any(folder.glob("checkpoints/*.ckpt")) for folder in output.iterdir()):
        raise FormatError(
            f"{output}: holds a run that was stopped; go on with it by --ckpt_path last, choose another --output, or "
            "replace it by --overwrite"
        )


def prepare(output: Path, overwrite: bool) -> None:
    """Make the run folder, find out now whether it can be written, and clear it of what is in the way.

    That is what killed processes have left half-written, and with ``overwrite`` the run that it holds.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_write(output / ".writable") as file:
            file.write("")
        (output / ".writable").unlink()
    except OSError as error:
        raise OSError(error.errno, f"run folder cannot be written: {error.strerror}", str(output)) from error
    seeds = [folder for folder in output.iterdir() if folder.is_dir() and SEED.fullmatch(folder.name)]
    if overwrite:
        for name in REPORTS:
            (output / name).unlink(missing_ok=True)
        for folder in seeds:
            shutil.rmtree(folder)
    for folder in (output, *seeds, *(folder / "checkpoints" for folder in (output, *seeds))):
        for file in folder.iterdir() if folder.is_dir() else ():
            if TEMPORARY.fullmatch(file.name):
                file.unlink()


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
        of_this_run = origin.parent == folder.parent and SEED.fullmatch(origin.name)
        required = origin == folder if of_this_run else is_first
        path = given if required else path
    if not required and not path.is_file():
        return None
    task.module.from_checkpoint(load_checkpoint(path), str(path))
    return path
