"""Bayesian networks: directed models over discrete variables, each with a table given its parents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from os import PathLike
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import plain
from lnz.distributions.answers_as_mrf import AnswersAsMRF
from lnz.distributions.answers_by_name import AnswersByName
from lnz.distributions.conditional_tables import checked_tables, rows_at
from lnz.distributions.families import Families, families
from lnz.distributions.learns_tables import LearnsTables
from lnz.distributions.log_probabilities import check_rows
from lnz.distributions.mrf import MRF
from lnz.distributions.variable_names import VariableNames
from lnz.graphs import FactorGraph
from lnz.inference import Exact
from lnz.inference.base import Method
from lnz.ops.conditionals.random import categorical
from lnz.scores import Model, as_labelling


class BayesNet(AnswersAsMRF, AnswersByName, LearnsTables):
    """P(v) = Π_i Q(v_i | parents of i): N discrete variables, and a table of log-probabilities for each.

    As long as nothing is observed Z is 1, and ``log_prob`` of a full row is a sum of N numbers. Of a row with −100
    holes it is the log evidence ln P(what is observed), any holes in each row; :meth:`condition` gives the posterior,
    whose ``log_partition`` is that evidence. By Fisher's identity the gradient of ``log_prob`` by a table is the
    expected number of times that each entry is used, :meth:`expected_statistics`: what EM counts.

    Exact inference plans one elimination order for all rows. ``inference`` takes any other method of an :class:`MRF`.

    Args:
        cardinalities: the number of states of each variable, N positive integers.
        parents: the parents of each variable; no directed cycle.
        log_cpts: per variable ln Q(v_i | parents) ``[*batch, *parents' cardinalities, cardinality]``, each row of which
            is a distribution; −inf for 0. A network may make them, one table per batch entry.
        names: of the variables; by default their numbers.
        states: the names of the states of each variable; by default their numbers.
        normalised: the tables are log-probabilities, which is checked. ``False`` admits scores of any size.
        inference: how posteriors are computed; ``None`` is :class:`~lnz.inference.Exact`.
        validate_args: check the values of arguments (NaN, sums of rows), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: tables, parents or names of the wrong type, shape or value; rows that sum to other than
            1; a directed cycle.
        IntractableError: when a posterior is first asked for, where exact inference would be too large.
    """

    def __init__(
        self,
        cardinalities: Sequence[int] | Tensor,
        parents: Sequence[Sequence[int]],
        log_cpts: Sequence[Tensor],
        *,
        names: Sequence[str] | None = None,
        states: Sequence[Sequence[str]] | None = None,
        normalised: bool = True,
        inference: Method | None = None,
        validate_args: bool | None = None,
    ) -> None:
        validate = type(self)._validate_args if validate_args is None else validate_args
        wiring = families(cardinalities, parents)
        tables = checked_tables(wiring, log_cpts, values=validate)
        if normalised and validate:
            for variable, table in enumerate(tables):
                check_rows(f"log_cpts[{variable}]", table)
        labels = VariableNames(wiring.cardinalities, names, states)
        mrf = MRF(wiring.graph, wiring.grouped(tables), inference or Exact(), validate_args=False)
        self._init(wiring, tables, labels, mrf, normalised, validate)

    def _init(
        self,
        wiring: Families,
        tables: tuple[Tensor, ...],
        names: VariableNames,
        mrf: MRF | Method,
        joint: bool,
        validate: bool,
    ) -> None:
        """Of an MRF, or of the method of one that is made from the tables when it is asked for."""
        made = isinstance(mrf, MRF)
        super().__init__(mrf.batch_shape if made else wiring.batch_shape(tables), wiring.event_shape, validate)
        self.families, self.log_cpts, self._names = wiring, tables, names
        self._joint = joint  # nothing is observed, Z is 1
        self._made, self._inference = (mrf, mrf.inference) if made else (None, mrf)
        if made:
            mrf._validate_args = validate

    @property
    def _mrf(self) -> MRF:
        if self._made is None:
            self._made = self._new_mrf(self.log_cpts, self._inference)
            self._made._validate_args = self._validate_args
        return self._made

    def _new_mrf(self, tables: tuple[Tensor, ...], inference: Method) -> MRF:
        return MRF(self.graph, self.families.grouped(tables), inference, validate_args=False)

    def _with(self, tables: Iterable[Tensor], *, joint: bool = False, inference: Method | None = None) -> Self:
        """The same network, and what it has observed, with other tables."""
        tables = tuple(tables)
        if joint and inference is None and not any(each.requires_grad or not plain(each) for each in tables):
            return self._like(tables, self.inference, joint)  # a step of many: an MRF is made if it is asked for
        mrf = self._new_mrf(tables, inference or self.inference)
        if not joint and self._mrf.model.observed is not None:
            mrf = mrf._with(Model(self.graph, mrf.model.entries, self._mrf.model.observed).expand(self.batch_shape))
        return self._like(tables, mrf, joint)

    def _like(self, tables: tuple[Tensor, ...], mrf: MRF | Method, joint: bool) -> Self:
        """The same variables with other tables, observations, or both."""
        new = self.__class__.__new__(self.__class__)
        new._init(self.families, tables, self._names, mrf, joint, self._validate_args)
        new.ties = self.ties
        return new

    def with_inference(self, inference: Method) -> Self:
        """The same network, whose posteriors are computed by another method."""
        return self._with(self.log_cpts, joint=self._joint, inference=inference)

    # What it is made of ------------------------------------------------------------------------------------------

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """The number of states of each variable."""
        return self.families.cardinalities

    @property
    def parents(self) -> tuple[tuple[int, ...], ...]:
        """The parents of each variable."""
        return self.families.parents

    @property
    def graph(self) -> FactorGraph:
        """With one factor per variable, over its parents and itself."""
        return self.families.graph

    @property
    def inference(self) -> Method:
        """How posteriors are computed."""
        return self._inference

    @property
    def scores(self) -> tuple[Tensor, ...]:
        """The tables, as given."""
        return self.log_cpts

    @property
    def num_labels(self) -> int:
        return self.graph.max_cardinality

    @property
    def support(self) -> constraints.Constraint:
        return self._mrf.support

    def condition(self, y: Tensor) -> Self:
        return self._like(self.log_cpts, self._mrf._clamped(self.labelling(y)), False)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        if not self._joint:
            return self._mrf._sample(n, generator)
        y = torch.zeros((n, *self.event_shape, *self.batch_shape), dtype=torch.int64, device=self._mrf.model.device)
        for variable in self.families.order:  # parents first
            above = [y[:, parent] for parent in self.parents[variable]]
            y[:, variable] = categorical(rows_at(self.log_cpts[variable], above, (n, *self.batch_shape)), generator)
        return y.movedim(1, -1)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(map(function, self.log_cpts))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self._with(function(table, len(self.families.shape(v))) for v, table in enumerate(self.log_cpts))

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        return tuple(table.expand(*self.batch_shape, *self.families.shape(v)) for v, table in enumerate(self.log_cpts))

    def with_node_scores(self, added: Tensor) -> Self:
        tables = []
        for variable, table in enumerate(self.log_cpts):
            row = added[..., variable, : self.cardinalities[variable]]
            tables.append(table + row.reshape(*row.shape[:-1], *(1,) * len(self.parents[variable]), row.shape[-1]))
        return self._with(tables)

    def labelling(self, y: Tensor, name: str = "y") -> Tensor:
        return as_labelling(name, self.graph, y, self.batch_shape)

    @property
    def _centred(self) -> Self:
        groups = [entry for entry in self._mrf._centred.model.entries if isinstance(entry, Tensor)]
        return self._once("centred", lambda: self._with(self.families.by_variable(groups)))

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._like(self.log_cpts, self._mrf._with(self._mrf.model.expand(batch_shape)), self._joint)

    # Files -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_bif(cls, path: str | PathLike[str], *, inference: Method | None = None) -> Self:
        """The network of a BIF file, gzipped or not; float64. Other formats: :func:`lnz.io.read_model`.

        Raises:
            FormatError: the file cannot be read, or is none.
        """
        # files lie above distributions: imported when asked for
        return import_module("lnz.io").read_bif(path).bayes_net(inference, cls)

    def to_bif(self, path: str | PathLike[str]) -> None:
        """Write the network as a BIF file, with as many digits as float64 has.

        Raises:
            ValueError: a batch of networks, or one that has observed something.
        """
        if self.batch_shape or not self._joint:
            raise ValueError("to_bif: expected one network that has observed nothing")
        import_module("lnz.io").write_bif(path, self.names, self.states, self.parents, self.log_cpts)

    def __repr__(self) -> str:
        edges = sum(map(len, self.parents))
        batch = f", batch_shape={list(self.batch_shape)}" if self.batch_shape else ""
        seen = "" if self._joint else ", observed" if self._mrf.model.observed is not None else ", of any scores"
        return f"BayesNet({len(self.cardinalities)} variables, {edges} edges{batch}{seen})"
