"""The integer program of a best labelling: 0/1 variables per label of each node, tied to scores of factors.

A factor whose possible joint labels all score alike only forbids the others: rows in which at most k − 1 of k labels
may be chosen, which solvers read as conflicts and make cliques of. Where a few of the possible ones score less than the
rest, all by the same amount, one more 0/1 variable of the factor pays for them. Any other factor gets a fraction per
joint label, and per node and label a row that says that the fractions with that label sum to its variable: the local
polytope (Wainwright and Jordan 2008, section 8). Where a labelling is known, whatever must end below it is forbidden.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lnz.graphs import FactorGraph
from lnz.ops.layout import Floats, Ints

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ROUNDING = 1e-9  # of sums of many float64 scores, as a fraction


@dataclass(frozen=True, eq=False)
class Program:
    """Maximise ``constant + value · x`` with 0 ≤ x ≤ ``upper`` and ``low`` ≤ ``rows`` x ≤ ``high``.

    The first ``labels`` variables are those of the nodes' labels; those that are ``whole`` numbers may be more.
    """

    value: Floats
    upper: Floats
    labels: int
    whole: NDArray[np.bool_]
    rows: csr_array
    low: Floats
    high: Floats
    constant: float


@dataclass
class _Rows:
    """Rows of a sparse matrix, as they are added."""

    count: int = 0
    at: list[Ints] = field(default_factory=list)
    columns: list[Ints] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    low: list[Floats] = field(default_factory=list)
    high: list[Floats] = field(default_factory=list)

    def entries(self, row: NDArray[np.integer[Any]], column: NDArray[np.integer[Any]], value: float) -> None:
        """``value`` at rows counted from the first new one."""
        row, column = np.broadcast_arrays(row, column)
        self.at.append((self.count + row.ravel()).astype(np.int64))
        self.columns.append(column.ravel().astype(np.int64))
        self.values.append(np.full(row.size, value))

    def close(self, count: int, low: float, high: float) -> None:
        """These rows are complete: ``count`` of them, with their limits."""
        self.count += count
        self.low.append(np.full(count, low))
        self.high.append(np.full(count, high))


def program(graph: FactorGraph, nodes: Floats, tables: list[Floats | None], constant: float, least: float) -> Program:
    """The program of all labellings with a score of at least ``least`` (−inf: of all).

    Args:
        graph: the wiring.
        nodes: scores of all labels of all nodes, one after the other.
        tables: per group, the scores ``[F, L1, …, Lk]``; ``None`` for groups of fewer than two nodes.
        constant: of all labellings.
        least: the score of a labelling that is known.
    """
    from scipy.sparse import coo_array

    cards = np.array(graph.cardinalities, dtype=np.int64)
    label_at = np.concatenate((np.zeros(1, dtype=np.int64), cards.cumsum()))
    groups = [(s.numpy(), t) for s, t in zip(graph.scopes, tables, strict=True) if t is not None and t.size]
    tops = [table.reshape(len(table), math.prod(table.shape[1:])).max(1) for _, table in groups]
    node_tops = np.maximum.reduceat(nodes, label_at[:-1])
    most = constant + node_tops.sum() + sum(top.sum() for top in tops)
    slack = most - least + ROUNDING * (1 + abs(most) + abs(least)) if math.isfinite(least) else math.inf

    possible = np.isfinite(nodes) & (np.repeat(node_tops, cards) - nodes <= slack)
    values, uppers, whole, rows = [nodes], [possible], [np.ones(len(nodes), dtype=bool)], _Rows()
    rows.entries(np.repeat(np.arange(len(cards)), cards), np.arange(label_at[-1]), 1.0)
    rows.close(len(cards), 1.0, 1.0)
    column = int(label_at[-1])
    for (scope, table), top in zip(groups, tops, strict=True):
        loss = _shaped(top, table) - table
        allowed = np.isfinite(table) & (loss <= slack)
        fee = _fees(loss, allowed)
        simple = ~np.isnan(fee)
        _forbid(rows, label_at, scope[simple], ~allowed[simple])
        _forbid(rows, label_at, scope[simple], (allowed & (loss > 0))[simple], column)
        constant += top[simple & np.isfinite(top)].sum()
        values.append(-fee[simple])
        uppers.append(fee[simple] > 0)
        whole.append(np.ones(values[-1].size, dtype=bool))
        column += values[-1].size
        _tie(rows, label_at, scope[~simple], table.shape[1:], column)
        values.append(table[~simple].ravel())
        uppers.append(allowed[~simple].ravel())
        whole.append(np.zeros(values[-1].size, dtype=bool))
        column += values[-1].size
    upper = np.concatenate(uppers)
    entries = np.concatenate(rows.values), (np.concatenate(rows.at), np.concatenate(rows.columns))
    return Program(
        np.where(upper, np.concatenate(values), 0.0),
        upper.astype(float),
        int(label_at[-1]),
        np.concatenate(whole),
        coo_array(entries, shape=(rows.count, column)).tocsr(),
        np.concatenate(rows.low),
        np.concatenate(rows.high),
        constant,
    )


def _shaped(top: Floats, table: Floats) -> Floats:
    """``top [F]`` beside ``table [F, L1, …]``; 0 where nothing is possible, so that no difference is NaN."""
    return np.where(np.isfinite(top), top, 0.0).reshape(-1, *(1,) * (table.ndim - 1))


def _fees(loss: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """Per factor, what its low joint labels cost, 0 where it has none; NaN where they are many, or cost different."""
    flat = np.where(allowed & (loss > 0), loss, np.nan).reshape(len(loss), math.prod(loss.shape[1:]))
    count = (~np.isnan(flat)).sum(1)
    some = np.where(count, np.nanmax(np.where(count[:, None] > 0, flat, 0.0), axis=1), 0.0)
    one = np.isnan(flat) | (flat == some[:, None])
    return np.where((count == 0) | (one.all(1) & (2 * count < flat.shape[1])), some, np.nan)


def _forbid(rows: _Rows, label_at: Ints, scope: Ints, forbidden: NDArray[np.bool_], payer: int | None = None) -> None:
    """A row for each choice of labels of all nodes but the last with which labels of the last one do not go.

    With ``payer``, unless the factor's variable is 1; those begin there.
    """
    *first, last = forbidden.shape[1:]
    flat = forbidden.reshape(len(forbidden), math.prod(first), last)
    factor, prefix = np.nonzero(flat.any(-1))
    row = np.arange(len(factor))
    for position, label in enumerate(np.unravel_index(prefix, first)):
        rows.entries(row, label_at[scope[factor, position]] + label, 1.0)
    which, label = np.nonzero(flat[factor, prefix])
    rows.entries(which, label_at[scope[factor[which], -1]] + label, 1.0)
    if payer is not None:
        rows.entries(row, payer + factor, -1.0)
    rows.close(len(factor), -np.inf, float(len(first)))


def _tie(rows: _Rows, label_at: Ints, scope: Ints, labels: tuple[int, ...], column: int) -> None:
    """Per factor, node and label, the fractions with that label sum to its variable; fractions begin at ``column``."""
    factors = len(scope)
    fractions = column + np.arange(factors * math.prod(labels)).reshape(factors, *labels)
    for position, card in enumerate(labels):
        ties = np.arange(factors * card).reshape(factors, card)
        shape = [factors, *(card if axis == position else 1 for axis in range(len(labels)))]
        rows.entries(np.broadcast_to(ties.reshape(shape), fractions.shape), fractions, 1.0)
        rows.entries(ties, label_at[scope[:, position]][:, None] + np.arange(card), -1.0)
        rows.close(factors * card, 0.0, 0.0)
