"""The answers of the task: of files, or sampled from three classes on the spot."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lnz.distributions import latent_class
from lnz.errors import FormatError
from lnz.io.files import as_number
from lnz.io.rows import Rows
from lnz.tasks.observations import Observations, is_missing, matched, row_weights, used_columns
from lnz.tasks.row_files import RowFiles, sample_rows
from lnz.tasks.streams import generator

MOST_ANSWERS = 100
"""A column of more different values is taken for no item."""
SHARES = (0.5, 0.3, 0.2)
AGREES = ((0.9, 0.9, 0.85, 0.8, 0.85, 0.9), (0.85, 0.8, 0.9, 0.2, 0.15, 0.2), (0.1, 0.2, 0.1, 0.15, 0.2, 0.1))
"""What is sampled where no file is given: how many are in each class, and how likely each says yes to each item."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The rows of a run, over the items alone.

    Attributes:
        items: their names.
        states: the answers to each, in order.
        train: rows to learn from.
        test: rows to judge by, if any.
        says: where they are from.
    """

    items: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]
    train: Observations
    test: Observations | None
    says: str


class LatentClassData(RowFiles):
    """Answers, a row per person or thing and a column per item, in whatever words. Without ``rows``, they are sampled.

    The answers to an item are the different texts in its column, numbers in their order.
    """

    def answers(self, seed: int) -> Answers:
        """The rows.

        Raises:
            FormatError: a column of one value or of more than a hundred, or test rows with other columns or answers.
        """
        if self.rows is None:
            return self._sampled(seed)
        columns = used_columns(self.rows, self.columns, self.weights)
        states = tuple(_answers(self.rows, column, self.missing) for column in columns)

        def observed(rows: Rows) -> Observations:
            used_columns(rows, columns, None)  # test rows lack none
            labels = matched(rows, columns, columns, states, self.missing)
            counted = self.weights if rows is self.rows or self.weights in rows.columns else None
            return Observations(labels, row_weights(rows, counted), rows)

        test = None if self.test is None else observed(self.test)
        return Answers(tuple(columns), states, observed(self.rows), test, str(self.rows.path))

    def _sampled(self, seed: int) -> Answers:
        yes = torch.tensor(AGREES, dtype=torch.float64)
        items = tuple(f"item {number + 1}" for number in range(yes.shape[1]))
        empty = latent_class(len(SHARES), [2] * len(items), names=["class", *items])
        shares = torch.tensor(SHARES, dtype=torch.float64).log()
        net = type(empty)(
            empty.cardinalities,
            empty.parents,
            [shares, *(torch.stack((1 - column, column), -1).log() for column in yes.T)],
            names=empty.names,
        )
        parts = (sample_rows(net, self.sampled, self.holes, [0], generator(seed, 0, part)) for part in range(2))
        train, test = (Observations(part.labels[:, 1:], part.weights) for part in parts)
        says = f"sampled from {len(SHARES)} classes, {self.holes:.0%} of the cells hidden"
        return Answers(items, (("no", "yes"),) * len(items), train, test, says)


def _answers(rows: Rows, column: str, missing: tuple[str, ...]) -> tuple[str, ...]:
    """The different texts of a column, in the order of their numbers or of the alphabet."""
    found = [text for text in rows.columns[column].values if not is_missing(text, missing)]
    if len(found) < 2 or len(found) > MOST_ANSWERS:
        shown = f"{len(found)} of them" if len(found) > 1 else f"only {found[0]!r}" if found else "none"
        raise FormatError(
            f"{rows.path}, column {column}: expected an item with 2 to {MOST_ANSWERS} different answers, got {shown}; "
            "--data.columns names the columns to read"
        )
    numbers = {text: as_number(text) for text in found}
    if None in numbers.values():
        return tuple(sorted(found))
    return tuple(sorted(found, key=lambda text: (numbers[text], text)))
