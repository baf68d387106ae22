"""Bayesian networks: directed models over discrete variables, each with a table given its parents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import (
    check_integer,
    check_scores,
    check_tensor,
    concrete,
    joint_batch_shape,
    promoted,
)
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.families import Families, families
from lnz.distributions.learns_tables import LearnsTables
from lnz.distributions.log_probabilities import check_rows
from lnz.distributions.mrf import MRF
from lnz.distributions.variable_names import VariableNames
from lnz.errors import InfeasibleError
from lnz.graphs import FactorGraph
from lnz.inference.base import Method
from lnz.inference.exact.marginal_map import marginal_map
from lnz.ops.conditionals.random import categorical
from lnz.scores import Model, as_labelling
from lnz.typing import IGNORE, LazyTuple


class BayesNet(LearnsTables, StructuredDistribution):
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
        tables = _checked_tables(wiring, log_cpts, values=validate)
        if normalised and validate:
            for variable, table in enumerate(tables):
                check_rows(f"log_cpts[{variable}]", table)
        labels = VariableNames(wiring.cardinalities, names, states)
        mrf = MRF(wiring.graph, wiring.grouped(tables), inference, validate_args=False)
        self._init(wiring, tables, labels, mrf, normalised, validate)

    def _init(
        self, wiring: Families, tables: tuple[Tensor, ...], names: VariableNames, mrf: MRF, joint: bool, validate: bool
    ) -> None:
        super().__init__(mrf.batch_shape, mrf.event_shape, validate)
        self.families, self.log_cpts, self._names = wiring, tables, names
        self._mrf, self._joint = mrf, joint  # joint: nothing is observed, Z is 1
        mrf._validate_args = validate

    def _with(self, tables: Iterable[Tensor], *, joint: bool = False, inference: Method | None = None) -> Self:
        """The same network, and what it has observed, with other tables."""
        tables = tuple(tables)
        mrf = MRF(self.graph, self.families.grouped(tables), inference or self.inference, validate_args=False)
        if self._mrf.model.observed is not None:
            mrf = mrf._with(Model(self.graph, mrf.model.entries, self._mrf.model.observed).expand(self.batch_shape))
        return self._like(tables, mrf, joint)

    def _like(self, tables: tuple[Tensor, ...], mrf: MRF, joint: bool) -> Self:
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
    def names(self) -> tuple[str, ...]:
        """The name of each variable."""
        return self._names.variables

    @property
    def states(self) -> tuple[tuple[str, ...], ...]:
        """The names of the states of each variable."""
        return self._names.states

    @property
    def graph(self) -> FactorGraph:
        """With one factor per variable, over its parents and itself."""
        return self.families.graph

    @property
    def inference(self) -> Method:
        """How posteriors are computed."""
        return self._mrf.inference

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

    # Answers -----------------------------------------------------------------------------------------------------

    @property
    def log_partition(self) -> Tensor:
        """The log evidence of what has been observed, ``[*batch]``; 0 where nothing has."""
        return self._mrf.log_partition

    @property
    def marginals(self) -> LazyTuple:
        """Per variable the probability of each entry of its table, ``[*batch, *parents, card]``."""
        groups = self._once("marginals", lambda: self.families.by_variable(self._feasible("marginals")))
        return LazyTuple([lambda v=v: groups[v] for v in range(len(groups))])

    @property
    def node_marginals(self) -> Tensor:
        """The probability of each state of each variable, ``[*batch, N, L]``; 0 beyond a variable's cardinality."""
        return self._feasible("node_marginals")

    def score(self, y: Tensor) -> Tensor:
        """ln P(y and what has been observed), ``[*batch]``, of full rows; −inf where they contradict each other."""
        return self._mrf.score(y)

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(y), ``[*batch]``; of rows with −100 the probability of what they hold, any holes in each row.

        Of full rows of a network that has observed nothing, N additions in float64.
        """
        check_tensor("y", value)
        if not self._joint:
            return self._mrf.log_prob(value)
        y = self.labelling(value)
        if concrete(y) and not self._unobserved(y).any():
            return self._mrf.model.precise_score(y).to(self._dtype)
        return self.condition(y).log_partition

    def condition(self, y: Tensor) -> Self:
        return self._like(self.log_cpts, self._mrf._clamped(self.labelling(y)), False)

    def do(self, values: Mapping[int | str, int | str]) -> Self:
        """The network in which variables have been *set*, whatever their parents are (Pearl 2009, section 3.2).

        Their tables are exchanged for ones that are sure of the value; the rest stays as it is.

        Raises:
            ValueError: an unknown variable or state.
        """
        tables = list(self.log_cpts)
        for variable, state in self._names.numbered(values).items():
            sure = torch.arange(self.cardinalities[variable], device=tables[variable].device) == state
            table = torch.zeros_like(tables[variable]).masked_fill(~sure, -torch.inf)
            tables[variable] = table
        return self._with(tables, joint=self._joint)

    def query(
        self,
        names: Sequence[int | str],
        evidence: Mapping[int | str, int | str | Mapping[int | str, float]] | None = None,
    ) -> dict[str, dict[str, float]]:
        """The posterior of each of some variables, by names: ``{variable: {state: probability}}``.

        Args:
            names: of the variables to ask for; their numbers serve too.
            evidence: a state per observed variable; or a weight per state, soft evidence, of which only the ratios
                count (states left out have weight 0).

        Raises:
            InfeasibleError: evidence of probability 0.
            ValueError: an unknown variable or state; a batch of networks.
        """
        wanted = [self._names.variable(name) for name in names]
        try:
            found = self._given("query", evidence).node_marginals
        except InfeasibleError:
            shown = ", ".join(f"{name}={value}" for name, value in (evidence or {}).items())
            raise InfeasibleError(f"evidence: expected some of positive probability, got 0 of {shown}") from None
        return {
            self.names[v]: dict(zip(self.states[v], found[v, : self.cardinalities[v]].tolist(), strict=True))
            for v in wanted
        }

    def marginal_map(
        self,
        names: Sequence[int | str],
        evidence: Mapping[int | str, int | str | Mapping[int | str, float]] | None = None,
    ) -> tuple[dict[str, str], float]:
        """The most probable states of some variables together, all others summed out: marginal MAP.

        The likeliest state of each variable alone, :meth:`query`, or the states that these variables have in the
        likeliest row, :meth:`argmax`, may be others. Exact; the variables to be summed out come first in the
        elimination order, which may need far larger tables than a query of one variable (Park & Darwiche 2004).

        Args:
            names: of the variables to ask for; their numbers serve too.
            evidence: as of :meth:`query`.

        Returns:
            ``{variable: state}``, and ln P(these states and the evidence); less the evidence's ``log_partition``, it is
            their posterior log-probability.

        Raises:
            InfeasibleError: evidence of probability 0.
            IntractableError: tables larger than the method's limit; before any is allocated.
            TypeError: an inference method other than ``Exact`` and ``Enumeration``.
            ValueError: an unknown variable or state, no variable or one twice; a batch of networks.
        """
        model = self._given("marginal_map", evidence).to_mrf().model
        wanted = [self._names.variable(name) for name in names]
        labels, value = marginal_map(model, wanted, self.inference)
        return {self.names[v]: self.states[v][label] for v, label in zip(wanted, labels, strict=True)}, value

    def _given(self, what: str, evidence: Mapping[int | str, int | str | Mapping[int | str, float]] | None) -> BayesNet:
        """One network under evidence by names, hard and soft."""
        if self.batch_shape:
            raise ValueError(f"{what}: expected one network, got a batch of shape {list(self.batch_shape)}")
        hard, soft = self._names.evidence(evidence or {})
        y = torch.full(self.event_shape, IGNORE)
        for variable, state in hard.items():
            y[variable] = state
        return (self.weighted(soft) if soft else self).condition(y)

    def weighted(self, weights: Mapping[int, Tensor]) -> Self:
        """The network under soft evidence: P(v) times ``weights[i] [*batch, card]`` of the state of each variable i.

        ``log_partition`` is then ln of the expected product of weights.
        """
        tables = list(self.log_cpts)
        for variable, weight in weights.items():
            between = (1,) * len(self.parents[variable])
            row = weight.to(tables[variable]).log()
            tables[variable] = tables[variable] + row.reshape(*row.shape[:-1], *between, row.shape[-1])
        return self._with(tables)

    # The rest of the interface -----------------------------------------------------------------------------------

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        return self._mrf.topk(k)

    def argmax(self) -> Tensor:
        """The most probable explanation: the best row that agrees with what has been observed, ``[*batch, N]``."""
        with self._explained("argmax"):
            return self._mrf.argmax()

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        if not self._joint:
            return self._mrf._sample(n, generator)
        y = torch.zeros((n, *self.event_shape, *self.batch_shape), dtype=torch.int64, device=self._mrf.model.device)
        for variable in self.families.order:  # parents first
            above = [y[:, parent] for parent in self.parents[variable]]
            y[:, variable] = categorical(_rows(self.log_cpts[variable], above, (n, *self.batch_shape)), generator)
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

    def label_scores(self, y: Tensor) -> Tensor:
        return self._mrf.label_scores(y)

    def log_conditionals(self, y: Tensor) -> Tensor:
        return self._mrf.log_conditionals(y)

    def labelling(self, y: Tensor, name: str = "y") -> Tensor:
        return as_labelling(name, self.graph, y, self.batch_shape)

    def _unobserved(self, y: Tensor) -> Tensor:
        return self._mrf._unobserved(y)

    @property
    def _centred(self) -> Self:
        groups = [entry for entry in self._mrf._centred.model.entries if isinstance(entry, Tensor)]
        return self._once("centred", lambda: self._with(self.families.by_variable(groups)))

    def _relative_log_partition(self, y: Tensor | None = None) -> Tensor:
        return self._mrf._relative_log_partition(y)

    def _relative_score(self, y: Tensor) -> Tensor:
        return self._mrf._relative_score(y)

    @property
    def _has_conditionals(self) -> bool:
        return self._mrf._has_conditionals

    def _cross_entropy(self, other: Self) -> Tensor:
        if other.families is not self.families:
            raise ValueError("expected two networks over the same variables with the same parents")
        with self._explained("entropy"):
            return self._mrf._cross_entropy(other._mrf)

    def _require_feasible(self, what: str) -> None:
        if self._validate_args and not self._joint:
            with self._explained(what):
                self._mrf.solution.require_feasible(f"BayesNet.{what}")

    def _feasible(self, what: str) -> Any:
        """An answer of the MRF, whose errors speak of evidence."""
        with self._explained(what):
            return getattr(self._mrf, what)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Say of an impossible posterior that it is the evidence, not the network, that is impossible."""
        try:
            yield
        except InfeasibleError as error:
            entries = error.entries if self.batch_shape else ()
            shown = ", ".join(map(str, entries[:8])) + (", …" if len(entries) > 8 else "")
            where = f" in batch entries [{shown}]" if entries else ""
            message = f"BayesNet.{what}: no labelling has a finite score{where}; what is observed has probability 0"
            raise InfeasibleError(message, entries=error.entries) from None

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._like(self.log_cpts, self._mrf._with(self._mrf.model.expand(batch_shape)), self._joint)

    def to_mrf(self) -> MRF:
        """The same model as an MRF with one factor per variable, over its parents and itself."""
        return self._mrf

    @property
    def diagnostics(self) -> dict[str, object]:
        """What the inference method says about its own work."""
        return self._mrf.diagnostics

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


def _rows(table: Tensor, above: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """``table [*batch, *parents, card]`` at the states of the parents, each of ``shape [n, *batch]``."""
    axes = len(above) + 1
    flat = table.flatten(-axes, -2) if above else table.unsqueeze(-2)
    index = torch.zeros(shape, dtype=torch.int64, device=table.device)
    for states, size in zip(above, table.shape[-axes:-1], strict=True):
        index = index * size + states
    at = index[..., None, None].expand(*shape, 1, flat.shape[-1])
    return flat.expand(*shape, *flat.shape[-2:]).gather(-2, at).squeeze(-2)


def _checked_tables(wiring: Families, log_cpts: Sequence[Tensor], *, values: bool) -> tuple[Tensor, ...]:
    if isinstance(log_cpts, Tensor) or len(log_cpts) != len(wiring.cardinalities):
        got = "one tensor" if isinstance(log_cpts, Tensor) else len(log_cpts)
        raise ValueError(f"log_cpts: expected one table per variable, {len(wiring.cardinalities)}, got {got}")
    for variable, table in enumerate(log_cpts):
        name, shape = f"log_cpts[{variable}]", wiring.shape(variable)
        check_scores(name, table, values=values)
        if table.shape[table.dim() - len(shape) :] != shape or table.dim() < len(shape):
            parents = f", of parents {list(wiring.parents[variable])} and the variable" if len(shape) > 1 else ""
            listed = ", ".join(map(str, shape))
            raise ValueError(f"{name}: expected shape [*batch, {listed}]{parents}, got {list(table.shape)}")
    tables = promoted(*log_cpts)
    batches = {f"log_cpts[{v}]": t.shape[: t.dim() - len(wiring.shape(v))] for v, t in enumerate(tables)}
    if len(batches) > 1:
        joint_batch_shape(**batches)
    return tables
