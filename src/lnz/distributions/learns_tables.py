"""Learning the tables of a directed model: by counting full rows, and the two steps of EM for rows with holes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from lnz.checks import check_full, check_weights
from lnz.distributions.equal_rows import equal_rows, mostly_equal
from lnz.distributions.families import Families
from lnz.distributions.statistics import counted, expected
from lnz.inference.base import Method
from lnz.ops.conditionals.random import uniform

if TYPE_CHECKING:
    from lnz.distributions.bayes_net import BayesNet


class LearnsTables:
    """What :class:`~lnz.BayesNet` learns by."""

    families: Families
    log_cpts: tuple[Tensor, ...]
    ties: tuple[tuple[int, ...], ...] = ()
    """Groups of variables that share one table in learning; see :meth:`tie`."""
    batch_shape: torch.Size
    _dtype: torch.dtype
    _joint: bool

    @abstractmethod
    def _with(self, tables: Iterable[Tensor], *, joint: bool = False, inference: Method | None = None) -> Self:
        """The same network with other tables."""

    @abstractmethod
    def labelling(self, y: Tensor, name: str = "y") -> Tensor:
        """Rows as ``int64``, checked."""

    @abstractmethod
    def _unobserved(self, y: Tensor) -> Tensor:
        """Which rows have holes."""

    def expected_statistics(self, data: Tensor, reduce: bool = False) -> list[Tensor]:
        """How often each entry of each table is used, given rows ``data [R, N]`` with −100 for what is missing.

        E[1[(v_i, parents) = ṽ] | row], without gradients: one tensor ``[R, *parents, card]`` per variable, or their
        sums over the rows, in float64, with ``reduce=True``. One plan serves all rows, whatever is missing in each;
        rows are worked on in blocks, so that memory beyond the answer does not grow with R. O(R) times one inference.

        Raises:
            InfeasibleError: rows of probability 0, by their numbers.
        """
        return expected(cast("BayesNet", self), data, reduce)[1]

    def fit(self, data: Tensor, pseudocount: float = 0.0, weights: Tensor | None = None) -> Self:
        """The network with the tables of highest likelihood of full rows ``data [R, N]``: their relative frequencies.

        Args:
            data: rows without holes; :func:`lnz.objectives.em` learns from rows with −100.
            pseudocount: added to the count of every entry that is possible. Rows of parents that never occur are
                uniform.
            weights: ``[R]``, how often each row counts.

        Raises:
            ValueError: no rows, rows with holes, a negative pseudocount, weights that are none.
        """
        y = self.labelling(data, "data")
        if y.dim() != 2 or not len(y):
            raise ValueError(f"data: expected rows [R, {len(self.families.parents)}], got {list(y.shape)}")
        if weights is not None:
            check_weights("weights", weights, len(y))
        check_full("data", self._unobserved(y), "; lnz.objectives.em learns from rows with holes")
        return self.m_step(counted(self.families, y, weights), pseudocount)

    def with_tables(self, log_cpts: Iterable[Tensor]) -> Self:
        """The network with other tables of the same shapes; inference, names and shared tables stay as they are."""
        return self._with(log_cpts, joint=True)

    # The two steps of EM -----------------------------------------------------------------------------------------

    def e_step(
        self, data: Tensor, lengths: object = None, weights: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The log evidence of rows ``[R, N]``, summed, and the expected counts, both times the ``weights [R]``.

        Raises:
            InfeasibleError: rows of probability 0, by their numbers.
            ValueError: lengths, which rows have not.
        """
        if lengths is not None:
            raise ValueError("lengths: expected none for rows of a network")
        evidence, counts = expected(cast("BayesNet", self), data, True, weights)
        return (evidence.double() if weights is None else evidence.double() * weights).sum(-1), counts

    def m_step(self, statistics: Sequence[Tensor], pseudocount: float = 0.0) -> Self:
        """The network with tables proportional to counts plus ``pseudocount``; uniform where all are 0.

        What is impossible, −inf, stays so; variables that share a table add up their counts.
        """
        if not pseudocount >= 0:
            raise ValueError(f"pseudocount: expected a number of at least 0, got {pseudocount}")
        tables = []
        for counts, table in zip(self.tied(statistics, self.ties), self.log_cpts, strict=True):
            possible = ~torch.isneginf(table)
            raised = torch.where(possible, counts + pseudocount, 0.0)
            total = raised.sum(-1, keepdim=True)
            share = torch.where(total > 0, raised / total, possible / possible.sum(-1, keepdim=True).clamp(min=1))
            tables.append(share.log().to(self._dtype))
        return self._with(tables, joint=True)

    def merged(self, data: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """The different rows of ``data [R, N]`` and how often each counts, of the same sums; ``None`` if few repeat."""
        y = self.labelling(data, "data")
        if self.batch_shape or y.dim() != 2 or not mostly_equal(y):
            return None  # the E step says what is wrong with rows
        return equal_rows(y, weights)[:2]

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the Dirichlet density of all rows of all tables, up to a constant; 0 where ``pseudocount`` is 0.

        A table that variables share counts once.
        """
        copies = self._copies(self.ties) if pseudocount else range(len(self.log_cpts))
        total = torch.zeros(self.batch_shape[:1], dtype=torch.float64, device=self.log_cpts[0].device)
        for variable, table in enumerate(self.log_cpts):
            if variable not in copies:
                logs = table.double().masked_fill(torch.isneginf(table), 0.0)
                total = total + pseudocount * logs.flatten(len(self.batch_shape[:1])).sum(-1)
        return total

    def drawn(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        """The network with rows drawn uniformly from all distributions: a random start. What is impossible stays so."""
        flat = torch.cat([table.flatten() for table in self.log_cpts])
        weights = -torch.log1p(-uniform(flat.shape, flat, generator))  # of Dirichlet(1, …, 1)
        weights = weights.clamp(min=torch.finfo(flat.dtype).tiny).masked_fill(torch.isneginf(flat), 0.0)
        each = zip(weights.split([table.numel() for table in self.log_cpts]), self.log_cpts, strict=True)
        rows = [part.view(table.shape) for part, table in each]
        tables = [row.div(row.sum(-1, keepdim=True)).log() for row in rows]
        for first, *others in self.ties:
            for variable in others:
                tables[variable] = tables[first]
        return self._with(tables, joint=True)

    # Several starts as one ----------------------------------------------------------------------------------------

    def stacked(self, networks: Sequence[Self]) -> Self:
        """Networks that differ in their tables alone as one of batch shape ``[S, 1]``, whose steps are those of all."""
        tables = zip(*(network.log_cpts for network in networks), strict=True)
        return self._with([torch.stack(each).unsqueeze(1) for each in tables], joint=True)

    def stack_of(self, places: Sequence[int]) -> Self:
        """Some of the networks that :meth:`stacked` took, as one."""
        which = torch.tensor(places)
        return self._with([table[which.to(table.device)] for table in self.log_cpts], joint=True)

    def unstacked(self, places: Sequence[int] | None = None) -> list[Self]:
        """The networks that :meth:`stacked` took, or some of them."""
        places = range(len(self.log_cpts[0])) if places is None else places
        each = [[table[place] for table in self.log_cpts] for place in places]
        return [self._with([table.squeeze(0) for table in tables], joint=True) for tables in each]

    def state_dict(self) -> dict[str, Tensor]:
        """The tables, for ``torch.save``; :meth:`with_state` takes them."""
        return {f"log_cpts.{variable}": table for variable, table in enumerate(self.log_cpts)}

    def with_state(self, state: Mapping[str, Tensor]) -> Self:
        """The network with the tables of a :meth:`state_dict`."""
        return self.with_tables(state[f"log_cpts.{variable}"] for variable in range(len(self.log_cpts)))

    # Shared tables -----------------------------------------------------------------------------------------------

    def tie(self, groups: Sequence[Sequence[int]]) -> Self:
        """The network in which the variables of each group share one table, whatever it learns from.

        Tables of a group that differ start at the mean of their probabilities.

        Raises:
            ValueError: a variable out of range or in two groups, or variables whose tables differ in shape.
        """
        self._check_groups(groups)
        tables = list(self.log_cpts)
        for group in groups:
            each = [tables[v] for v in group]
            if any(not torch.equal(each[0], other) for other in each[1:]):
                each[0] = torch.stack(each).exp().mean(0).log()
            for variable in group:
                tables[variable] = each[0]
        new = self._with(tables, joint=True)
        new.ties = tuple(tuple(group) for group in groups)
        return new

    def tied(self, statistics: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> list[Tensor]:
        """The counts of each group of variables, summed: they share one table.

        Raises:
            ValueError: as :meth:`tie`.
        """
        self._check_groups(groups)
        found = list(statistics)
        for group in groups:
            total = torch.stack([statistics[v] for v in group]).sum(0)
            for variable in group:
                found[variable] = total
        return found

    def _check_groups(self, groups: Sequence[Sequence[int]]) -> None:
        seen: set[int] = set()
        N = len(self.families.parents)
        for number, group in enumerate(groups):
            shapes = {self.families.shape(v) for v in group if 0 <= v < N}
            if len(shapes) != 1 or seen & set(group) or not all(0 <= v < N for v in group):
                raise ValueError(
                    f"tied[{number}]: expected variables with tables of one shape, each in one group, got {list(group)}"
                )
            seen |= set(group)

    @staticmethod
    def _copies(groups: Sequence[Sequence[int]]) -> set[int]:
        """The variables of groups but for the first of each."""
        return {variable for group in groups for variable in list(group)[1:]}

    @property
    def dtype(self) -> torch.dtype:
        """That of the tables."""
        return self._dtype

    def to(self, dtype: torch.dtype) -> Self:
        """The network with tables of another dtype."""
        return self._with([table.to(dtype) for table in self.log_cpts], joint=self._joint)

    @staticmethod
    def combined(parts: Sequence[tuple[float, Sequence[Tensor]]]) -> list[Tensor]:
        """Σ share · statistics."""
        scaled = [[share * counts for counts in statistics] for share, statistics in parts]
        return [torch.stack(each).sum(0) for each in zip(*scaled, strict=True)]

    def num_parameters(self, tied: Sequence[Sequence[int]] = ()) -> int:
        """Free parameters: the entries of tables that are possible, less one per row, those of tied tables once."""
        copies = self._copies((*self.ties, *tied))
        count = 0
        for variable, table in enumerate(self.log_cpts):
            if variable not in copies:
                possible = (~torch.isneginf(table)).sum(-1)
                count += int((possible - 1).clamp(min=0).sum())
        return count

    @staticmethod
    def num_observations(data: Tensor, lengths: object = None, weights: Tensor | None = None) -> float:
        """The number of rows, or the sum of their weights."""
        return float(len(data)) if weights is None else float(weights.sum())
