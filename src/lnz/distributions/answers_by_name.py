"""What a Bayesian network is asked by the names of its variables and states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import Tensor

from lnz.distributions.families import Families
from lnz.distributions.variable_names import VariableNames
from lnz.errors import InfeasibleError
from lnz.inference.base import Method
from lnz.inference.exact.marginal_map import marginal_map
from lnz.typing import IGNORE

if TYPE_CHECKING:
    from lnz.distributions.bayes_net import BayesNet

Evidence = Mapping[int | str, int | str | Mapping[int | str, float]]
"""A state per observed variable, or a weight per state."""


class AnswersByName:
    """What :class:`~lnz.BayesNet` is asked by names: queries, interventions, soft evidence, marginal MAP."""

    families: Families
    log_cpts: tuple[Tensor, ...]
    batch_shape: torch.Size
    event_shape: torch.Size
    _names: VariableNames
    _joint: bool

    @abstractmethod
    def _with(self, tables: Iterable[Tensor], *, joint: bool = False, inference: Method | None = None) -> Self:
        """The same network with other tables."""

    @property
    @abstractmethod
    def inference(self) -> Method:
        """How posteriors are computed."""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each variable."""
        return self._names.variables

    @property
    def states(self) -> tuple[tuple[str, ...], ...]:
        """The names of the states of each variable."""
        return self._names.states

    def do(self, values: Mapping[int | str, int | str]) -> Self:
        """The network in which variables have been *set*, whatever their parents are (Pearl 2009, section 3.2).

        Their tables are exchanged for ones that are sure of the value; the rest stays as it is.

        Raises:
            ValueError: an unknown variable or state.
        """
        tables = list(self.log_cpts)
        for variable, state in self._names.numbered(values).items():
            sure = torch.arange(self.families.cardinalities[variable], device=tables[variable].device) == state
            table = torch.zeros_like(tables[variable]).masked_fill(~sure, -torch.inf)
            tables[variable] = table
        return self._with(tables, joint=self._joint)

    def query(
        self,
        names: Sequence[int | str],
        evidence: Evidence | None = None,
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
            self.names[v]: dict(zip(self.states[v], found[v, : self.families.cardinalities[v]].tolist(), strict=True))
            for v in wanted
        }

    def marginal_map(
        self,
        names: Sequence[int | str],
        evidence: Evidence | None = None,
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

    def _given(self, what: str, evidence: Evidence | None) -> BayesNet:
        """One network under evidence by names, hard and soft."""
        if self.batch_shape:
            raise ValueError(f"{what}: expected one network, got a batch of shape {list(self.batch_shape)}")
        hard, soft = self._names.evidence(evidence or {})
        y = torch.full(self.event_shape, IGNORE)
        for variable, state in hard.items():
            y[variable] = state
        return cast("BayesNet", self.weighted(soft) if soft else self).condition(y)

    def weighted(self, weights: Mapping[int, Tensor]) -> Self:
        """The network under soft evidence: P(v) times ``weights[i] [*batch, card]`` of the state of each variable i.

        ``log_partition`` is then ln of the expected product of weights.
        """
        tables = list(self.log_cpts)
        for variable, weight in weights.items():
            between = (1,) * len(self.families.parents[variable])
            row = weight.to(tables[variable]).log()
            tables[variable] = tables[variable] + row.reshape(*row.shape[:-1], *between, row.shape[-1])
        return self._with(tables)
