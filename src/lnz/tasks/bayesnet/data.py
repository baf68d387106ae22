"""The rows of the task: of files, matched by names, or sampled from the network on the spot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lnz.distributions import BayesNet
from lnz.io.rows import Rows
from lnz.tasks.observations import Observations, matched, row_weights, used_columns
from lnz.tasks.row_files import RowFiles, sample_rows
from lnz.tasks.streams import generator
from lnz.typing import IGNORE

SAMPLED = 2**20
"""The first key of the streams that rows are sampled by; the numbers of starts lie below it."""


class BayesNetData(RowFiles):
    """Rows with a column per variable, by the names of the network, in any order; cells hold the names of states.

    Without ``rows``, they are sampled from the network, with holes. A variable without a column is never observed.
    """

    def observed(self, net: BayesNet, latent: Collection[str], seed: int) -> Observed:
        """What has been observed of the variables of ``net``; those in ``latent`` are hidden, whatever has a column.

        Raises:
            FormatError: a column that is no variable, or a cell that is no state, by column and row.
        """
        hidden = [net.names.index(name) for name in latent]
        if self.rows is None:
            return self._sampled(net, hidden, seed)
        train = self._matched(self.rows, net, latent)
        test = None if self.test is None else self._matched(self.test, net, latent)
        unseen = (train.labels == IGNORE).all(0).nonzero().flatten().tolist()
        return Observed(train, test, unseen, str(self.rows.path))

    def _matched(self, rows: Rows, net: BayesNet, latent: Collection[str]) -> Observations:
        columns = [name for name in used_columns(rows, self.columns, self.weights) if name not in latent]
        labels = matched(rows, columns, net.names, net.states, self.missing)
        return Observations(labels, row_weights(rows, self.weights), rows)

    def _sampled(self, net: BayesNet, hidden: Sequence[int], seed: int) -> Observed:
        train, test = (
            sample_rows(net, self.sampled, self.holes, hidden, generator(seed, SAMPLED + part)) for part in range(2)
        )
        says = f"sampled from the network, {self.holes:.0%} of the cells hidden"
        return Observed(train, test, list(hidden), says, net)


@dataclass(frozen=True, eq=False)
class Observed:
    """The rows of a run.

    Attributes:
        train: those to learn from.
        test: those to judge by, if any.
        hidden: the variables without any observation.
        says: where they are from.
        source: the network that they were sampled from, if they were.
    """

    train: Observations
    test: Observations | None
    hidden: list[int]
    says: str
    source: BayesNet | None = None
