"""What a finished run shows: one row per number of classes, and what each class of the best model is like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from lnz import plot
from lnz.distributions import BayesNet
from lnz.tasks.criteria import shown_number
from lnz.tasks.page import Page, Row, Section

HEADINGS = ("ln L", "parameters", "AIC", "BIC", "best found", "test, per row")
CLOSE = 1e-3
"""Starts that come as close as this to the best, in ln L, have found it."""


@dataclass(frozen=True)
class Result:
    """The best model of one number of classes, as plain values.

    Attributes:
        classes: how many.
        log_likelihood: ln L of all rows.
        parameters: free ones.
        aic: 2 k − 2 ln L.
        bic: k ln n − 2 ln L.
        starts: the last ln L of each start.
        iterations: of the best start.
        converged: whether it did.
        seconds: of learning.
        shares: P(class), the largest first.
        test: ln P per test row, where there are such.
    """

    classes: int
    log_likelihood: float
    parameters: int
    aic: float
    bic: float
    starts: list[float]
    iterations: int
    converged: bool
    seconds: float
    shares: list[float]
    test: float | None = None

    @property
    def found(self) -> int:
        """How many starts found the best."""
        return sum(value > max(self.starts) - CLOSE for value in self.starts)


@dataclass(frozen=True)
class About:
    """What the models were learned from.

    Attributes:
        rows: by their weights.
        missing: missing cells.
        cells: all.
        patterns: different rows that there may be.
        says: where the rows are from.
        seed: of all random numbers.
    """

    rows: float
    missing: int
    cells: int
    patterns: int
    says: str
    seed: int


def best_of(results: Sequence[Result]) -> Result:
    """The model of the smallest BIC."""
    return min(results, key=lambda result: result.bic)


def headings(results: Sequence[Result]) -> list[str]:
    """Of the columns after the first."""
    return list(HEADINGS if results[0].test is not None else HEADINGS[:-1])


def rows_of(results: Sequence[Result]) -> list[Row]:
    """The table's rows, as they are shown."""
    rows = []
    for of in results:
        cells = [f"{of.log_likelihood:.4f}", str(of.parameters), f"{of.aic:.3f}", f"{of.bic:.3f}"]
        cells.append(f"{of.found} of {len(of.starts)}")
        if of.test is not None:
            cells.append(shown_number(of.test, 4))
        name = f"{of.classes} class{'es' if of.classes > 1 else ''}"
        rows.append(Row(name, cells, strong=of is best_of(results)))
    return rows


def notes(results: Sequence[Result], about: About) -> list[str]:
    """What was learned from, and how."""
    share = 100 * about.missing / about.cells
    lines = [
        f"{about.rows:g} rows ({about.says}), {about.missing} of {about.cells} cells missing ({share:.1f} %). Seed "
        f"{about.seed}, {sum(of.seconds for of in results):.1f} s.",
        "ln L in nats; AIC is 2 k − 2 ln L and BIC k ln n − 2 ln L of k parameters and n rows, smaller is better: the "
        f"model of the smallest BIC is kept. Best found: starts that came within {CLOSE} of the highest ln L.",
    ]
    stopped = [str(of.classes) for of in results if not of.converged]
    if stopped:
        lines.append(f"Not converged in model.max_iterations: {', '.join(stopped)} classes.")
    lost = [str(of.classes) for of in results if of.parameters > about.patterns - 1]
    if lost:
        lines.append(
            f"Not identified, more parameters than the {about.patterns - 1} that tell all patterns of answers apart: "
            f"{', '.join(lost)} classes."
        )
    return lines


def table(results: Sequence[Result], about: About) -> Table:
    """The table for a terminal."""
    shown = Table(title="Latent classes", caption="\n".join(notes(results, about)), caption_justify="left")
    for column, heading in enumerate(["", *headings(results)]):
        shown.add_column(heading, justify="right" if column else "left")
    for row in rows_of(results):
        shown.add_row(row.name, *row.cells, style="bold" if row.strong else None)
    return shown


def picture(net: BayesNet) -> bytes:
    """The profiles of the classes, as PNG."""
    shares = net.log_cpts[0].exp().tolist()
    classes = {
        f"class {name}: {100 * share:.1f} %": [table[number].exp() for table in net.log_cpts[1:]]
        for number, (name, share) in enumerate(zip(net.states[0], shares, strict=True))
    }
    return plot.png(plot.profiles(net.names[1:], net.states[1:], classes))


def page(
    results: Sequence[Result], about: About, net: BayesNet, drawn: bytes, config: str, facts: Mapping[str, Any]
) -> str:
    """The report as one HTML page that needs no other file."""
    shares = net.log_cpts[0].exp().tolist()
    profiles = [
        Row(f"{item}: {answer}", [f"{value:.4f}" for value in table[:, number].exp().tolist()])
        for item, answers, table in zip(net.names[1:], net.states[1:], net.log_cpts[1:], strict=True)
        for number, answer in enumerate(answers)
    ]
    curves = {f"{of.classes}": (float(of.classes), of) for of in results}
    series = {
        "AIC": [(at, of.aic) for at, of in curves.values()],
        "BIC": [(at, of.bic) for at, of in curves.values() if math.isfinite(of.bic)],
    }
    return Page(
        title="lnz fit latent-class",
        headings=headings(results),
        rows=rows_of(results),
        notes=notes(results, about),
        picture=drawn,
        picture_says="the profiles of the classes: how likely each answer to each item is",
        charts=[plot.png(plot.curves(series, "criteria", "classes"))] if len(results) > 1 else [],
        config=config,
        about=facts,
        tables=[
            Section(
                "Profiles",
                [f"class {name}, {100 * share:.1f} %" for name, share in zip(net.states[0], shares, strict=True)],
                profiles,
                "P(answer | class) of the model of the smallest BIC, classes by their size.",
            )
        ],
    ).html()
