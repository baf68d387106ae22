"""Tasks that judge a structured network beside a softmax, by the same measures on the same data."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import lightning.pytorch as pl

from lnz.tasks.paired import PairedModule
from lnz.tasks.task import Task


class PairedTask(Task):
    """A task whose module is a :class:`~lnz.tasks.paired.PairedModule`."""

    def judge(
        self, seed: int, trainer: pl.Trainer, module: Any, data: Any, seconds: float, history: list[dict[str, float]]
    ) -> Any:
        """The measures on the validation data."""
        return self._measured(trainer, module, data, seed=seed, seconds=seconds, history=history)

    def evaluate(self, seed: int, trainer: pl.Trainer, module: Any, data: Any) -> Any:
        return self._measured(trainer, module, data, seed=seed, seconds=0.0, history=[])

    def _measured(self, trainer: pl.Trainer, module: PairedModule, data: Any, **of_run: Any) -> Any:
        logged = trainer.validate(module, datamodule=data, verbose=False)[0]
        titles = self.report.VERSUS.titles
        measures = {
            method: {name: logged[f"val/{method}_{name}"] for name in titles if f"val/{method}_{name}" in logged}
            for method in module.networks
        }
        temperatures, reliability = dict(module.temperatures), dict(module.reliability)
        return self.result(
            measures=measures,
            data=data.says,
            temperatures=temperatures,
            reliability=reliability,
            **of_run,
            **self.about(module),
        )

    @abstractmethod
    def about(self, module: Any) -> dict[str, Any]:
        """What a result says of the module, by name."""
