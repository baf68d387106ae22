"""Temperatures of a trained network: fitted on the validation data of its run, kept in its checkpoints."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from lnz.calibration import By, calibrate
from lnz.checks import check_positive
from lnz.distributions.base import StructuredDistribution
from lnz.errors import ConvergenceWarning, FailedEstimateError
from lnz.io.checkpoints import AtomicCheckpointIO, load_checkpoint
from lnz.tasks.console import Console
from lnz.tasks.module import TaskModule

HELP = "Fit a temperature per method on the validation data after training; kept in the checkpoints, used by all else."


class CalibratedModule(TaskModule):
    """A module of several methods, whose scores are divided by a temperature each once these are fitted."""

    calibrated_by: ClassVar[By]
    """What temperatures are fitted by."""

    def __init__(self) -> None:
        super().__init__()
        self.temperatures: dict[str, float] = {}
        """By method; 1 where there is none."""
        self.reliability: dict[str, list[list[float]]] = {}
        """Per method, of the last validation: what :func:`lnz.tasks.reliability.reliability` gives."""

    @abstractmethod
    def distributions(self, batch: Mapping[str, Any]) -> dict[str, tuple[StructuredDistribution, Tensor]]:
        """Per method, the distribution of a batch, at temperature 1, and its gold labels."""

    def temperature(self, method: str) -> float:
        return self.temperatures.get(method, 1.0)

    def on_fit_start(self) -> None:
        self.temperatures = {}  # those of a checkpoint that is trained further are out of date

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.temperatures:
            checkpoint["lnz"]["temperatures"] = dict(self.temperatures)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        temperatures = checkpoint["lnz"].get("temperatures", {})
        for method, temperature in temperatures.items():
            check_positive(f"temperature of {method}", temperature)
        self.temperatures = dict(temperatures)


def calibrate_run(trainer: pl.Trainer, module: CalibratedModule, data: Any, folder: Path) -> None:
    """Fit the temperatures of a trained module, and of the module in each checkpoint of its ``folder``.

    Of several processes the first does it, on all of the data.
    """
    found = fitted(module, data, Console()) if trainer.is_global_zero else {}
    module.temperatures = trainer.strategy.broadcast(found)
    if not trainer.is_global_zero:
        return
    for path in sorted(folder.glob("checkpoints/*.ckpt")):
        checkpoint = load_checkpoint(path)
        if path.stem == "last":
            checkpoint["lnz"]["temperatures"] = module.temperatures
        else:  # weights of another epoch
            kept = type(module).from_checkpoint(checkpoint, str(path))
            checkpoint["lnz"]["temperatures"] = fitted(kept, data)
        AtomicCheckpointIO().save_checkpoint(checkpoint, path)


def fitted(module: CalibratedModule, data: Any, console: Console | None = None) -> dict[str, float]:
    """The temperature of each method at which validation data are most probable; ``console`` is told of each.

    A method without a best one stays at 1, which is said too.
    """
    module = module.cpu().eval()
    pairs: dict[str, list[tuple[StructuredDistribution, Tensor]]] = {}
    trainer, data.trainer = data.trainer, None  # whose loaders give each process its share
    try:
        loader = data.val_dataloader()
    finally:
        data.trainer = trainer
    with torch.no_grad():
        for batch in loader:
            for method, pair in module.distributions(batch).items():
                pairs.setdefault(method, []).append(pair)
    found = {}
    for method, given in pairs.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the report says how many converge
                temperature = calibrate(None, given, by=module.calibrated_by)
            found[method], said = float(temperature), repr(temperature)
        except FailedEstimateError as error:
            found[method], said = 1.0, f"1, uncalibrated: {error}"
        if console is not None:
            console.say(f"temperature of {method}: {said}")
    return found


def calibration_line(temperatures: Mapping[str, float], names: Mapping[str, str]) -> str:
    """What a caption says of temperatures, where there are any; ``names`` of the methods as they are shown."""
    if not temperatures:
        return ""
    each = ", ".join(f"{names[method]} {value:.3f}" for method, value in temperatures.items())
    return f" Scores divided by temperatures that were fitted on the run's validation data: {each}."
