"""What a model file holds, whatever its format: a factor graph, its scores, and the names in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Tensor

from lnz.distributions import MRF, BayesNet
from lnz.graphs import FactorGraph
from lnz.inference.base import Method

Net = TypeVar("Net", bound=BayesNet)


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A factor graph with its scores, and the names of its nodes and labels as the file gives them.

    Attributes:
        kind: ``"BAYES"`` where the factors are conditional probabilities, ``"MARKOV"`` otherwise.
        graph: N nodes, in the order of the file.
        scores: natural logarithms of the tables, float64, −inf for zeros; per group ``[F, L1, …, Lk]``.
        names: the name of each node, N strings.
        states: the names of the labels of each node, in the order of the file.
    """

    kind: Literal["BAYES", "MARKOV"]
    graph: FactorGraph
    scores: tuple[Tensor, ...]
    names: tuple[str, ...]
    states: tuple[tuple[str, ...], ...]

    @cached_property
    def nodes(self) -> dict[str, int]:
        """The node of each name."""
        return {name: node for node, name in enumerate(self.names)}

    def mrf(self, inference: Method | None = None) -> MRF:
        """The distribution that the file describes."""
        return MRF(self.graph, self.scores, inference)

    def bayes_net(self, inference: Method | None = None, kind: type[Net] = BayesNet) -> Net:
        """The network that the file describes, of a class of networks.

        Raises:
            ValueError: the factors are not one table per variable given its parents.
        """
        families: dict[int, tuple[tuple[int, ...], Tensor]] = {}
        if self.kind == "BAYES":
            for scope, entry in zip(self.graph.scopes, self.scores, strict=True):
                for nodes, table in zip(scope.tolist(), entry, strict=True):
                    families[nodes[-1]] = tuple(nodes[:-1]), table  # the child is the last axis
        if len(families) < len(self.names) or sum(map(len, self.graph.scopes)) > len(families):
            raise ValueError(f"expected a Bayesian network, with one table per variable, got a {self.kind} model")
        parents, tables = zip(*(families[v] for v in range(len(self.names))), strict=True)
        return kind(
            self.graph.cardinalities, parents, tables, names=self.names, states=self.states, inference=inference
        )

    def with_likelihoods(self, likelihoods: Mapping[int, Sequence[float]]) -> NamedModel:
        """The model times a factor for each node of soft evidence: a weight for each of its labels."""
        if not likelihoods:
            return self
        nodes = list(likelihoods)
        cards = [self.graph.cardinalities[node] for node in nodes]
        extra = {card: [node for node, size in zip(nodes, cards, strict=True) if size == card] for card in cards}
        graph = FactorGraph(
            self.graph.cardinalities, (*self.graph.scopes, *(torch.tensor(of)[:, None] for of in extra.values()))
        )
        weights = (torch.tensor([likelihoods[node] for node in of], dtype=torch.float64).log() for of in extra.values())
        return NamedModel("MARKOV", graph, (*self.scores, *weights), self.names, self.states)


def numbered(cardinalities: Sequence[int]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Names and states for a format that has none: the numbers themselves."""
    names = tuple(str(node) for node in range(len(cardinalities)))
    of = {card: tuple(str(label) for label in range(card)) for card in set(cardinalities)}
    return names, tuple(of[card] for card in cardinalities)
