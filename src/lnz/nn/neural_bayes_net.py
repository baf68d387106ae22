"""Bayesian networks whose tables a network computes, and the generalised EM that trains it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from lnz.checks import check_integer
from lnz.distributions import BayesNet
from lnz.nn.generalised_em import ascend, draw_weights, weighted
from lnz.objectives import EMResult, em


@dataclass(frozen=True, eq=False)
class TableCounts:
    """Expected counts given rows and their inputs.

    Attributes:
        inputs: ``[R, …]``.
        counts: per variable ``[R, *parents, card]``.
    """

    inputs: Tensor
    counts: list[Tensor]


class NeuralBayesNet(nn.Module):
    """A :class:`lnz.BayesNet` whose tables are computed from inputs, one network per row.

    ``forward`` gives the network of inputs. Train it by gradient, minimising ``-model(inputs).log_prob(rows).mean()``,
    which sums over what is missing; or by :meth:`fit`, a generalised EM (Neal & Hinton 1998): its M step raises the
    expected log-probabilities by L-BFGS instead of maximising them. It never lowers the likelihood. Both use the same
    expected counts.

    Args:
        network: inputs ``[R, …]`` to a sequence of logits, per variable ``[R, *parents, card]``, or without ``R``
            where a table does not depend on the inputs; −inf forbids.
        cardinalities: the number of states of each variable.
        parents: the parents of each variable.
        steps: iterations of L-BFGS in an M step.
    """

    def __init__(
        self, network: nn.Module, cardinalities: Sequence[int], parents: Sequence[Sequence[int]], steps: int = 20
    ) -> None:
        super().__init__()
        check_integer("steps", steps)
        self.network, self.steps = network, steps
        self.cardinalities, self.parents = tuple(cardinalities), tuple(map(tuple, parents))

    training_result: EMResult[Any] | None = None
    """What the last :meth:`fit` found."""

    def forward(self, inputs: Tensor) -> BayesNet:
        """The network of inputs ``[R, …]``, of batch shape ``[R]``."""
        return BayesNet(self.cardinalities, self.parents, self._log_cpts(inputs)).expand(inputs.shape[:1])

    if TYPE_CHECKING:
        __call__ = forward

    def _log_cpts(self, inputs: Tensor) -> list[Tensor]:
        return [logits.log_softmax(-1) for logits in self.network(inputs)]

    def fit(self, data: Tensor, inputs: Tensor, **settings: Any) -> Self:
        """Itself, with the parameters that :func:`lnz.objectives.em` finds; :attr:`training_result` has its course.

        Args:
            data: rows ``[R, N]``, −100 for what is missing.
            inputs: ``[R, …]``.
            settings: those of :func:`lnz.objectives.em`; ``restarts`` draws matrices from N(0, 1 / fan-in).

        Raises:
            ValueError: not as many inputs as rows.
        """
        if len(inputs) != len(data):
            raise ValueError(f"inputs: expected {len(data)}, one per row of data, got {len(inputs)}")
        learner: Any = _Learner(self, inputs)
        self.training_result = replace(em(learner, data, **settings), model=self)
        return self


class _Learner(nn.Module):
    """A model with its inputs: what EM takes."""

    def __init__(self, model: NeuralBayesNet, inputs: Tensor) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def _double(self) -> Tensor:
        parameters = list(self.model.parameters())
        same = parameters and self.inputs.is_floating_point()
        return self.inputs.to(parameters[0].dtype) if same else self.inputs

    @torch.no_grad()
    def e_step(self, data: Tensor, lengths: object = None, weights: Tensor | None = None) -> tuple[Tensor, TableCounts]:
        if lengths is not None:
            raise ValueError("lengths: expected none for rows of a network")
        inputs = self._double()
        net = self.model(inputs)
        counts = net.expected_statistics(data)
        evidence = net.log_prob(data).double()
        if weights is not None:
            counts = [each * weights.to(each).reshape(-1, *[1] * (each.dim() - 1)) for each in counts]
            evidence = evidence * weights
        return evidence.sum(), TableCounts(inputs, counts)

    def m_step(self, statistics: TableCounts, pseudocount: float) -> Self:
        def objective() -> Tensor:
            tables = self.model._log_cpts(statistics.inputs)
            rows = zip(statistics.counts, tables, strict=True)
            return torch.stack([weighted(each, table.expand_as(each)) for each, table in rows]).sum()

        ascend(self.model.network.parameters(), objective, self.model.steps)
        return self

    def log_prior(self, pseudocount: float) -> Tensor:
        return torch.zeros(())

    def drawn(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        draw_weights(self.model.network, generator)
        return self

    def num_parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters() if each.requires_grad)

    @staticmethod
    def num_observations(data: Tensor, lengths: object = None, weights: Tensor | None = None) -> float:
        return float(len(data)) if weights is None else float(weights.sum())

    def __deepcopy__(self, memo: dict[int, Any]) -> _Learner:
        return _Learner(copy.deepcopy(self.model, memo), self.inputs)
