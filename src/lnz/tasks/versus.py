"""A structured method beside the independent softmax: both, and the gain of the one over the other, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.table import Table

from lnz import plot
from lnz.tasks.page import Row, mean_and_spread


class Compared(Protocol):
    """One seed's outcome."""

    @property
    def seed(self) -> int: ...

    @property
    def measures(self) -> dict[str, dict[str, float]]:
        """Per method and measure, a number."""
        ...

    @property
    def history(self) -> list[dict[str, float]]:
        """The logged values of each epoch."""
        ...


class Judged(Compared, Protocol):
    """One seed's outcome, with the reliability of its probabilities."""

    @property
    def reliability(self) -> dict[str, list[list[float]]]:
        """Per method, what :func:`lnz.tasks.reliability.reliability` gives."""
        ...


@dataclass(frozen=True)
class Versus:
    """How a structured method is compared with the softmax beside it.

    Attributes:
        method: the structured one, among the measures.
        name: of it, as it is shown.
        titles: of the measures, in the order of the table.
        higher_is_better: of each measure.
        percent: measures that are shares, and shown in percent.
        baseline: the name of a further row, of what results hold as ``baseline``: measures that need no training.
    """

    method: str
    name: str
    titles: Mapping[str, str]
    higher_is_better: Mapping[str, bool]
    percent: Collection[str]
    baseline: str = ""

    @property
    def names(self) -> dict[str, str]:
        """The rows."""
        return {"softmax": "softmax", self.method: self.name, "gain": f"gain of {self.name}"}

    def measures(self, results: Sequence[Compared]) -> list[str]:
        """Those that there are, in the order of the table."""
        return [measure for measure in self.titles if measure in results[0].measures[self.method]]

    def summary(self, results: Sequence[Compared]) -> dict[str, dict[str, tuple[float, float]]]:
        """Per row and measure, mean and standard deviation over seeds; NaN is the deviation of one seed alone.

        The gain is positive where the structured method is better; its spread is over the differences.
        """
        return {
            row: {m: mean_and_spread([self._value(row, m, of) for of in results]) for m in self.measures(results)}
            for row in self.names
        }

    def _value(self, row: str, measure: str, result: Compared) -> float:
        if row != "gain":
            return result.measures[row][measure]
        gain = result.measures[self.method][measure] - result.measures["softmax"][measure]
        return gain if self.higher_is_better[measure] else -gain

    def cell(self, row: str, measure: str, mean: float, spread: float) -> str:
        """A number as it is shown: shares in percent, the rest in nats and probability."""
        scale, digits = (100, 2) if measure in self.percent else (1, 4)
        text = f"{scale * mean:{'+' if row == 'gain' else ''}.{digits}f}"
        return text if math.isnan(spread) else f"{text} ± {scale * spread:.{digits}f}"

    def rows(self, results: Sequence[Compared]) -> list[Row]:
        """The table's rows, as they are shown."""
        rows = [
            Row(self.names[row], [self.cell(row, key, *value) for key, value in cells.items()], strong=row == "gain")
            for row, cells in self.summary(results).items()
        ]
        each: list[dict[str, float]] = [getattr(result, "baseline", {}) for result in results]
        if all(each):
            known = {m: mean_and_spread([of[m] for of in each]) for m in each[0]}
            cells = [self.cell("", m, *known[m]) if m in known else "–" for m in self.measures(results)]
            rows.insert(0, Row(self.baseline, cells))
        return rows

    def headings(self, measures: Iterable[str] | None = None) -> list[str]:
        """Of the columns of measures; by default, of all."""
        return [f"{self.titles[m]}{' %' if m in self.percent else ''}" for m in measures or self.titles]

    def table(self, title: str, caption: str, results: Sequence[Compared]) -> Table:
        """The table for a terminal."""
        # without edges, four measures of several seeds fit in 80 columns
        shown = Table(title=title, caption=caption, caption_justify="left", show_edge=False, pad_edge=False)
        for column, heading in enumerate(["", *self.headings(self.measures(results))]):
            shown.add_column(heading, justify="right" if column else "left")
        for row in self.rows(results):
            shown.add_row(row.name, *row.cells, style="bold" if row.strong else None)
        return shown

    def reliability(self, results: Sequence[Judged]) -> list[bytes]:
        """Both methods' reliability over all seeds as PNG, in a list of one; of none where none was kept."""
        series = {
            f"{result.seed} {self.names[method]}": bins
            for result in results
            for method, bins in result.reliability.items()
        }
        return [plot.png(plot.reliability(series, "reliability of marginals"))] if series else []

    def curves(self, results: Sequence[Compared], wanted: Mapping[str, str]) -> list[bytes]:
        """Curves of both methods as PNG, one picture per logged value with ``{}`` for the method, and its title."""
        figures = []
        for pattern, title in wanted.items():
            series = {
                f"{result.seed} {self.names[method]}": [
                    (point["epoch"], point[pattern.format(method)])
                    for point in result.history
                    if pattern.format(method) in point
                ]
                for result in results
                for method in ("softmax", self.method)
            }
            figures.append(plot.png(plot.curves(series, title)))
        return figures
