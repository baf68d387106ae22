"""Bayesian networks as every reader builds them: named variables, their states, and a table for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NoReturn

import numpy as np
import torch

from lnz.errors import FormatError, NormalizationWarning, warn
from lnz.graphs import FactorGraph
from lnz.io.files import Source
from lnz.io.limits import limits
from lnz.io.model import NamedModel

EXACT = 1e-12
"""Rows that miss 1 by this little are left as they are: it is the rounding of their sum."""
SILENT = 1e-5
"""Rows that miss 1 by this little were written in six digits; they are normalized without a warning."""


@dataclass(frozen=True, eq=False)
class Table:
    """A conditional probability table: the child's name, its parents' names, and the values ``[*parents, child]``."""

    child: str
    parents: Sequence[str]
    values: np.ndarray


class Network:
    """A Bayesian network while its file is read.

    Args:
        path: the file, for messages.
        size: of the file, in bytes or characters; see :class:`~lnz.io.limits.Limits`.
    """

    def __init__(self, path: Source, size: int) -> None:
        self.path, self.size = path, size
        self.states: dict[str, dict[str, int]] = {}
        """Per variable, in the order of the file, the number of each of its states."""
        self.tables: dict[str, Table] = {}
        self._entries = 0

    def fail(self, message: str) -> NoReturn:
        """Raise :class:`FormatError` of this file."""
        raise FormatError(f"{self.path}: {message}")

    def declare(self, name: str, labels: Sequence[str]) -> None:
        """Add a variable.

        Raises:
            FormatError: it is declared already, has no state, or one twice.
        """
        if name in self.states:
            self.fail(f"expected each variable once, got {name!r} twice")
        self.states[name] = {label: number for number, label in enumerate(labels)}
        if not labels or len(self.states[name]) < len(labels):
            self.fail(f"expected different states of {name!r}, got {list(labels[:16])}")

    def empty(self, child: str, parents: Sequence[str]) -> np.ndarray:
        """A table ``[*parents, child]`` of NaN for a variable that has none yet.

        Raises:
            FormatError: a variable that is not declared, or twice in the table, a second table of one variable, or
                more entries than the limits allow, over all tables.
        """
        family = (*parents, child)
        for name in family:
            if name not in self.states:
                self.fail(f"expected a variable that is declared in the table of {child!r}, got {name!r}")
        if len(set(family)) < len(family) or child in self.tables:
            self.fail(f"expected one table of {child!r}, over different variables")
        shape = [len(self.states[name]) for name in family]
        self._entries += limits().table(self.path, shape, self.size)
        limits().check(self.path, "numbers", self._entries, self.size)
        return np.full(tuple(shape), math.nan)

    def fill(self, child: str, parents: Sequence[str], values: Sequence[float]) -> None:
        """Add a table, its child fastest.

        Raises:
            FormatError: not as many values as the table has entries, or what :meth:`empty` raises.
        """
        shape = self.empty(child, parents).shape
        if len(values) != math.prod(shape):
            self.fail(f"expected {math.prod(shape)} numbers in the table of {child!r}, got {len(values)}")
        self.tables[child] = Table(child, parents, np.array(values, np.float64).reshape(shape))

    def choose(self, child: str, parents: Sequence[str], labels: Sequence[str]) -> None:
        """Add a deterministic table: the child's state for each joint state of its parents, the last one fastest.

        Raises:
            FormatError: an unknown state, not as many as the parents have joint states, or what :meth:`empty` raises.
        """
        values = np.zeros_like(self.empty(child, parents))
        rows = values.reshape(-1, values.shape[-1])
        if len(labels) != len(rows):
            self.fail(f"expected {len(rows)} states in the table of {child!r}, got {len(labels)}")
        for row, label in enumerate(labels):
            if label not in self.states[child]:
                self.fail(f"expected a state of {child!r} in its table, got {label!r}")
            rows[row, self.states[child][label]] = 1
        self.tables[child] = Table(child, parents, values)

    def model(self) -> NamedModel:
        """The network, every row of its tables normalized.

        Published networks round their probabilities. Rows that miss 1 by more than six digits do, but within
        :func:`tolerance`, warn: once, with the largest deviation.

        Raises:
            FormatError: no variable, a variable without a table, a directed cycle, or a row that is negative or does
                not sum to 1.
        """
        if not self.states:
            self.fail("expected at least one variable, got none")
        limits().check(self.path, "numbers", len(self.states) * max(map(len, self.states.values())), self.size)
        for name in self.states:
            if name not in self.tables:
                self.fail(f"expected a probability table for each variable, got none for {name!r}")
        try:
            TopologicalSorter({name: table.parents for name, table in self.tables.items()}).prepare()
        except CycleError as error:
            cycle = error.args[1]
            shown = " ← ".join(cycle[:8]) + (" ← …" if len(cycle) > 8 else "")
            raise FormatError(f"{self.path}: expected no directed cycle, got {shown}") from error
        nodes = {name: node for node, name in enumerate(self.states)}
        ordered = [self.tables[name] for name in self.states]
        scopes = [[nodes[name] for name in (*table.parents, table.child)] for table in ordered]
        graph, members = FactorGraph.grouped([len(labels) for labels in self.states.values()], scopes)
        values = self._normalized(ordered)
        with np.errstate(divide="ignore"):
            scores = [torch.from_numpy(np.log(np.stack([values[f] for f in group]))) for group in members]
        return NamedModel("BAYES", graph, tuple(scores), tuple(self.states), tuple(map(tuple, self.states.values())))

    def _normalized(self, tables: Sequence[Table]) -> list[np.ndarray]:
        normalized, rounded, largest, worst = [], 0, 0.0, ""
        for table in tables:
            sums = table.values.sum(-1)
            missed = np.abs(sums - 1)
            good = (missed <= tolerance(table.values.shape[-1])) & (table.values >= 0).all(-1)  # False where NaN
            if not good.all():
                row = tuple(np.argwhere(~good)[0].tolist())
                got = "no values" if np.isnan(table.values[row]).any() else str(table.values[row].tolist()[:16])
                self.fail(f"expected {_row(table, row, self.states)} to be non-negative and to sum to 1, got {got}")
            normalized.append(table.values / np.where(missed > EXACT, sums, 1.0)[..., None])
            rounded += int((missed > SILENT).sum())
            if missed.max() > largest:
                row = np.unravel_index(int(missed.argmax()), missed.shape)
                largest, worst = float(missed.max()), _row(table, [int(label) for label in row], self.states)
        if rounded:
            many = "1 row of its tables does" if rounded == 1 else f"{rounded} rows of its tables do"
            message = f"{many} not sum to 1; normalized, the largest deviation is {largest:.2g}, of {worst}"
            warn(f"{self.path}: {message}", NormalizationWarning)
        return normalized


def tolerance(states: int) -> float:
    """How far a row of this many states may miss 1: each was rounded to two digits; at most 0.05."""
    return min(0.005 * max(states, 2), 0.05) + 1e-9


def _row(table: Table, row: Sequence[int], states: Mapping[str, Mapping[str, int]]) -> str:
    named = zip(table.parents, row, strict=True)
    given = ", ".join(f"{name}={list(states[name])[label]}" for name, label in named)
    return f"P({table.child} | {given})" if given else f"P({table.child})"
