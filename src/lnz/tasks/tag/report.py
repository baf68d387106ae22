"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz import plot
from lnz.tasks.page import Page, Row, mean_and_spread
from lnz.tasks.tag.measures import HIGHER_IS_BETTER, PERCENT, TITLES

NAMES = {"softmax": "softmax", "crf": "chain", "gain": "gain of chain"}
NOTE = (
    "The marginal negative log-likelihood is −ln of the probability that a token's gold tag has, in nats. "
    "The gain is positive where the chain is better; its spread is over the differences seed by seed."
)


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON.

    Attributes:
        seed: what all was drawn from.
        measures: per method ("softmax", "crf") and measure, on the validation sequences; "f1" where tags mark spans.
        seconds: of training.
        history: the logged values of each epoch.
        objective: what the chain was trained by.
        data: what was tagged, in words.
    """

    seed: int
    measures: dict[str, dict[str, float]]
    seconds: float
    history: list[dict[str, float]]
    objective: str
    data: str


def shown_measures(results: Sequence[Result]) -> list[str]:
    """Those that there are, in the order of the table."""
    return [measure for measure in TITLES if measure in results[0].measures["crf"]]


def summary(results: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Per row (both methods, and the gain seed by seed) and measure, mean and standard deviation over seeds.

    The gain is positive where the chain is better. The deviation of one seed alone is NaN.
    """
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    for row in NAMES:
        rows[row] = {}
        for measure in shown_measures(results):
            sign = 1 if HIGHER_IS_BETTER[measure] else -1
            values = [
                sign * (result.measures["crf"][measure] - result.measures["softmax"][measure])
                if row == "gain"
                else result.measures[row][measure]
                for result in results
            ]
            rows[row][measure] = mean_and_spread(values)
    return rows


def cell(row: str, measure: str, mean: float, spread: float) -> str:
    """A number as it is shown: shares in percent, the rest in nats and probability."""
    scale, digits = (100, 2) if measure in PERCENT else (1, 4)
    text = f"{scale * mean:{'+' if row == 'gain' else ''}.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {scale * spread:.{digits}f}"


def rows_of(results: Sequence[Result]) -> list[Row]:
    """The table's rows, as they are shown."""
    return [
        Row(NAMES[row], [cell(row, key, *value) for key, value in cells.items()], strong=row == "gain")
        for row, cells in summary(results).items()
    ]


def headings(results: Sequence[Result]) -> list[str]:
    return [f"{TITLES[key]}{' %' if key in PERCENT else ''}" for key in shown_measures(results)]


def caption(results: Sequence[Result]) -> str:
    seeds = ", ".join(str(result.seed) for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    return (
        f"softmax: one per position, independent; chain: exponential softmax over whole taggings, trained by "
        f"{results[0].objective}. {results[0].data}. Seed {seeds}{spread}. Validation sequences, best labellings, "
        "weights of the last epoch; NLL is −ln of the gold tag's marginal, per token, ECE the expected calibration "
        f"error. {sum(result.seconds for result in results):.0f} s for both."
    )


def table(results: Sequence[Result]) -> Table:
    """The table for a terminal."""
    shown = Table(title="Tagging", caption=caption(results), caption_justify="left")
    for column, heading in enumerate(["", *headings(results)]):
        shown.add_column(heading, justify="right" if column else "left")
    for row in rows_of(results):
        shown.add_row(row.name, *row.cells, style="bold" if row.strong else None)
    return shown


def curve_figures(results: Sequence[Result]) -> list[bytes]:
    """The curves of training loss, validation score (F1 of spans, or accuracy) and marginal NLL as PNG."""
    score = "span F1" if "f1" in results[0].measures["crf"] else "token accuracy"
    wanted = {"train/{}_loss": "training loss per token", "val/{}_score": score, "val/{}_nll": "marginal NLL per token"}
    figures = []
    for pattern, title in wanted.items():
        series = {
            f"{result.seed} {NAMES[method]}": [
                (point["epoch"], point[pattern.format(method)])
                for point in result.history
                if pattern.format(method) in point
            ]
            for result in results
            for method in ("softmax", "crf")
        }
        figures.append(plot.png(plot.curves(series, title)))
    return figures


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    return Page(
        title="lnz fit tag",
        headings=headings(results),
        rows=rows_of(results),
        notes=[caption(results), NOTE],
        picture=picture,
        picture_says="marginals of the tags of some sequences, gold and best tags, scores of transitions",
        charts=curve_figures(results),
        config=config,
        about=about,
    ).html()
