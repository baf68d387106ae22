"""Rows of a file as the numbers of states that a network knows: matched by names, equal rows counted together."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lnz.distributions.equal_rows import EqualRows, equal_rows
from lnz.errors import FormatError
from lnz.io.files import as_number, normalized
from lnz.io.rows import Rows
from lnz.typing import IGNORE


@dataclass(frozen=True, eq=False)
class Observations:
    """What has been observed of N variables.

    Attributes:
        labels: ``int64 [R, N]``, −100 where nothing is observed.
        weights: how often each row counts, ``float64 [R]``.
        source: the file, for messages; ``None`` where rows were sampled.
    """

    labels: Tensor
    weights: Tensor
    source: Rows | None = None

    @cached_property
    def _grouped(self) -> EqualRows:
        return equal_rows(self.labels, self.weights)

    @property
    def distinct(self) -> tuple[Tensor, Tensor]:
        """The different rows ``int64 [U, N]``, in an order of their own, and how often each counts ``float64 [U]``."""
        return self._grouped.rows, self._grouped.weights

    @property
    def index(self) -> Tensor:
        """Which of the different rows each row is, ``int64 [R]``."""
        return self._grouped.index

    @property
    def total(self) -> float:
        """The number of rows, by their weights."""
        return float(self.weights.sum())

    def missing(self, variables: Sequence[int]) -> int:
        """Missing cells of some variables, each row counted once."""
        return int((self.labels[:, list(variables)] == IGNORE).sum())

    def place(self, distinct: Tensor) -> str:
        """Where any of some of the different rows stands first, for messages."""
        row = int(torch.isin(self.index, distinct).nonzero()[0, 0])
        return f"row {row + 1}" if self.source is None else self.source.place(row)


def used_columns(rows: Rows, columns: Sequence[str] | None, weights: str | None) -> list[str]:
    """The names of the columns that hold variables: those asked for, or all but that of the weights.

    Raises:
        FormatError: a name that the file lacks, or no column at all.
    """
    for option, names in (("columns", columns or ()), ("weights", () if weights is None else (weights,))):
        for name in names:
            if normalized(name) not in rows.columns:
                raise FormatError(f"{rows.path}: --data.{option}: no column {name!r}{_near(name, list(rows.columns))}")
    wanted = [normalized(name) for name in columns] if columns else list(rows.columns)
    found = [name for name in dict.fromkeys(wanted) if weights is None or name != normalized(weights)]
    if not found:
        raise FormatError(f"{rows.path}: expected at least one column besides that of the weights, got none")
    return found


def row_weights(rows: Rows, column: str | None) -> Tensor:
    """How often each row counts ``float64 [R]``, as a column says, or once.

    Raises:
        FormatError: a cell that is not a finite number of at least 0, by its row; or all are 0.
    """
    if column is None:
        return torch.ones(rows.count, dtype=torch.float64)
    cells = rows.columns[normalized(column)]
    numbers = [math.nan if (value := as_number(text)) is None else value for text in cells.values]
    wrong = [code for code, number in enumerate(numbers) if not 0 <= number < math.inf]
    if wrong:
        row = int(np.isin(cells.codes, wrong).argmax())
        got = cells.values[cells.codes[row]]
        raise FormatError(f"{rows.place(row)}, column {column}: expected a count of at least 0, got {got!r}")
    weights = torch.tensor(numbers, dtype=torch.float64)[torch.from_numpy(np.array(cells.codes))]
    if not weights.any():
        raise FormatError(f"{rows.path}, column {column}: expected counts that are not all 0")
    return weights


def is_missing(text: str, missing: Sequence[str]) -> bool:
    """Whether a cell is empty, or holds one of the texts that stand for nothing."""
    return not text or text in missing


def matched(
    rows: Rows,
    columns: Sequence[str],
    names: Sequence[str],
    states: Sequence[Sequence[str]],
    missing: Sequence[str] = (),
) -> Tensor:
    """The states ``int64 [R, N]`` of N named variables; −100 where a cell is missing, or a variable has no column.

    Raises:
        FormatError: a column that is no variable, or a cell that is no state of its variable; by column and row.
    """
    numbers = {normalized(name): number for number, name in enumerate(names)}
    labels = np.full((rows.count, len(names)), IGNORE, np.int64)
    for column in columns:
        if column not in numbers:
            raise FormatError(
                f"{rows.path}: column {column!r} is no variable of the network{_near(column, list(numbers))}; "
                "--data.columns names the columns to read"
            )
        variable, cells = numbers[column], rows.columns[column]
        known = {normalized(state): number for number, state in enumerate(states[variable])}
        coded = [IGNORE if is_missing(text, missing) else known.get(text, -1) for text in cells.values]
        found = np.array(coded, np.int64)[cells.codes]
        if (found == -1).any():
            row = int((found == -1).argmax())
            got = cells.values[cells.codes[row]]
            raise FormatError(
                f"{rows.place(row)}, column {column}: expected a state of {names[variable]}, or nothing, got "
                f"{got!r}{_near(got, list(known))}"
            )
        labels[:, variable] = found
    return torch.from_numpy(labels)


def _near(given: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(given[:100], known, n=1)
    shown = f"did you mean {close[0]!r}?" if close else ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
    return f" ({shown})"
