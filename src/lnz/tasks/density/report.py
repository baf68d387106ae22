"""What a finished run shows: log-likelihoods beside those of independent pixels, ln Z both ways, and pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz import plot
from lnz.tasks.page import Page, Row, mean_and_spread

TITLES = {"train": "ln P, training", "test": "ln P, test", "pseudo": "pseudolikelihood, test"}
NAMES = {"rbm": "RBM", "grid": "hidden grid"}
NOTES = (
    "All in nats per image, higher is better. ln P is exact where ln Z is; the "
    "pseudolikelihood is Σ ln P(pixel | all other pixels). Independent pixels have the means of the training images. "
    "The spread of the gain is over the differences seed by seed."
)


@dataclass(frozen=True)
class Result:
    """One seed's outcome; plain values, so that it can be kept as JSON.

    ``measures`` holds, for "pixels" and "model", the numbers of :data:`TITLES`; ``log_z`` what
    :class:`~lnz.tasks.density.judge.LogZ` holds.
    """

    seed: int
    kind: str
    objective: str
    measures: dict[str, dict[str, float]]
    log_z: dict[str, float | None]
    seconds: float
    history: list[dict[str, float]]


def measured(results: Sequence[Result]) -> list[str]:
    """The measures that there are, in the order of the table."""
    return [key for key in TITLES if key in results[0].measures["model"]]


def summary(results: Sequence[Result]) -> dict[str, dict[str, tuple[float, float]]]:
    """Per row ("pixels", "model", "gain") and measure, mean and standard deviation over seeds."""
    rows = {}
    for row in ("pixels", "model", "gain"):
        rows[row] = {}
        for key in measured(results):
            values = [
                result.measures["model"][key] - result.measures["pixels"][key]
                if row == "gain"
                else result.measures[row][key]
                for result in results
            ]
            rows[row][key] = mean_and_spread(values)
    return rows


def rows_of(results: Sequence[Result]) -> list[Row]:
    """The table's rows, as they are shown."""
    names = {
        "pixels": "independent pixels",
        "model": f"{NAMES[results[0].kind]}, {results[0].objective}",
        "gain": "gain",
    }
    return [
        Row(names[row], [_shown(*value, sign="+" if row == "gain" else "") for value in cells.values()], row == "gain")
        for row, cells in summary(results).items()
    ]


def log_z_lines(results: Sequence[Result]) -> list[str]:
    """Per seed, ln Z both ways, in words."""
    lines = []
    for result in results:
        z = result.log_z
        low, high = z["low"], z["high"]
        annealed = f"annealed importance sampling {z['annealed']:.3f} ± {z['standard_error']:.3f}"
        interval = f"[{low:.3f}, {high:.3f}] at 3 standard errors of Z"
        if z["exact"] is None:
            lines.append(f"Seed {result.seed}: ln Z by {annealed}, {interval}.")
        else:
            inside = "holds" if low <= z["exact"] <= high else "misses"  # type: ignore[operator]
            lines.append(
                f"Seed {result.seed}: ln Z = {z['exact']:.3f}, exact; {annealed}, which {inside} it: {interval}."
            )
    return lines


def caption(results: Sequence[Result], about: str = "") -> str:
    """What was judged; ``about`` says on what data, by default those of the run."""
    seeds = ", ".join(str(result.seed) for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    of = about or f"{sum(result.seconds for result in results):.0f} s, weights of the last epoch"
    return f"Seed {seeds}{spread}. {of}. {NOTES}"


def table(results: Sequence[Result], about: str = "") -> Table:
    """The table for a terminal."""
    text = "\n".join((caption(results, about), *log_z_lines(results)))
    shown = Table(title="Density of binary images", caption=text, caption_justify="left")
    for column, heading in enumerate(("", *(TITLES[key] for key in measured(results)))):
        shown.add_column(heading, justify="right" if column else "left")
    for row in rows_of(results):
        shown.add_row(row.name, *row.cells, style="bold" if row.strong else None)
    return shown


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    series = {
        f"{result.seed} {name}": [
            (point["epoch"], point[f"{part}/log_likelihood"])
            for point in result.history
            if math.isfinite(point.get(f"{part}/log_likelihood", math.nan))
        ]
        for result in results
        for part, name in (("train", "training"), ("val", "test"))
    }
    return Page(
        title="lnz fit density",
        headings=list(TITLES.values()),
        rows=rows_of(results),
        notes=[caption(results), *log_z_lines(results)],
        picture=picture,
        picture_says="images of the data, samples of the model, weights of its hidden units",
        charts=[plot.png(plot.curves(series, "ln P per image"))],
        config=config,
        about=about,
    ).html()


def _shown(mean: float, spread: float, sign: str = "") -> str:
    text = f"{mean:{sign}.3f}"
    return text if math.isnan(spread) else f"{text} ± {spread:.3f}"
