"""Spanning trees: the exponential softmax over the sets of edges that join all nodes of a graph without a cycle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from lnz.checks import (
    as_labels,
    broadcast_shapes,
    check_broadcast,
    check_event_shape,
    check_full,
    check_integer,
    check_labels,
    check_scores,
    check_tensor,
    concrete,
)
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.dependency_tree import DependencyTree
from lnz.distributions.support import Labellings
from lnz.graphs import FactorGraph
from lnz.ops import spanning_trees
from lnz.ops.precision import accumulator
from lnz.typing import IGNORE


class SpanningTree(StructuredDistribution):
    """``P(y) ∝ exp(Σ over edges of the tree of s[e])`` over the spanning trees of a graph; its spanning forests, one
    tree per component, where that is not connected.

    A tree y is an ``int64`` tensor ``[*batch, E]``: 1 at its edges, 0 at the others, −100 unknown. Z is a minor of the
    weighted Laplacian (Kirchhoff 1847). Trees are hung up at the first node of each component and are then the
    :class:`DependencyTree` of any shape, so that Z is found by an elimination which subtracts nothing, whatever the
    range of scores; likewise the k best trees, and samples. With scores of 0 the probability of an edge is its
    effective resistance, how often :class:`~lnz.inference.TreeReweighted` takes it to appear by default.

    O(N³) time and O(N²) memory per batch entry; samples O(N⁴), the k best O(k N³).

    Args:
        graph: its factors of two nodes are the edges, in the order of groups; those of one node or none are ignored.
            Several edges may join the same nodes.
        edge_scores: s ``[*batch, E]``; −inf forbids.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores of the wrong type, shape or value; a graph with factors of three nodes or more.
    """

    def __init__(self, graph: FactorGraph, edge_scores: Tensor, *, validate_args: bool | None = None) -> None:
        if not isinstance(graph, FactorGraph):
            raise TypeError(f"graph: expected a FactorGraph, got {type(graph).__name__}")
        for group, scope in enumerate(graph.scopes):
            if scope.shape[1] > 2:
                raise ValueError(f"graph: expected factors of up to two nodes, got {scope.shape[1]} in group {group}")
        values = self._validate_args if validate_args is None else validate_args
        check_scores("edge_scores", edge_scores, values=values)
        self._wiring = spanning_trees.wiring(graph.handle)
        if not edge_scores.dim() or edge_scores.shape[-1] != len(self.edges):
            raise ValueError(
                f"edge_scores: expected shape [*batch, {len(self.edges)}], one score per edge, "
                f"got {list(edge_scores.shape)}"
            )
        super().__init__(edge_scores.shape[:-1], edge_scores.shape[-1:], validate_args)
        self.graph, self.edge_scores = graph, edge_scores
        self._places = self._wiring.places.to(edge_scores.device)
        self._required: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        return self.edge_scores

    @property
    def edges(self) -> Tensor:
        """The nodes of each edge, ``int64 [E, 2]``."""
        return self._wiring.edges

    @property
    def support(self) -> constraints.Constraint:
        """0 or 1 at every edge."""
        return Labellings(2, 1)

    @property
    def _wide_scores(self) -> Tensor:
        """In the dtype to add up in."""
        return self.edge_scores.to(accumulator(self.edge_scores))

    # Trees of arcs ---------------------------------------------------------------------------------------------------

    @property
    def _tree(self) -> DependencyTree:
        """The trees hung up, those edges contracted that are in all of them."""

        def find() -> DependencyTree:
            arcs = spanning_trees.as_arcs(self._places, self._wide_scores)
            labelled = arcs.shape[-1] > 1
            return DependencyTree(
                arcs if labelled else arcs.squeeze(-1),
                projective=False,
                single_root=False,
                labelled=labelled,
                validate_args=False,
            )

        return self._once("tree", find)

    @staticmethod
    def _with_common(z: Tensor, required: Tensor | None, scores: Tensor) -> Tensor:
        """Sums ``z [*batch]`` over trees without the edges that all of them hold, with the scores of these."""
        if required is None:
            return z
        never = torch.isneginf(z.detach()) | (required & torch.isneginf(scores)).any(-1)
        common = torch.where(required & ~never.unsqueeze(-1), scores, 0.0).sum(-1)
        return (z + common).masked_fill(never, -torch.inf)

    @property
    def _centred(self) -> Self:
        """With scores less the largest: all trees have as many edges. In the dtype to add up in."""

        def find() -> Self:
            scores = self._wide_scores
            top = scores.detach().amax(-1, keepdim=True) if scores.numel() else scores.new_zeros(())
            return self._with(scores - top.masked_fill(torch.isneginf(top), 0.0))

        return self._once("centred", find)

    @property
    def log_partition(self) -> Tensor:
        z = self._tree._wide_log_partition
        return self._with_common(z, self._required, self._wide_scores).to(self._dtype)

    @property
    def marginals(self) -> Tensor:
        """P(edge), ``[*batch, E]``; they sum to the number of edges of a tree."""
        self._require_feasible("marginals")
        arcs = self._tree._wide_marginals.reshape(*self.batch_shape, *self._places.shape[-3:])
        found = spanning_trees.summed_by_edge(self._places, arcs, len(self.edges))
        return (found if self._required is None else found + self._required).to(self._dtype)

    def _cross_entropy(self, other: SpanningTree) -> Tensor:
        self._require_feasible("entropy")
        if other is self:
            return self._tree._cross_entropy(self._tree)
        shape = broadcast_shapes(self.batch_shape, other.batch_shape)
        p, q = self.expand(shape), other.expand(shape)
        if p._required is None and q._required is None:
            return p._tree._cross_entropy(q._tree)
        marginals, scores = p._centred.marginals, q._centred.edge_scores  # ln Z less expected scores
        banned = torch.isneginf(scores)
        expected = torch.where(marginals > 0, marginals * scores.masked_fill(banned, 0.0), 0.0).sum(-1)
        lost = (banned & (marginals > 0)).any(-1)
        if q._required is not None:
            sure = marginals if p._required is None else torch.where(p._required, 1.0, marginals)
            lost = lost | (q._required & (sure < 1)).any(-1)
        return (q._centred.log_partition - expected).masked_fill(lost, torch.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        check_tensor("y", value)
        if self._required is not None or not concrete(value) or self._unobserved(value).any():
            return super().log_prob(value)
        heads, numbers, right = spanning_trees.hung(self._wiring, self.labelling(value))
        tree = torch.stack((heads, numbers), -1) if self._tree.labelled else heads
        value = self._tree.log_prob(tree).clamp(max=0.0)  # of sums of large scores the last digits are lost
        return value.masked_fill(~right, -torch.inf).to(self._dtype)

    @property
    def _has_conditionals(self) -> bool:
        return False

    def _relative_log_partition(self, y: Tensor | None = None) -> Tensor:
        """ln Z(y) without an answer that needs to know which edges y has: the compiler can trace it."""
        p = self._centred
        if y is None:
            return p.log_partition
        y = self.labelling(y)
        required = (y == 1) if p._required is None else (y == 1) | p._required
        scores = torch.where(y == 0, -torch.inf, p.edge_scores)
        arcs = spanning_trees.contracted_arcs(self._wiring, required, scores)
        z = DependencyTree(arcs, projective=False, single_root=False, validate_args=False)._wide_log_partition
        return self._with_common(z, required, scores)

    # Labellings ------------------------------------------------------------------------------------------------------

    def score(self, y: Tensor) -> Tensor:
        """s(y), ``[*batch]``; −inf where y is impossible, also where it is no spanning tree."""
        y = self.labelling(y)
        if self._validate_args:
            check_full("y", self._unobserved(y))
        right = spanning_trees.hung(self._wiring, y.clamp(min=0))[2]
        if self._required is not None:
            right = right & ~(self._required & (y == 0)).any(-1)
        total = torch.where(y == 1, self._wide_scores, 0.0).sum(-1)
        return total.masked_fill(~right, -torch.inf).to(self._dtype)

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y)
        q = self._with(torch.where(y == 0, -torch.inf, self.edge_scores))
        required = (y == 1) if self._required is None else (y == 1) | self._required
        return q._requiring(required.expand(*q.batch_shape, -1))

    def _requiring(self, required: Tensor | None) -> Self:
        """Trees that hold these edges, ``[*batch, E]``."""
        if required is not None and required.any():
            self._required = required
            self._places = spanning_trees.contracted_places(self._wiring, required)
        return self

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        with torch.no_grad():
            trees, scores = self._tree.topk(k)
            scores = self._with_common(scores, self._required, self._wide_scores)
        y = self._unhung(trees).masked_fill(torch.isneginf(scores).unsqueeze(-1), IGNORE)
        return y, scores.to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self._unhung(self._tree._sample(n, generator))

    def _unhung(self, trees: Tensor) -> Tensor:
        """Trees of arcs ``[k, *batch, …]`` as edges."""
        heads, numbers = trees.unbind(-1) if self._tree.labelled else (trees, torch.zeros_like(trees))
        y = spanning_trees.edges_of_trees(self._places, heads, numbers, len(self.edges))
        return y if self._required is None else y | self._required.long()

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` as int64; raises unless it is 0, 1 or −100 at every edge."""
        check_tensor("y", y)
        y = as_labels("y", y)
        check_event_shape("y", y.shape, self.event_shape)
        check_broadcast("y", y.shape[:-1], self.batch_shape)
        check_labels("y", y, 2)
        return y

    def _unobserved(self, y: Tensor) -> Tensor:
        return (self.labelling(y) == IGNORE).any(-1)

    # The same distribution, otherwise written ------------------------------------------------------------------------

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.edge_scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        return self._with(function(self.edge_scores, 1))

    def _with(self, edge_scores: Tensor) -> Self:
        q = self.__class__(self.graph, edge_scores, validate_args=self._validate_args)
        return q._requiring(None if self._required is None else self._required.expand(*q.batch_shape, -1))

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        return (self.edge_scores,)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape."""
        return self._with(self.edge_scores.expand(*batch_shape, -1))

    def _check_comparable(self, other: object) -> None:
        super()._check_comparable(other)  # type: ignore[arg-type]
        assert isinstance(other, SpanningTree)
        if self.graph.num_nodes != other.graph.num_nodes or not torch.equal(self.edges, other.edges):
            raise ValueError("expected two distributions over the spanning trees of one graph, got two graphs")

    def __repr__(self) -> str:
        sizes = f"{self.graph.num_nodes} nodes, {len(self.edges)} edges"
        return f"SpanningTree({sizes}, batch_shape={list(self.batch_shape)})"
