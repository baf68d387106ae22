"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

import base64
import html
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch
from rich.table import Table

import lnz
from lnz import plot
from lnz.tasks.segment.measures import HIGHER_IS_BETTER, TITLES

Measured = Mapping[str, Mapping[str, float]]
"""Per method ("softmax", "mrf") and measure, a number."""
NAMES = {"softmax": "softmax", "mrf": "MRF", "gain": "gain of MRF"}


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON."""

    seed: int
    measures: dict[str, dict[str, float]]
    converged: float
    seconds: float
    history: list[dict[str, float]]


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
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            rows[row][measure] = (statistics.fmean(values), spread)
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
    return (
        f"softmax: one per pixel, independent; MRF: exponential softmax over the grid, labels of largest node belief. "
        f"Seed {seeds}{spread}. Validation images, weights of the last epoch; NLL is −ln of the gold label's marginal, "
        f"per pixel, ECE the expected calibration error. Belief propagation converged on {100 * converged:.1f} % of "
        f"the images. "
        f"{sum(result.seconds for result in results):.0f} s."
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
    rows = "".join(
        f"<tr{' class=gain' if row == 'gain' else ''}><th>{NAMES[row]}</th>"
        + "".join(f"<td>{cell(row, key, *value)}</td>" for key, value in cells.items())
        + "</tr>"
        for row, cells in summary(results).items()
    )
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings())
    facts = {
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "lnz": lnz.__version__,
        "torch": torch.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **about,
    }
    listed = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in facts.items())
    charts = "".join(_inline(figure, "training curve") for figure in curve_figures(results))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>lnz fit segment</title><style>{STYLE}</style></head><body>
<h1>lnz fit segment</h1>
<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>
<p>{html.escape(caption(results))}</p>
<p>The marginal negative log-likelihood is −ln of the probability that a pixel's gold label has, in nats. The gain is
positive where the MRF is better; its spread is over the differences seed by seed.</p>
<h2>Picture</h2>{_inline(picture, "image, gold labels, labels of both methods, confidence")}
<h2>Curves</h2><div>{charts}</div>
<h2>Run</h2><dl>{listed}</dl>
<h2>Configuration</h2><pre>{html.escape(config)}</pre>
</body></html>
"""


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}th,td{padding:.35rem .8rem;text-align:right;border-bottom:1px solid #ccc}
th:first-child{text-align:left}.gain{font-weight:bold}img{max-width:100%}pre{background:#f4f4f4;padding:1rem;overflow:auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dd{margin:0}"""


def _inline(image: bytes, what: str) -> str:
    return f'<img alt="{html.escape(what)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
