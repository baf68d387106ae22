"""The trainer of every task: safe checkpoints, curves that survive a crash, a progress bar, a log."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from lnz.io.checkpoints import AtomicCheckpointIO
from lnz.tasks.console import Console


class Progress(RichProgressBar):
    """The usual progress bar, with epochs counted from 1 and less the version of the log."""

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        of = "" if last is None or last < 0 else f"/{last}"
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}


class History(Callback):
    """The logged values of each epoch and the seconds of all, kept through checkpoints."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self.seconds = 0.0
        self._since = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.points.append({"epoch": float(trainer.current_epoch + 1), **values})
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now

    def state_dict(self) -> dict[str, Any]:
        return {"points": list(self.points), "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points, self.seconds = list(state_dict["points"]), state_dict.get("seconds", 0.0)


class EpochLines(Callback):
    """Where no terminal shows a progress bar: a line for each epoch, for a log."""

    def __init__(self, history: History, console: Console) -> None:
        self.history, self.console = history, console

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in sorted(trainer.progress_bar_metrics.items()) if name != "v_num"}
        shown = "".join(f"  {name} {value:.4g}" for name, value in values.items())
        last = trainer.max_epochs
        of = "" if last is None or last < 0 else f"/{last}"
        self.console.say(f"epoch {trainer.current_epoch + 1}{of}{shown}  ({self.history.seconds:.0f} s)")


def make_trainer(
    settings: dict[str, Any], folder: Path, history: History, best: tuple[str, Literal["min", "max"]]
) -> pl.Trainer:
    """The trainer asked for, with our checkpoints, curves and log.

    Args:
        settings: of the trainer, as parsed.
        folder: of one seed.
        history: keeps the curves.
        best: the logged value that the best checkpoint is chosen by, and which way.
    """
    # two callbacks: one alone writes last.ckpt only where it also writes a new best
    monitor, mode = best
    kept = partial(ModelCheckpoint, folder / "checkpoints", save_on_train_epoch_end=True, enable_version_counter=False)
    last_kept, best_kept = kept(filename="last"), kept(filename="best", monitor=monitor, mode=mode)
    callbacks = settings["callbacks"] or []
    settings["callbacks"] = [*(callbacks if isinstance(callbacks, list) else [callbacks]), history]
    if settings["enable_checkpointing"] is not False and not settings["fast_dev_run"]:
        settings["callbacks"] += [last_kept, best_kept]
    console = Console()
    if settings["enable_progress_bar"] is not False and console.is_terminal:
        settings["callbacks"].append(Progress())
    elif settings["enable_progress_bar"] is not False:
        settings["enable_progress_bar"] = False
        settings["callbacks"].append(EpochLines(history, console))  # after the history, whose seconds it shows
    plugins = settings["plugins"] or []
    settings["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    if settings["logger"] in (None, True):
        settings["logger"] = TensorBoardLogger(folder, name=None, version="tensorboard")
    settings["default_root_dir"] = settings["default_root_dir"] or folder
    return pl.Trainer(**settings)
