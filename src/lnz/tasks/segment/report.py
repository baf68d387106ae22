"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz.tasks.page import Page
from lnz.tasks.segment.measures import HIGHER_IS_BETTER, PERCENT, TITLES
from lnz.tasks.segment.objectives import OBJECTIVES
from lnz.tasks.versus import Versus

VERSUS = Versus("mrf", "MRF", TITLES, HIGHER_IS_BETTER, PERCENT)
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
    return VERSUS.table("Segmentation", caption(results), results)


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    wanted = {"train/{}_loss": "training loss per pixel", "val/{}_miou": "mIoU", "val/{}_nll": "marginal NLL per pixel"}
    return Page(
        title="lnz fit segment",
        headings=VERSUS.headings(),
        rows=VERSUS.rows(results),
        notes=[caption(results), NOTE],
        picture=picture,
        picture_says="image, gold labels, labels of both methods, confidence",
        charts=VERSUS.curves(results, wanted),
        config=config,
        about=about,
    ).html()
