"""What a task of ``lnz fit`` is: the part that differs from task to task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import lightning.pytorch as pl
from rich.console import RenderableType

from lnz.tasks.module import TaskModule


class Result(Protocol):
    """One seed's outcome: a dataclass of plain values, so that it can be kept as JSON."""

    seed: int


class Task(ABC):
    """Module, data, what is judged and how it is shown; :func:`lnz.tasks.run.run` does the rest."""

    name: ClassVar[str]
    description: ClassVar[str]
    examples: ClassVar[str]
    module: ClassVar[type[TaskModule]]
    data: ClassVar[type[pl.LightningDataModule]]
    """Takes the ``seed`` that its splits, order and augmentation are drawn from."""
    test: ClassVar[type[Any]]
    """New data, all of it judged: takes the trained module first, and as options what says where the data are."""
    report: ClassVar[Any]
    """The module of the functions ``table`` and ``page``, and of the class of results."""
    best: ClassVar[tuple[str, Literal["min", "max"]]]
    """The logged value that the best checkpoint is chosen by, and which way."""
    epochs: ClassVar[int]
    """Trained, unless ``--trainer.max_epochs`` says otherwise."""

    @property
    def result(self) -> type[Any]:
        """The class of a seed's outcome."""
        return self.report.Result

    @abstractmethod
    def add_arguments(self, parser: Any) -> None:
        """Add options of the task's own, and link those of data and model."""

    @abstractmethod
    def judge(
        self, seed: int, trainer: pl.Trainer, module: Any, data: Any, seconds: float, history: list[dict[str, float]]
    ) -> Any:
        """Judge a trained module: a ``result``."""

    @abstractmethod
    def evaluate(self, seed: int, trainer: pl.Trainer, module: Any, data: Any) -> Any:
        """Judge a trained module on new data, a ``test``: a ``result`` without what is about training."""

    @abstractmethod
    def picture(self, module: Any, data: Any) -> bytes:
        """What a trained module does, as PNG."""

    def table(self, results: Sequence[Any], about: str = "") -> RenderableType:
        """The table of all seeds, for a terminal; ``about`` says of what data, by default those of the run."""
        return self.report.table(results, about)

    def page(self, results: Sequence[Any], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
        """The report of all seeds as one HTML page that needs no other file."""
        return self.report.page(results, picture, config, about)
