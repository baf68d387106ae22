"""Enumeration: the sum over all labellings, written out. The oracle that every other method is judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from lnz.caching import constant
from lnz.checks import check_integer
from lnz.errors import IntractableError
from lnz.graphs import graph_of
from lnz.inference.base import Method, Solution
from lnz.scores import Model
from lnz.typing import IGNORE


@dataclass(frozen=True)
class Enumeration(Method):
    """Exact inference by listing every labelling: time and memory O(Π_n L_n), differentiable any number of times.

    Args:
        max_table: the largest number of labellings to list.

    Raises:
        IntractableError: on ``solve``, where there are more labellings than ``max_table``.
    """

    max_table: int = 2**24
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("max_table", self.max_table, 1)

    def solve(self, model: Model) -> EnumerationSolution:
        labellings = math.prod(model.graph.cardinalities)
        if labellings > self.max_table:
            raise IntractableError(
                f"Enumeration: {labellings} labellings are more than max_table={self.max_table}; "
                "use Exact(), or an approximate method",
                treewidth=model.graph.num_nodes - 1,
                table_bytes=labellings * torch.finfo(model.dtype).bits // 8,
                alternatives=("Exact", "BeliefPropagation"),
            )
        return EnumerationSolution(model, _scopes(model.graph.handle))


@constant  # the compiler calls this once while tracing, instead of tracing it
def _scopes(graph: str) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Per group and factor of the graph with this handle, its nodes."""
    return tuple(tuple(map(tuple, scope.tolist())) for scope in graph_of(graph).scopes)


class EnumerationSolution(Solution):
    """One axis per node: the joint table ``[*batch, L_1, …, L_N]`` of centred scores, and what follows from it.

    Each answer makes it anew, and so has a graph of gradients of its own.
    """

    method = "Enumeration"
    exact = True

    def __init__(self, model: Model, scopes: tuple[tuple[tuple[int, ...], ...], ...]) -> None:
        super().__init__(model)
        self.scopes = scopes

    @property
    def joint(self) -> Tensor:
        """s(y) for every y, less what all have in common, in float64."""
        model, graph, batch = self.model.centred()[0], self.model.graph, self.model.batch_shape
        joint = torch.zeros((*batch, *graph.cardinalities), dtype=torch.float64, device=self.model.device)
        for group, scope in enumerate(self.scopes):
            for f, nodes in enumerate(scope):
                table = model.expanded(group)[(..., f) + (slice(None),) * len(nodes)]
                joint = joint + self._along(table, nodes)
        if self.model.observed is not None:
            for node, card in enumerate(graph.cardinalities):
                seen = self.model.observed[..., node, None]
                allowed = (seen == IGNORE) | (seen == torch.arange(card, device=seen.device))
                joint = joint.masked_fill(~self._along(allowed, [node]), -torch.inf)
        return joint

    def _along(self, table: Tensor, nodes: Sequence[int]) -> Tensor:
        """View ``[*batch, L1, …, Lk]`` with its label axes moved to those of ``nodes`` and 1 elsewhere."""
        lead = table.dim() - len(nodes)
        ascending = sorted(range(len(nodes)), key=lambda position: nodes[position])
        table = table.permute((*range(lead), *(lead + position for position in ascending)))
        shape = [card if node in nodes else 1 for node, card in enumerate(self.model.graph.cardinalities)]
        return table.reshape((*table.shape[:lead], *shape))

    @property
    def _flat(self) -> Tensor:
        return self.joint.reshape(*self.model.batch_shape, math.prod(self.model.graph.cardinalities))

    @property
    def centred_log_partition(self) -> Tensor:
        return self._summed(self._flat)

    def _summed(self, scores: Tensor) -> Tensor:
        impossible = torch.isneginf(scores).all(-1)  # torch's own gradient would be NaN there
        scores = scores.masked_fill(impossible.unsqueeze(-1), 0.0)
        return scores.logsumexp(-1).masked_fill(impossible, -torch.inf)

    @property
    def log_partition(self) -> Tensor:
        return self.centred_log_partition + self.model.centred()[1]

    @property
    def probabilities(self) -> Tensor:
        """P(y) for every y, ``[*batch, L_1, …, L_N]``; 0 where none is possible."""
        return self._log_probabilities.exp().reshape(*self.model.batch_shape, *self.model.graph.cardinalities)

    def cross_entropy(self, other: Solution) -> Tensor:
        if not isinstance(other, EnumerationSolution):
            return super().cross_entropy(other)
        mine, theirs = self._log_probabilities, other._log_probabilities
        chances = mine.exp()
        return -(chances * theirs.masked_fill(chances == 0, 0.0)).sum(-1)

    @property
    def _log_probabilities(self) -> Tensor:
        """ln P(y) for every y, ``[*batch, Π_n L_n]``; from differences of scores, which may be huge."""
        scores = self._flat
        none = torch.isneginf(scores).all(-1, keepdim=True)
        return scores.masked_fill(none, 0.0).log_softmax(-1).masked_fill(none, -torch.inf)

    def _marginal(self, probabilities: Tensor, nodes: Sequence[int]) -> Tensor:
        lead = len(self.model.batch_shape)
        summed = [lead + node for node in range(self.model.graph.num_nodes) if node not in nodes]
        table = probabilities.sum(summed) if summed else probabilities
        ascending = sorted(nodes)  # the axes that remain; put them back into the order of the scope
        return table.permute((*range(lead), *(lead + ascending.index(node) for node in nodes)))

    @property
    def marginals(self) -> tuple[Tensor, ...]:
        probabilities = self.probabilities
        return tuple(
            torch.stack([self._marginal(probabilities, nodes) for nodes in scope], len(self.model.batch_shape))
            if scope
            else self.model.expanded(group)
            for group, scope in enumerate(self.scopes)
        )

    @property
    def node_marginals(self) -> Tensor:
        probabilities = self.probabilities
        cards = self.model.graph.cardinalities
        pad = torch.nn.functional.pad
        return torch.stack(
            [pad(self._marginal(probabilities, [n]), (0, max(cards) - card)) for n, card in enumerate(cards)], -2
        )

    def _unravel(self, index: Tensor) -> Tensor:
        cards = self.model.graph.cardinalities
        return torch.stack(torch.unravel_index(index, cards), -1) if cards else index.new_empty(*index.shape, 0)

    def argmax(self) -> Tensor:
        return self._unravel(self._flat.argmax(-1))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        scores, index = self._flat.topk(min(k, self._flat.shape[-1]), -1)
        missing = k - scores.shape[-1]
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf).movedim(-1, 0)
        index = torch.nn.functional.pad(index, (0, missing)).movedim(-1, 0)
        scores = scores + self.model.centred()[1]
        return self._unravel(index).masked_fill(torch.isneginf(scores)[..., None], IGNORE), scores

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        flat = self.probabilities.detach().reshape(-1, math.prod(self.model.graph.cardinalities))
        if not len(flat):
            return self._unravel(torch.zeros(n, *self.model.batch_shape, dtype=torch.int64, device=flat.device))
        drawn = torch.multinomial(flat, n, replacement=True, generator=generator)
        return self._unravel(drawn.T.reshape(n, *self.model.batch_shape))

    @property
    def diagnostics(self) -> dict[str, Any]:
        return {"labellings": math.prod(self.model.graph.cardinalities)}
