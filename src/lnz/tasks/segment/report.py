"""What a finished run shows: the table of measures over seeds, and a report that is one file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from lnz.tasks.calibrated import calibration_line
from lnz.tasks.page import Page, Row, Section, mean_and_spread
from lnz.tasks.segment.measures import HIGHER_IS_BETTER, PERCENT, TITLES
from lnz.tasks.segment.objectives import ENOUGH, OBJECTIVES
from lnz.tasks.versus import Versus

VERSUS = Versus("mrf", "MRF", TITLES, HIGHER_IS_BETTER, PERCENT)
NOTE = (
    "The marginal negative log-likelihood is −ln of the probability that a pixel's gold label has, in nats. "
    "The gain is positive where the MRF is better; its spread is over the differences seed by seed."
)
CLASS_HEADINGS = ["pixels %", "softmax IoU %", "MRF IoU %"]
CLASS_NOTE = (
    "Intersection over union of each class: the pixels that are of it both in gold and in the prediction, over those "
    "that are of it in either. mIoU is the mean over classes that either shows; – marks the others."
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
        classes: by name, the "share" of the judged pixels that are of it, and per method its intersection over union
            (``None`` where neither gold labels nor predictions show the class).
        void: the share of the pixels that are not judged.
        temperatures: by method, that its scores were divided by; none where none were fitted.
        reliability: per method and bin, the mean probability, the share of right labels, the share of all labels.
        reweighted: of the objective "nll", where tree-reweighted belief propagation has taken over: the "epoch" after
            which, and the "share" of its training images on which belief propagation had converged.
    """

    seed: int
    measures: dict[str, dict[str, float]]
    converged: float
    seconds: float
    history: list[dict[str, float]]
    objective: str
    step_seconds: float
    classes: dict[str, dict[str, float | None]] = field(default_factory=dict)
    void: float = 0.0
    temperatures: dict[str, float] = field(default_factory=dict)
    reliability: dict[str, list[list[float]]] = field(default_factory=dict)
    reweighted: dict[str, float] = field(default_factory=dict)


def caption(results: Sequence[Result], about: str = "") -> str:
    """What was judged and how; ``about`` says on what data, by default the validation images of the run."""
    seeds = ", ".join(str(result.seed) for result in results)
    converged = statistics.fmean(result.converged for result in results)
    spread = " (mean ± standard deviation over seeds)" if len(results) > 1 else ""
    objective: Any = results[0].objective
    labels = "best labellings" if OBJECTIVES[objective].decodes else "labels of largest node belief"
    seconds = sum(result.seconds for result in results)
    step = 1000 * statistics.fmean(result.step_seconds for result in results)
    by = inference_line(results)
    cost = "" if about else f" {seconds:.0f} s; a step of the MRF {step:.0f} ms."
    return (
        f"softmax: one per pixel, independent; MRF: exponential softmax over the grid, trained by {objective}, "
        f"{labels}. Seed {seeds}{spread}. {about or 'Validation images, weights of the last epoch'}; NLL is −ln of the "
        f"gold label's marginal, per pixel, ECE the expected calibration error. {by}Beliefs converged on "
        f"{100 * converged:.1f} % of the images.{calibration_line(results[0].temperatures, VERSUS.names)}{cost}"
    )


def inference_line(results: Sequence[Result]) -> str:
    """Of the objective "nll", which belief propagation trains and gives the beliefs; empty of others, who name it."""
    if results[0].objective != "nll":
        return ""
    said = []
    for result in results:
        seed = f"seed {result.seed}: " if len(results) > 1 else ""
        if result.reweighted:
            epoch, share = result.reweighted["epoch"], result.reweighted["share"]
            said.append(
                f"{seed}tree-reweighted belief propagation, which took over after epoch {epoch:.0f}, in which belief "
                f"propagation converged on {100 * share:.1f} % of the training images, fewer than {100 * ENOUGH:.0f} %"
            )
        else:
            said.append(f"{seed}belief propagation")
    return f"Training and beliefs by {'; '.join(dict.fromkeys(said))}. "


def class_rows(results: Sequence[Result]) -> list[Row]:
    """Intersection over union per class, of both methods, and the share of the judged pixels that are of the class."""
    rows = []
    for name, shares in results[0].classes.items():
        measured = {key: [result.classes[name][key] for result in results] for key in shares}
        rows.append(Row(name, [_percent(values) for values in measured.values()]))
    return rows


def _percent(values: Sequence[float | None]) -> str:
    """In percent; a dash where no seed has it, since neither gold labels nor predictions show the class."""
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    mean, spread = mean_and_spread(found)
    return f"{100 * mean:.2f}" if math.isnan(spread) else f"{100 * mean:.2f} ± {100 * spread:.2f}"


def void_line(results: Sequence[Result]) -> str:
    """What void pixels are, where there are such."""
    void = results[0].void
    if not void:
        return ""
    return (
        f"{100 * void:.2f} % of the pixels are void: they have no gold label, are drawn black in it, and count in no "
        "loss and no measure. What is predicted there is shown, and not judged."
    )


def table(results: Sequence[Result], about: str = "") -> RenderableType:
    """The tables for a terminal: both methods, and each class."""
    text = " ".join(filter(None, (caption(results, about), void_line(results))))
    classes = Table(title="Classes", show_edge=False, pad_edge=False)
    for column, heading in enumerate(["", *CLASS_HEADINGS]):
        classes.add_column(heading, justify="right" if column else "left")
    for row in class_rows(results):
        classes.add_row(row.name, *row.cells)
    return Group(VERSUS.table("Segmentation", text, results), "", classes)


def page(results: Sequence[Result], picture: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    wanted = {"train/{}_loss": "training loss per pixel", "val/{}_miou": "mIoU", "val/{}_nll": "marginal NLL per pixel"}
    return Page(
        title="lnz fit segment",
        headings=VERSUS.headings(VERSUS.measures(results)),
        rows=VERSUS.rows(results),
        notes=[caption(results), NOTE, *filter(None, [void_line(results)])],
        tables=[Section("Classes", CLASS_HEADINGS, class_rows(results), CLASS_NOTE)],
        picture=picture,
        picture_says="image, gold labels, labels of both methods, confidence; below, the colours of the classes",
        charts=[*VERSUS.curves(results, wanted), *VERSUS.reliability(results)],
        config=config,
        about=about,
    ).html()
