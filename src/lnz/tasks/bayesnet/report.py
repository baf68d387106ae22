"""What a finished run shows: log-likelihoods, criteria, the tables that changed most, and the curve of EM."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from lnz import plot
from lnz.distributions import BayesNet
from lnz.tasks.bayesnet.data import Observed
from lnz.tasks.criteria import criteria, log_likelihood, shown_number
from lnz.tasks.page import Page, Row, Section
from lnz.typing import IGNORE

HEADINGS = ("ln L", "per row", "AIC", "BIC", "test, per row")
NAMES = {
    "independent": "independent variables",
    "start": "start",
    "fitted": "learned",
    "source": "source of the rows",
}
CHANGED = 10
"""Tables that are listed."""


@dataclass(frozen=True)
class Change:
    """How far a table went: the total variation of its rows, weighted by how often their parents occur."""

    variable: str
    parents: list[str]
    distance: float


@dataclass(frozen=True)
class Result:
    """A finished run, as plain values.

    Attributes:
        rows: those to learn from, by their weights.
        missing: missing cells of the variables that have a column.
        cells: of these variables, missing or not.
        hidden: the names of the variables without any observation.
        measures: by the names of ``NAMES``: ``log_likelihood``, ``per_row`` and, of test rows, ``test`` (ln P per row,
            −∞ where one is impossible); of what was learned ``parameters``, ``aic`` and ``bic`` too.
        starts: the last ln L of each start.
        best: the number of the start that was kept.
        iterations: of that start.
        converged: whether it did.
        seconds: of learning.
        history: ln L of that start, before the first iteration and after each one.
        changed: the tables that changed most, first.
        says: where the rows are from.
        seed: of all random numbers.
    """

    rows: float
    missing: int
    cells: int
    hidden: list[str]
    measures: dict[str, dict[str, float]]
    starts: list[float]
    best: int
    iterations: int
    converged: bool
    seconds: float
    history: list[float]
    changed: list[Change]
    says: str
    seed: int


def measures(net: BayesNet, observed: Observed, parameters: int | None = None) -> dict[str, float]:
    """What a network is judged by; AIC and BIC are of networks learned from these rows, with so many parameters."""
    value = log_likelihood(net, observed.train)
    found = {"log_likelihood": value, "per_row": value / observed.train.total}
    if parameters is not None:
        found = dataclasses.asdict(criteria(value, parameters, observed.train.total))
    if observed.test is not None:
        found["test"] = log_likelihood(net, observed.test) / observed.test.total
    return found


def independent(net: BayesNet, observed: Observed) -> dict[str, float]:
    """The same of variables that are independent, each by the frequencies of its own cells."""
    seen = [v for v in range(len(net.names)) if v not in observed.hidden]
    tables = []
    for v, card in enumerate(net.cardinalities):
        cells, weights = observed.train.labels[:, v], observed.train.weights
        known = cells != IGNORE
        counts = torch.zeros(card, dtype=torch.float64).index_add_(0, cells[known], weights[known])
        tables.append((counts / counts.sum()).log() if v in seen else torch.zeros(card).double().log_softmax(-1))
    alone = BayesNet(net.cardinalities, [[]] * len(net.names), tables)
    return measures(alone, observed, sum(int((tables[v] > -math.inf).sum()) - 1 for v in seen))


def changes(before: BayesNet, after: BayesNet, counts: Sequence[Tensor]) -> list[Change]:
    """How far each table went, the farthest first; ``counts`` are the expected ones under ``after``."""
    found = []
    for v, (one, two, count) in enumerate(zip(before.log_cpts, after.log_cpts, counts, strict=True)):
        share = count.sum(-1) / count.sum()
        distance = float((share * (one.exp() - two.exp()).abs().sum(-1) / 2).sum())
        found.append(Change(before.names[v], [before.names[parent] for parent in before.parents[v]], distance))
    return sorted(found, key=lambda change: -change.distance)


def rows_of(result: Result) -> list[Row]:
    """The table's rows, as they are shown."""
    return [
        Row(
            NAMES[name],
            [
                shown_number(of["log_likelihood"], 3),
                shown_number(of["per_row"], 4),
                shown_number(of.get("aic"), 1),
                shown_number(of.get("bic"), 1),
                shown_number(of.get("test"), 4),
            ],
            strong=name == "fitted",
        )
        for name, of in result.measures.items()
    ]


def headings(result: Result) -> list[str]:
    """Of the columns after the first."""
    return list(HEADINGS if "test" in result.measures["fitted"] else HEADINGS[:-1])


def notes(result: Result) -> list[str]:
    """What was learned from, and how."""
    share = 100 * result.missing / result.cells
    hidden = f" Never observed: {', '.join(result.hidden)}." if result.hidden else ""
    ended = "converged" if result.converged else "not converged: max_iterations allows no more"
    starts = f"Best of {len(result.starts)} starts, number {result.best + 1}: " if len(result.starts) > 1 else ""
    lost = -math.inf in [of.get("test") for of in result.measures.values()]
    zero = " A test row has probability 0 where −∞ stands; model.pseudocount avoids that." if lost else ""
    return [
        f"{result.rows:g} rows ({result.says}), {result.missing} of {result.cells} cells missing ({share:.1f} %)."
        f"{hidden}",
        f"{starts}{result.iterations} iterations, {ended}; {result.measures['fitted']['parameters']} free parameters; "
        f"{result.seconds:.1f} s. Seed {result.seed}.",
        "ln L in nats; AIC is 2 k − 2 ln L and BIC k ln n − 2 ln L of k parameters and n rows, smaller is better."
        f"{zero}",
    ]


def table(result: Result) -> Table:
    """The table for a terminal."""
    changed = ", ".join(f"{each.variable} {each.distance:.3f}" for each in result.changed[:5])
    caption = "\n".join([*notes(result), f"Tables that changed most (total variation): {changed}."])
    shown = Table(title="Bayesian network", caption=caption, caption_justify="left")
    for column, heading in enumerate(["", *headings(result)]):
        shown.add_column(heading, justify="right" if column else "left")
    for row in rows_of(result):
        cells = row.cells[: len(headings(result))]
        shown.add_row(row.name, *cells, style="bold" if row.strong else None)
    return shown


def picture(histories: Sequence[Sequence[float]], best: int) -> bytes:
    """The log-likelihood after each iteration of every start, as PNG; where starts begin, it may be far lower."""
    curves = [list(enumerate(points))[min(1, len(points) - 1) :] for points in histories]
    series = {f"{k} other": points for k, points in enumerate(curves) if k != best}
    return plot.png(plot.curves(series | {"best": curves[best]}, "ln L", "iteration"))


def page(result: Result, drawn: bytes, config: str, about: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    changed = [
        Row(each.variable, [", ".join(each.parents), f"{each.distance:.4f}"]) for each in result.changed[:CHANGED]
    ]
    heads = headings(result)
    return Page(
        title="lnz fit bayesnet",
        headings=heads,
        rows=[Row(row.name, row.cells[: len(heads)], row.strong) for row in rows_of(result)],
        notes=notes(result),
        picture=drawn,
        picture_says="the log-likelihood by iteration",
        charts=[],
        config=config,
        about=about,
        tables=[
            Section(
                "Tables that changed most",
                ["parents", "total variation"],
                changed,
                "Half the sum of absolute changes of a row, averaged over the parents as often as they are expected: "
                "0 where a table stayed as it was, 1 where it became sure of what it had ruled out.",
            )
        ],
    ).html()
