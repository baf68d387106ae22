"""Class models side by side, whose steps of EM are products of matrices: classes × answers × rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lnz.distributions.statistics import require_possible
from lnz.typing import IGNORE

if TYPE_CHECKING:
    from lnz.distributions.latent_class import ClassModel

_NEVER = -1e200  # ln of what is impossible, in products with 0
_SMALL = 1e-250  # sums above lose nothing that matters to what is too small for a number
_FEW = 2**14  # numbers whose exp or log takes less time than to wake a thread
_BLOCK = 2**16  # entries [S, classes, rows] that are worked on at a time: what fits into caches


class Answers(NamedTuple):
    """Rows of answers, as products of matrices take them.

    Attributes:
        seen: 1 in column 0, and in the column of each answer of a row; ``float64 [R, 1 + A]``.
        missing: 1 in all columns of each item that is missing; ``None`` where none is.
        other: ln of 0 for the classes that a row with a known class is not in, ``[classes, R]``; ``None`` where no
            class is known.
        weights: how often each row counts, ``float64 [R]``.
    """

    seen: Tensor
    missing: Tensor | None
    other: Tensor | None
    weights: Tensor

    @classmethod
    def of(cls, y: Tensor, weights: Tensor | None, cardinalities: Sequence[int]) -> Answers:
        """Of rows ``int64 [R, 1 + items]``, the class first."""
        classes, *cards = cardinalities
        items, known = y[:, 1:], y[:, 0] != IGNORE
        sizes = torch.tensor([1, *cards], device=y.device)
        starts = sizes.cumsum(0)
        seen = torch.zeros(len(y), int(starts[-1]), dtype=torch.float64, device=y.device)
        seen.scatter_(1, starts[:-1] + items.clamp(min=0), (items != IGNORE).double())
        seen[:, 0] = 1.0
        lost = torch.nn.functional.pad((items == IGNORE).double(), (1, 0))
        wrong = known & (torch.arange(classes, device=y.device)[:, None] != y[:, 0])
        return cls(
            seen,
            lost.repeat_interleave(sizes, 1) if lost.any() else None,
            wrong.double() * _NEVER if known.any() else None,
            torch.ones_like(seen[:, 0]) if weights is None else weights.to(seen),
        )

    def block(self, first: int, size: int) -> Answers:
        """Rows from ``first`` on, at most ``size`` of them."""
        if not first and len(self.seen) <= size:
            return self
        rows = slice(first, first + size)
        return Answers(
            self.seen[rows],
            None if self.missing is None else self.missing[rows],
            None if self.other is None else self.other[:, rows],
            self.weights[rows],
        )


def expected(tables: Tensor, answers: Answers) -> tuple[Tensor, Tensor]:
    """Σ weight · ln P(row) ``[S]``, and the expected counts ``[S, classes, 1 + A]``.

    P(class | row) ∝ P(class) Π P(answer | class), over the items that the row has.

    Args:
        tables: ln P(class), then ln P(answer | class) of all items side by side, ``float64 [S, classes, 1 + A]``.
        answers: of R rows. O(R S classes A) time.

    Raises:
        InfeasibleError: rows of probability 0, by their numbers.
    """
    stack, classes, columns = tables.shape
    scores = tables.clamp(min=_NEVER).view(-1, columns)
    evidence, counts = tables.new_zeros(stack), tables.new_zeros(scores.shape)
    size = max(1, _BLOCK // max(1, len(scores)))
    shifted = False
    for first in range(0, len(answers.seen), size):
        block = answers.block(first, size)
        share, total, logs = _posteriors(scores, block, classes, shifted)
        if not shifted and not float(total.amin()) > _SMALL:
            shifted = True  # and so are the blocks that follow
            share, total, logs = _posteriors(scores, block, classes, shifted)
        if shifted:
            require_possible(logs.masked_fill(logs < _NEVER / 2, -torch.inf).squeeze(1), first)
        share = share.mul_(block.weights / total).view(len(scores), -1)
        evidence += logs.view(stack, -1) @ block.weights
        counts.addmm_(share, block.seen)
        if block.missing is not None:
            counts += (share @ block.missing) * tables.view(-1, columns).exp()
    return evidence, counts.view(tables.shape)


def _posteriors(scores: Tensor, rows: Answers, classes: int, shifted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """P(class | row) but for a factor ``[S, classes, R]``, its sums over classes ``[S, 1, R]``, and ln P(row) as these.

    Exponentials are taken as they are, or ``shifted`` by the largest of each row, which none is too small for.
    """
    joint = (scores @ rows.seen.T).view(-1, classes, len(rows.seen))
    if rows.other is not None:
        joint += rows.other
    top = joint.amax(1, keepdim=True) if shifted else None
    share = _exp_(joint if top is None else joint.sub_(top))
    total = share.sum(1, keepdim=True)
    logs = _log_(total.clone())
    return share, total, logs if top is None else logs.add_(top)


def _exp_(x: Tensor) -> Tensor:
    """exp(x) in place; of few numbers by NumPy, which leaves torch's threads asleep."""
    if not x.is_cpu or x.numel() > _FEW:
        return x.exp_()
    np.exp(x.numpy(), out=x.numpy())
    return x


def _log_(x: Tensor) -> Tensor:
    """ln x in place, likewise."""
    if not x.is_cpu or x.numel() > _FEW:
        return x.log_()
    with np.errstate(divide="ignore"):
        np.log(x.numpy(), out=x.numpy())
    return x


def packed(tables: Sequence[Tensor]) -> Tensor:
    """Tables of the class ``[*stack, classes]`` and of the items ``[*stack, classes, card]`` side by side, float64."""
    prior, *items = (table.detach().double() for table in tables)
    return torch.cat([prior.unsqueeze(-1), *items], -1)


def unpacked(tables: Tensor, cardinalities: Sequence[int]) -> list[Tensor]:
    """The inverse of :func:`packed`."""
    prior, items = tables.split([1, tables.shape[-1] - 1], -1)
    return [prior.squeeze(-1), *items.split(list(cardinalities[1:]), -1)]


class ClassStack:
    """S class models that differ in their tables alone: a learner for :func:`lnz.objectives.em`, of starts at once.

    Args:
        like: one of them, for all but tables.
        tables: see :func:`expected`.
    """

    def __init__(self, like: ClassModel, tables: Tensor) -> None:
        self.like, self.tables = like, tables
        sizes = torch.tensor([1, *like.cardinalities[1:]], device=tables.device)
        item = torch.arange(len(sizes), device=tables.device).repeat_interleave(sizes)
        self._same = (item[:, None] == item).double()  # columns of one item
        self._tied: Tensor | None = None  # columns whose counts are those of one table
        self._own = torch.ones_like(self._same[0])  # columns that are no copies of others
        if like.ties:
            starts = (sizes.cumsum(0) - sizes).tolist()
            self._tied = torch.eye(len(item), dtype=torch.float64, device=tables.device)
            for group in like.ties:
                columns = torch.tensor([[*range(starts[v], starts[v] + like.cardinalities[v])] for v in group])
                for column in columns.T:
                    self._tied[column[:, None], column] = 1.0
                self._own[columns[1:]] = 0.0
        self._read: tuple[Tensor, Tensor | None, Answers] | None = None

    def _with(self, tables: Tensor) -> ClassStack:
        new = ClassStack.__new__(ClassStack)
        new.__dict__ |= self.__dict__ | {"tables": tables}
        return new

    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`lnz.BayesNet.e_step`, the log evidence of each of the models ``[S]``."""
        if self._read is None or self._read[0] is not data or self._read[1] is not weights:
            y = self.like.rows_of_answers(data)
            self._read = data, weights, Answers.of(y, weights, self.like.cardinalities)
        evidence, counts = expected(self.tables, self._read[2])
        return evidence, [counts]

    def m_step(self, statistics: Sequence[Tensor], pseudocount: float = 0.0) -> ClassStack:
        """As :meth:`lnz.BayesNet.m_step`."""
        (counts,) = statistics
        counts = counts if self._tied is None else counts @ self._tied
        if pseudocount:
            counts = (counts + pseudocount).masked_fill_(torch.isneginf(self.tables), 0.0)
        total = self._totals(counts)
        share = counts / total
        if not float(total.amin()) > 0:  # rows of no count are uniform
            possible = (~torch.isneginf(self.tables)).double()
            share = torch.where(share.isnan(), possible / self._totals(possible).clamp_(min=1.0), share)
        return self._with(_log_(share))

    def _totals(self, counts: Tensor) -> Tensor:
        """Of each row of each table, in all of its columns."""
        total = counts @ self._same
        total[..., 0] = counts[..., 0].sum(-1, keepdim=True)
        return total

    def log_prior(self, pseudocount: float) -> Tensor:
        """As :meth:`lnz.BayesNet.log_prior`, of each of the models ``[S]``."""
        if not pseudocount:
            return self.tables.new_zeros(len(self.tables))
        logs = self.tables.masked_fill(torch.isneginf(self.tables), 0.0)
        return pseudocount * (logs @ self._own).sum(-1)

    def stack_of(self, places: Sequence[int]) -> ClassStack:
        """Some of the models."""
        return self._with(self.tables[list(places)])

    def unstacked(self, places: Sequence[int] | None = None) -> list[ClassModel]:
        """The models, or some of them."""
        some = self.tables if places is None else self.tables[list(places)]
        each = ([table.contiguous() for table in unpacked(one, self.like.cardinalities)] for one in some)
        return [self.like.with_tables(tables) for tables in each]
