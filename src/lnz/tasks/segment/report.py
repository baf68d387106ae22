"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz import plot
from lnz.tasks.page import Page, Row, mean_and_spread
from lnz.tasks.segment.measures import HIGHER_IS_BETTER, TITLES
from lnz.tasks.segment.objectives import OBJECTIVES

Measured = Mapping[str, Mapping[str, float]]
"""Per method ("softmax", "mrf") and measure, a number."""
NAMES = {"softmax": "softmax", "mrf": "MRF", "gain": "gain of MRF"}
NOTE = (
    "The marginal negative log-likelihood is −ln of the probability that a pixel's gold label has, in nats. "
    "The gain is positive where the MRF is better; its spread is over the differences seed by seed."
)


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON.

    Attributes:
        seed: what all was drawn from.
        measures: per method ("softmax", "mrf") and measure, on the validation images.
        converged: the share of validation images whose beliefs converged.
        seconds: of training.
        history: the logged values of each epoch.
        objective: what the MRF was trained by.
        step_seconds: of one step of the MRF, its loss and gradient, without the softmax's.
    """

    seed: int
    measures: dict[str, dict[str, float]]
    converged: float
    seconds: float
    history: list[dict[str, float]]
    objective: str
    step_seconds: float


def summary(results: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Per row (both methods, and the gain seed by seed) and measure, mean and standard deviation over seeds.

    The gain is positive where the MRF is better. The deviation of one seed alone is NaN.
    """
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for row in NAMES:
        rows[row] = {}
        for measure in TITLES:
            sign = 1 if HIGHER_IS_BETTER[measure] else -1
            values = [
                sign * (result.measures["mrf"][measure] - result.measures["softmax"][measure])
                if row == "gain"
                else result.measures[row][measure]
                for result in results
            ]
            rows[row][measure] = mean_and_spread(values)
    return rows


def cell(row: str, measure: str, mean: float, spread: float) -> str:
    """A number as it is shown: accuracy and mIoU in percent, the rest in nats and probability."""
    scale, digits = (100, 2) if measure in ("accuracy", "miou") else (1, 4)
    sign = "+" if row == "gain" else ""
    text = f"{scale * mean:{sign}.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {scale * spread:.{digits}f}"


def headings() -> list[str]:
    return ["", *(f"{title}{' %' if key in ('accuracy', 'miou') else ''}" for key, title in TITLES.items())]


def caption(results: Sequence[Result]) -> str:
    seeds = ", ".join(str(result.seed) for result in results)
    converged = statistics.fmean(result.converged for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    objective: Any = results[0].objective
    labels = "best labellings" if OBJECTIVES[objective].decodes else "labels of largest node belief"
    return (
        f"softmax: one per pixel, independent; MRF: exponential softmax over the grid, trained by {objective}, "
        f"{labels}. Seed {seeds}{spread}. Validation images, weights of the last epoch; NLL is −ln of the gold label's "
        f"marginal, per pixel, ECE the expected calibration error. Beliefs converged on {100 * converged:.1f} % of the "
        f"images. {sum(result.seconds for result in results):.0f} s; a step of the MRF "
        f"{1000 * statistics.fmean(result.step_seconds for result in results):.0f} ms."
    )


def table(results: Sequence[Result]) -> Table:
    """The table for a terminal."""
    shown = Table(title="Segmentation", caption=caption(results), caption_justify="left")
    for column, heading in enumerate(headings()):
        shown.add_column(heading, justify="right" if column else "left")
    for row, cells in summary(results).items():
        style = "bold" if row == "gain" else None
        shown.add_row(NAMES[row], *(cell(row, key, *value) for key, value in cells.items()), style=style)
    return shown


def curve_figures(results: Sequence[Result]) -> list[bytes]:
    """The curves of training loss, validation mIoU and marginal NLL as PNG."""
    wanted = {"train/{}_loss": "training loss per pixel", "val/{}_miou": "mIoU", "val/{}_nll": "marginal NLL per pixel"}
    figures = []
    for pattern, title in wanted.items():
        series = {
            f"{result.seed} {method}": [
                (point["epoch"], point[pattern.format(method)])
                for point in result.history
                if pattern.format(method) in point
            ]
            for result in results
            for method in ("softmax", "mrf")
        }
        figures.append(plot.png(plot.curves(series, title)))
    return figures


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    return Page(
        title="lnz fit segment",
        headings=headings()[1:],
        rows=[
            Row(NAMES[row], [cell(row, key, *value) for key, value in cells.items()], strong=row == "gain")
            for row, cells in summary(results).items()
        ],
        notes=[caption(results), NOTE],
        picture=picture,
        picture_says="image, gold labels, labels of both methods, confidence",
        charts=curve_figures(results),
        config=config,
        about=about,
    ).html()
