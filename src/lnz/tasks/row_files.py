"""The options of rows: which files hold them, and how many are sampled where none does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lnz.distributions import BayesNet
from lnz.io.rows import read_rows
from lnz.tasks.observations import Observations
from lnz.typing import IGNORE


class RowFiles:
    """Rows of files, read on construction, before anything is learned.

    A file is CSV, gzipped or not, whose first line names the columns, or Parquet (pip install 'lnz[parquet]'). An empty
    cell is missing.

    Args:
        rows: file of the rows to learn from.
        test: file of rows to judge by; of rows that are sampled, as many more.
        weights: column that says how often each row counts.
        columns: columns to read, as [A,B]; by default, all but that of the weights.
        missing: further texts that stand for nothing, as [NA].
        encoding: of the text of a CSV file; by default UTF-8.
        delimiter: between cells of a CSV file; by default a comma, or a tab where the name ends in .tsv.
        sampled: rows to sample, where no file is given.
        holes: share of their cells that is hidden at random.
    """

    def __init__(
        self,
        rows: Path | None = None,
        test: Path | None = None,
        *,
        weights: str | None = None,
        columns: Sequence[str] | None = None,
        missing: Sequence[str] = (),
        encoding: str | None = None,
        delimiter: str | None = None,
        sampled: int = 2000,
        holes: float = 0.2,
    ) -> None:
        if rows is None:
            for name, value in {"test": test, "weights": weights, "columns": columns}.items():
                if value is not None:
                    raise ValueError(f"data.{name}: needs data.rows, the file of the rows to learn from")
        if sampled < 2:
            raise ValueError(f"data.sampled: expected an integer of at least 2, got {sampled}")
        if not 0 <= holes < 1:
            raise ValueError(f"data.holes: expected a number in [0, 1), got {holes}")
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(f"data.delimiter: expected one character, got {delimiter!r}")
        self.weights, self.columns, self.missing, self.encoding = weights, columns, tuple(missing), encoding
        self.sampled, self.holes = sampled, holes
        self.rows = None if rows is None else read_rows(rows, encoding, delimiter)
        self.test = None if test is None else read_rows(test, encoding, delimiter)


def sample_rows(
    net: BayesNet, count: int, holes: float, hidden: Sequence[int], stream: torch.Generator
) -> Observations:
    """Rows of a network, a share of their cells hidden at random, and some variables in all of them."""
    labels = net.sample((count,), generator=stream)
    labels = labels.masked_fill(torch.rand(labels.shape, generator=stream) < holes, IGNORE)
    labels[:, list(hidden)] = IGNORE
    return Observations(labels, torch.ones(count, dtype=torch.float64))
