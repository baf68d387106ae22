"""New rows for the networks that ``lnz fit bayesnet`` and ``lnz fit latent-class`` leave behind.

How likely they are, for ``lnz evaluate``; what their empty cells hold, for ``lnz predict``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.table import Table
from torch import Tensor

from lnz.distributions import BayesNet
from lnz.errors import FormatError, InfeasibleError
from lnz.io.atomic import atomic_write
from lnz.io.files import normalized
from lnz.io.rows import Rows, read_rows, write_csv
from lnz.tasks.bayesnet import report
from lnz.tasks.bayesnet.data import Observed
from lnz.tasks.bayesnet.network import read_network
from lnz.tasks.console import Console
from lnz.tasks.criteria import shown_number
from lnz.tasks.observations import Observations, matched, row_weights, used_columns
from lnz.tasks.options import Help
from lnz.tasks.parsing import Strict
from lnz.typing import IGNORE

NETWORK = "network.bif"
AT_A_TIME = 2**14


class NewRows:
    """Rows of a file with a column per variable, by the names of the network; cells hold the names of states.

    Args:
        rows: file, CSV or Parquet; an empty cell is missing.
        weights: column that says how often each row counts.
        columns: columns to read, as [A,B]; by default, all but that of the weights.
        missing: further texts that stand for nothing, as [NA].
        encoding: of the text of a CSV file; by default UTF-8.
        delimiter: between cells of a CSV file; by default a comma, or a tab where the name ends in .tsv.
    """

    def __init__(
        self,
        rows: Path,
        *,
        weights: str | None = None,
        columns: Sequence[str] | None = None,
        missing: Sequence[str] = (),
        encoding: str | None = None,
        delimiter: str | None = None,
    ) -> None:
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(f"data.delimiter: expected one character, got {delimiter!r}")
        self.rows, self.weights, self.columns = read_rows(rows, encoding, delimiter), weights, columns
        self.missing = tuple(missing)

    def observed(self, net: BayesNet) -> Observations:
        """What has been observed of the variables of ``net``.

        Raises:
            FormatError: a column that is no variable, or a cell that is no state, by column and row.
        """
        columns = used_columns(self.rows, self.columns, self.weights)
        labels = matched(self.rows, columns, net.names, net.states, self.missing)
        return Observations(labels, row_weights(self.rows, self.weights), self.rows)


class _Parser(Strict, ArgumentParser):
    """The options of new rows."""


def network_of(model: Path) -> Path | None:
    """The network of a run folder, or the BIF file itself; ``None`` of all else."""
    inside = model / NETWORK
    if model.is_dir():
        return inside if inside.is_file() else None
    return model if model.name.lower().endswith((".bif", ".bif.gz")) else None


def evaluate(model: Path, network: Path, argv: Sequence[str], console: Console) -> None:
    """Show how likely the rows that ``argv`` asks for are, beside independent variables, as a table or JSON.

    Raises:
        SystemExit: a wrong option.
        FormatError, OSError: a bad network or bad rows.
    """
    parser = _Parser(
        prog="lnz evaluate",
        usage="lnz evaluate MODEL --data.rows FILE [--data.OPTION VALUE …] [--json] [--output FILE]",
        description="How likely new rows are under a network that was learned from others.",
        formatter_class=Help,
    )
    parser.add_argument("model", type=Path, help="run folder of lnz fit bayesnet or latent-class, or a BIF file")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")
    parser.add_argument("--output", type=Path | None, help="write the results as JSON here too")
    parser.add_class_arguments(NewRows, "data")
    options = parser.parse_args([str(model), *argv[1:]])
    try:
        data = parser.instantiate(options).data
    except FormatError:
        raise
    except ValueError as error:
        parser.error(str(error))
    net = read_network(network)
    found = _judged(net, data.observed(net), str(data.rows.path))
    written = json.dumps(found, indent=1)
    if options.output is not None:
        with atomic_write(options.output) as file:
            file.write(written + "\n")
    if options.json:
        console.say(written)
    else:
        console.print(_table(found, network))


def _judged(net: BayesNet, rows: Observations, says: str) -> dict[str, Any]:
    """Plain values; the names are those of results.json of ``lnz fit bayesnet``."""
    hidden = (rows.labels == IGNORE).all(0).nonzero().flatten().tolist()
    cells = [v for v in range(len(net.names)) if v not in hidden]
    observed = Observed(rows, None, hidden, says)
    return {
        "rows": rows.total,
        "missing": rows.missing(cells),
        "cells": len(rows.labels) * len(cells),
        "hidden": [net.names[v] for v in hidden],
        "measures": {
            "independent": report.independent(net, observed),
            "fitted": report.measures(net, observed),
        },
        "says": says,
    }


def _table(found: dict[str, Any], network: Path) -> Table:
    share = 100 * found["missing"] / max(1, found["cells"])
    about = (
        f"{found['rows']:g} rows ({found['says']}), {found['missing']} of {found['cells']} cells missing "
        f"({share:.1f} %); {network}. ln L in nats; independent variables have the frequencies of these very rows."
    )
    shown = Table(title="New rows", caption=about, caption_justify="left")
    for column, heading in enumerate(("", "ln L", "per row")):
        shown.add_column(heading, justify="right" if column else "left")
    for name, measures in found["measures"].items():
        numbers = shown_number(measures["log_likelihood"], 4), shown_number(measures["per_row"], 4)
        shown.add_row(report.NAMES[name], *numbers, style="bold" if name == "fitted" else None)
    return shown


def predict(network: Path, given: Path, output: Path, encoding: str | None = None, missing: Sequence[str] = ()) -> int:
    """Write the rows with each empty cell filled in; how many there are.

    A cell gets the state that is the likeliest given its row. Variables without a column come after those of the file,
    each with the probabilities of its states; columns that are no variables stay as they are.

    Raises:
        FormatError: bad rows, none of whose columns is a variable, or a row of probability 0.
    """
    net, rows = read_network(network), read_rows(given, encoding)
    numbers = {normalized(name): number for number, name in enumerate(net.names)}
    columns = [name for name in rows.columns if name in numbers]
    if not columns:
        raise FormatError(f"{given}: expected a column for a variable of {network}, such as {net.names[0]!r}, got none")
    observed = Observations(
        matched(rows, columns, net.names, net.states, tuple(missing)), torch.ones(rows.count).double(), rows
    )
    share = _posteriors(net, observed, network)
    likeliest = torch.where(observed.labels == IGNORE, share.argmax(-1), observed.labels)
    hidden = [number for name, number in numbers.items() if name not in columns]
    cells = [_column(rows, name, net, likeliest, numbers.get(name)) for name in rows.columns]
    heads = list(rows.columns)
    for v in hidden:
        heads += [net.names[v], *(f"P({net.names[v]}={state})" for state in net.states[v])]
        cells.append([net.states[v][k] for k in likeliest[:, v].tolist()])
        cells += share[:, v, : net.cardinalities[v]].T.tolist()
    with atomic_write(output) as file:
        write_csv(file, heads, zip(*cells, strict=True))
    return rows.count


def _posteriors(net: BayesNet, rows: Observations, network: Path) -> Tensor:
    """P(each state of each variable | row), ``[R, N, L]``."""
    parts = []
    for start, part in enumerate(rows.distinct[0].split(AT_A_TIME)):
        try:
            parts.append(net.condition(part).node_marginals)
        except InfeasibleError as error:
            where = rows.place(torch.tensor(error.entries) + start * AT_A_TIME)
            raise FormatError(f"{where}: has probability 0 under {network}") from error
    return torch.cat(parts)[rows.index]


def _column(rows: Rows, name: str, net: BayesNet, likeliest: Tensor, variable: int | None) -> list[str]:
    if variable is not None:
        return [net.states[variable][k] for k in likeliest[:, variable].tolist()]
    column = rows.columns[name]
    return [column.values[code] for code in column.codes]
