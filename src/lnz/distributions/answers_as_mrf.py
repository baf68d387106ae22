"""What a Bayesian network answers as the Markov random field that it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from torch import Tensor

from lnz.checks import check_integer, check_tensor, concrete
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.families import Families
from lnz.distributions.mrf import MRF
from lnz.errors import InfeasibleError
from lnz.typing import LazyTuple


class AnswersAsMRF(StructuredDistribution):
    """What :class:`~lnz.BayesNet` leaves to its :class:`~lnz.MRF`; errors speak of evidence."""

    families: Families
    _joint: bool

    @property
    @abstractmethod
    def _mrf(self) -> MRF:
        """The same model, with one factor per family."""

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

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        return self._mrf.topk(k)

    def argmax(self) -> Tensor:
        """The most probable explanation: the best row that agrees with what has been observed, ``[*batch, N]``."""
        with self._explained("argmax"):
            return self._mrf.argmax()

    def label_scores(self, y: Tensor) -> Tensor:
        return self._mrf.label_scores(y)

    def log_conditionals(self, y: Tensor) -> Tensor:
        return self._mrf.log_conditionals(y)

    def _unobserved(self, y: Tensor) -> Tensor:
        return self._mrf._unobserved(y)

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

    def to_mrf(self) -> MRF:
        """The same model as an MRF with one factor per variable, over its parents and itself."""
        return self._mrf

    @property
    def diagnostics(self) -> dict[str, object]:
        """What the inference method says about its own work."""
        return self._mrf.diagnostics
