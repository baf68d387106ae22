"""The trainer of every task: safe checkpoints, curves that survive a crash, a progress bar, a log."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from lnz.io.checkpoints import AtomicCheckpointIO


class Progress(RichProgressBar):
    """The usual progress bar, with epochs counted from 1 and less the version of the log."""

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs
        of = "" if last is None or last < 0 else f"/{last}"
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}


class History(Callback):
    """The logged values of each epoch, kept through checkpoints."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.points.append({"epoch": float(trainer.current_epoch + 1), **values})

    def state_dict(self) -> dict[str, Any]:
        return {"points": list(self.points)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = list(state_dict["points"])


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
    if settings["enable_progress_bar"] is not False:
        settings["callbacks"].append(Progress())
    plugins = settings["plugins"] or []
    settings["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
    if settings["logger"] in (None, True):
        settings["logger"] = TensorBoardLogger(folder, name=None, version="tensorboard")
    settings["default_root_dir"] = settings["default_root_dir"] or folder
    return pl.Trainer(**settings)
