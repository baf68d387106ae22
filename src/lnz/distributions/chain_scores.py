"""What a linear chain is: scores of nodes and edges, lengths, and what labellings of it look like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_integers,
    as_labels,
    broadcast_shapes,
    check_broadcast,
    check_event_shape,
    check_labels,
    check_lengths,
    check_same_kind,
    check_scores,
    joint_batch_shape,
    plain,
    promoted,
)
from lnz.distributions.mrf import MRF
from lnz.distributions.sequence import SequenceDistribution, without_padding
from lnz.graphs import FactorGraph
from lnz.ops import chain
from lnz.typing import IGNORE


class ChainScores(SequenceDistribution):
    """The scores of a :class:`~lnz.distributions.linear_chain.LinearChain`, and the chains that follow from it."""

    def __init__(
        self,
        node_scores: Tensor,
        edge_scores: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("node_scores", node_scores, values=False)
        check_scores("edge_scores", edge_scores, values=False)
        node_scores, edge_scores = promoted(node_scores, edge_scores)
        lengths = None if lengths is None else as_integers("lengths", lengths, node_scores.device)
        batch_shape = _joint_batch_shape(node_scores, edge_scores, lengths)
        super().__init__(batch_shape, node_scores.shape[-2:-1], validate_args)
        inside, (T,) = inside_of(lengths, node_scores.shape[-2]), self.event_shape
        nodes = None if inside is None else lambda: inside().unsqueeze(-1)
        edges = (
            None
            if inside is None or edge_scores.dim() == 2 or edge_scores.shape[-3] != T - 1
            else lambda: inside()[..., 1:, None, None]
        )
        self._nodes = without_padding("node_scores", node_scores, nodes, values=values, axes=2)
        self._ends: Tensor | None = None  # [2, L], on top of the scores of the first and of the last label
        self.edge_scores = without_padding("edge_scores", edge_scores, edges, values=values, axes=3)
        self.lengths = lengths

    @property
    def node_scores(self) -> Tensor:
        """x ``[*batch, T, L]``, with :meth:`with_boundary_scores`."""
        if self._ends is None:
            return self._nodes
        ends = self._ends
        return self._once("node_scores", lambda: chain.with_ends(self._nodes, self.lengths, *ends))

    @property
    def scores(self) -> tuple[Tensor, Tensor]:
        return self.node_scores, self.edge_scores

    @property
    def _score_tensors(self) -> tuple[Tensor, ...]:
        return (self._nodes, self.edge_scores) if self._ends is None else (self._nodes, self.edge_scores, self._ends)

    @property
    def num_labels(self) -> int:
        return self._nodes.shape[-1]

    @property
    def _flat(self) -> chain.Chains:
        """Scores and lengths with one batch axis, as :mod:`lnz.ops.chain` takes them; half precision in float32."""
        return self._once("flat", lambda: self._with_one_batch_axis(self.node_scores))

    def _with_one_batch_axis(self, node: Tensor) -> chain.Chains:
        (T,), L, B = self.event_shape, self.num_labels, self.batch_shape.numel()
        node, scores = (each.to(self._working_dtype) for each in (node, self.edge_scores))
        if node.shape != (B, T, L):
            node = node.expand(*self.batch_shape, T, L).reshape(B, T, L)
        if scores.dim() == 2:
            edge = scores[None, None]
        elif scores.shape[:-3].numel() == 1:  # shared by the batch: not copied per entry
            edge = scores.reshape(1, *scores.shape[-3:])
        else:
            edge = scores.expand(*self.batch_shape, *scores.shape[-3:]).reshape(B, *scores.shape[-3:])
        if self.lengths is None:
            return chain.Chains(node, edge, torch.full((B,), T, device=node.device))
        return chain.Chains(node, edge, self.lengths.expand(self.batch_shape).reshape(B))

    @property
    def inside(self) -> Tensor:
        """Which positions are not padding, ``[*batch, T]`` (or ``[T]``)."""
        (T,) = self.event_shape
        steps = torch.arange(T, device=self.node_scores.device)
        return steps < (T if self.lengths is None else self.lengths.unsqueeze(-1))

    @property
    def _dtype(self) -> torch.dtype:
        return self._nodes.dtype

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y).unsqueeze(-1)
        labels = torch.arange(self.num_labels, device=y.device)
        excluded = (y != IGNORE) & (y != labels) & self.inside.unsqueeze(-1)
        return self._with(torch.where(excluded, -torch.inf, self.node_scores), self.edge_scores)

    def with_node_scores(self, added: Tensor) -> Self:
        return self._with(self.node_scores + added, self.edge_scores)

    def with_boundary_scores(self, start: Tensor | None = None, end: Tensor | None = None) -> Self:
        """The chain with ``start`` and ``end``, ``[*batch, L]``, on top of the scores of the first and the last label.

        The last label is that of each length. Scores and marginals stay those of nodes and edges, in their dtype;
        gradients flow to ``start`` and ``end`` through the node scores. A sequence of length 0 has neither.

        Raises:
            TypeError, ValueError: scores of the wrong type, shape or value.
        """
        (T,), L, node = self.event_shape, self.num_labels, self.node_scores
        shape = self.batch_shape
        for name, scores in (("start", start), ("end", end)):
            if scores is None:
                continue
            check_scores(name, scores, values=self._validate_args)
            check_same_kind(name, scores.to(node.dtype), "node_scores", node)
            check_event_shape(name, scores.shape, (L,))
            check_broadcast(name, scores.shape[:-1], shape)
            shape = broadcast_shapes(scores.shape[:-1], shape)
        added = [node.new_zeros(L) if scores is None else scores.to(node.dtype) for scores in (start, end)]
        shared = T > 0 and self._ends is None and all(ends.dim() == 1 and plain(ends) for ends in added)
        if not shared:
            return self._with(chain.with_ends(node, self.lengths, *added).expand(*shape, T, L), self.edge_scores)
        joined = copy(self)
        joined._ends = torch.stack(added)  # for kernels that take them as they are; nothing is copied for these
        return joined

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.node_scores), function(self.edge_scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        edge = self.edge_scores if self.edge_scores.dim() > 2 else self.edge_scores.unsqueeze(0)
        return self._with(function(self.node_scores, 2), function(edge, 3))

    @property
    def _lengths(self) -> Tensor | int:
        return self.event_shape[0] if self.lengths is None else self.lengths

    def _with(self, node_scores: Tensor, edge_scores: Tensor) -> Self:
        return self.__class__(node_scores, edge_scores, self.lengths, validate_args=self._validate_args)

    def _expanded_scores(self) -> tuple[Tensor, Tensor]:
        (T,), L = self.event_shape, self.num_labels
        return (
            self.node_scores.expand(*self.batch_shape, T, L),
            self.edge_scores.expand(*self.batch_shape, max(0, T - 1), L, L),
        )

    def _unobserved(self, y: Tensor) -> Tensor:
        return ((self.labelling(y) == IGNORE) & self.inside).any(-1)

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` with −100 over padding, whatever it held there."""
        (T,) = self.event_shape
        if not isinstance(y, Tensor):
            raise TypeError(f"y: expected a torch.Tensor, got {type(y).__name__}")
        y = as_labels("y", y)
        check_event_shape("y", y.shape, (T,))
        check_broadcast("y", y.shape[:-1], self.batch_shape)
        y = torch.where(self.inside, y, IGNORE)
        check_labels("y", y, self.num_labels)
        return y

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.node_scores.expand(*batch_shape, *self.node_scores.shape[-2:]), self.edge_scores)

    def to_mrf(self) -> MRF:
        """The same model as an MRF: groups nodes and edges. Padding nodes have the one label 0, at score 0.

        Raises:
            ValueError: a chain of no steps, T = 0.
        """
        (T,), L = self.event_shape, self.num_labels
        if T == 0:
            raise ValueError("to_mrf: expected a chain of at least one step, got T = 0")
        steps = torch.arange(T)
        graph = FactorGraph.pairwise(T, L, torch.stack((steps[:-1], steps[1:]), -1))
        node, edge = self.scores
        if self.lengths is not None:
            inside = self.inside
            only_first = torch.full((L,), -torch.inf, dtype=node.dtype, device=node.device)
            only_first[0] = 0.0
            node = torch.where(inside[..., None], node, only_first)
            edge = torch.where(inside[..., 1:, None, None], edge, 0.0)
        return MRF(graph, (node, edge), validate_args=self._validate_args)


def inside_of(lengths: Tensor | None, steps: int) -> Callable[[], Tensor] | None:
    """What makes the mask of steps that are not padding, bool ``[*batch, T]``; ``None`` where none is."""
    if lengths is None:
        return None
    return lambda: torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)


def _joint_batch_shape(node: Tensor, edge: Tensor, lengths: Tensor | None) -> torch.Size:
    """The batch shape of well-formed arguments; raises where they are not."""
    if node.dim() < 2 or node.shape[-1] == 0:
        raise ValueError(f"node_scores: expected shape [*batch, T, L] with L > 0, got {list(node.shape)}")
    T, L = node.shape[-2:]
    steps = max(0, T - 1)
    own = edge.dim() > 2 and edge.shape[-2:] == (L, L) and edge.shape[-3] in (1, steps)
    if not (own or edge.shape == (L, L)):
        raise ValueError(
            f"edge_scores: expected shape [{L}, {L}] or [*batch, {steps}, {L}, {L}], got {list(edge.shape)}"
        )
    check_same_kind("edge_scores", edge, "node_scores", node)
    shapes = {"node_scores": node.shape[:-2], "edge_scores": edge.shape[:-3]}
    if lengths is not None:
        check_lengths(lengths, T)
        shapes["lengths"] = lengths.shape
    return joint_batch_shape(**shapes)
