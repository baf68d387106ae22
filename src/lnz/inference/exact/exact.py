"""Exact inference by variable elimination over a junction tree; on a forest this is two-pass message passing.

Time and memory are exponential in the width of the elimination order that was found, and linear in everything else.
The order is planned, or the model refused, before any table is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lnz.caching import constant
from lnz.checks import broadcast_shapes, check_integer, check_positive, concrete, working_dtype
from lnz.graphs import graph_of
from lnz.inference.base import Method, Solution
from lnz.inference.exact.elimination import Order
from lnz.inference.exact.evidence import SharedTables, shared_tables
from lnz.inference.exact.order_search import Limits
from lnz.inference.exact.plans import Plan, plan, plans_of, too_many_messages
from lnz.ops import elimination
from lnz.ops.dispatch import is_eager
from lnz.ops.elimination import program_of
from lnz.scores import Model
from lnz.typing import IGNORE


@dataclass(frozen=True)
class Exact(Method):
    """Exact inference on any factor graph, as long as what its elimination order needs is small enough.

    Nodes observed in every batch entry are cut out of the graph first. Everything is O(Σ_cliques Π L) in time; memory
    is that of the scores and of the messages between cliques, not that of the cliques' tables, which are made block by
    block. ``diagnostics`` tells the entries of all tables and of the messages.

    Args:
        max_table: the most entries that one table (the joint labels of a clique) may have, which is a limit on time: a
            pass over 2³² entries takes some 15 to 60 seconds on one core. There may be several tables.
        max_messages: the most entries of messages in memory, per batch entry that is worked on; the default's take
            4 GiB in float64, 2 GiB in float32. ln Z alone lets go of a message once it has been read. Marginals,
            gradients, samples and labellings need all of them, and are refused on their own.
        search_seconds: about how long an idle core searches for an order, where inference takes longer still or no
            order was found that keeps within the limits; counted as work, so that plans are the same on all machines.

    Raises:
        IntractableError: on ``solve``, where no order was found that keeps within both limits; and later, where an
            answer needs more messages than ln Z.
    """

    max_table: int = 2**32
    max_messages: int = 2**29
    search_seconds: float = 10.0
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("max_table", self.max_table, 1)
        check_integer("max_messages", self.max_messages, 1)
        check_positive("search_seconds", self.search_seconds)

    def solve(self, model: Model) -> ExactSolution:
        cut: frozenset[int] = frozenset()
        clamped = model.observed is not None
        if model.observed is not None and concrete(model.observed):
            seen = (model.observed != IGNORE).reshape(model.observed.shape[:-1].numel(), model.graph.num_nodes)
            everywhere = seen.all(0)
            cut = frozenset(everywhere.nonzero().flatten().tolist())
            clamped = bool((seen & ~everywhere).any())
        limits = self.max_table, self.max_messages, self.search_seconds
        handle, all_fit = _handle(model.graph.handle, cut, limits, model.dtype)
        return ExactSolution(model, handle, cut, clamped, Limits(*limits), all_fit)


@constant  # the compiler calls this once while tracing, instead of tracing it
def _handle(graph: str, cut: frozenset[int], limits: tuple[float, ...], dtype: torch.dtype) -> tuple[str, bool]:
    """The program of the plan for the graph with this handle, as what stands for it; whether all its messages fit."""
    found = plan(graph_of(graph), cut, Limits(*limits), dtype)
    return found.program.handle, found.messages <= limits[1]


Value = TypeVar("Value")


class ExactSolution(Solution):
    """Answers by passes over the junction tree: upward for ln Z, and downward for marginals, samples and labellings."""

    method = "Exact"
    exact = True

    def __init__(
        self, model: Model, handle: str, cut: frozenset[int], clamped: bool, limits: Limits, all_fit: bool = True
    ) -> None:
        super().__init__(model)
        self._limits = limits
        self._all_fit = all_fit
        self._handle = handle
        self._cut = cut
        self._clamped = clamped
        self._kept: dict[str, Any] = {}

    def _once(self, name: str, compute: Callable[[], Value]) -> Value:
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]

    def _rows(self, model: Model) -> Tensor:
        """The scores of a centred model as rows ``[B, program.size]``."""
        batch = model.batch_shape.numel()
        parts = [model.expanded(group).reshape(batch, math.prod(shape)) for group, shape in enumerate(self._shapes)]
        return torch.cat([*parts, self._node_tables(batch, model.dtype)], 1)

    def _constant_rows(self) -> Tensor:
        return self._once("rows", lambda: self._rows(self.model.centred()[0]).detach())

    @property
    def _base(self) -> Tensor:
        """Where each table starts in its row; no columns where no node is cut out."""
        if not self._cut:
            return torch.empty(1, 0, dtype=torch.int64, device=self.model.device)
        return program_of(self._handle).bases(self._observed_rows).to(self.model.device)

    @property
    def _observed_rows(self) -> Tensor | None:
        """``int64 [B or 1, N]``."""
        observed = self.model.observed
        if observed is None:
            return None
        if observed.dim() > 1:
            observed = observed.expand(*self.model.batch_shape, -1)
        return observed.reshape(observed.shape[:-1].numel(), observed.shape[-1])

    @property
    def _shapes(self) -> list[tuple[int, ...]]:
        """Per group, the shape of its scores but for the batch."""
        graph = self.model.graph
        return [(count, *labels) for count, labels in zip(graph.num_factors, graph.labels, strict=True)]

    def _node_tables(self, batch: int, dtype: torch.dtype) -> Tensor:
        """One table per node: −inf at the labels that an observation rules out, else 0."""
        graph, device = self.model.graph, self.model.device
        if not self._clamped or self._observed_rows is None:
            return torch.zeros(batch, sum(graph.cardinalities), dtype=dtype, device=device)
        cards = torch.tensor(graph.cardinalities, device=device)
        label = torch.cat([torch.arange(card, device=device) for card in graph.cardinalities])
        seen = self._observed_rows.to(device).repeat_interleave(cards, 1)
        ruled_out = ((seen != IGNORE) & (seen != label)).expand(batch, -1)
        return torch.zeros(ruled_out.shape, dtype=dtype, device=device).masked_fill(ruled_out, -torch.inf)

    def _both(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """ln Z ``[B]`` and all marginals ``[B, program.size]``, without gradients: one pass for all answers."""
        self._require_all_messages()
        args = (rows, self._base, self._handle, self._clamped)
        return self._once("both", lambda: elimination.partition_and_marginals(*args))

    def _require_all_messages(self) -> None:
        """Raise where the limit leaves room for the messages of ln Z, but not for all."""
        if not self._all_fit:
            raise too_many_messages(self._plan, self._limits, self.model.dtype)

    @property
    def _differentiated(self) -> bool:
        if forward_ad._current_level >= 0:  # tangents
            return True
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.model.tensors)

    @property
    def centred_log_partition(self) -> Tensor:
        return self._log_partition_of(self.model.centred()[0])

    def _log_partition_of(self, model: Model) -> Tensor:
        if self._shared is not None:
            return self._shared.log_partition
        if self._differentiated and self._all_fit and is_eager(*model.tensors):
            shared = shared_tables(model, self._plan, self._cut)
            if shared is not None and shared.networks == 1:
                return shared.differentiable_log_partition()
        rows = self._rows(model)
        if self._differentiated:
            value = elimination.differentiable_log_partition(rows, self._base, self._handle, self._both(rows))
        elif "both" in self._kept:
            value = self._both(rows)[0]
        else:
            args = (rows, self._base, self._handle, self._clamped)
            value = self._once("value", lambda: elimination.log_partition(*args))
        return value.reshape(self.model.batch_shape)

    @property
    def log_partition(self) -> Tensor:
        model, shift = self.model.centred()  # not the one that is kept: each answer has a graph of gradients of its own
        return self._log_partition_of(model) + shift

    def cross_entropy(self, other: Solution) -> Tensor:
        """As of any solution; by one pass up the tree of both, at any scale of scores.

        Nodes are cut out that both observe alike. The tree is else that of the larger problem, which may be refused.
        """
        if not isinstance(other, ExactSolution):
            return super().cross_entropy(other)
        mine, theirs = (self, self) if other is self else self._side_by_side(other)
        if mine._differentiated or theirs._differentiated:
            mine._require_all_messages()
        rows = mine._rows(mine.model.centred()[0])
        others = rows if theirs is mine else theirs._rows(theirs.model.centred()[0])
        value = elimination.surprisal(rows, others, mine._base, mine._handle)
        return value.reshape(mine.model.batch_shape)

    def _side_by_side(self, other: ExactSolution) -> tuple[ExactSolution, ExactSolution]:
        """Both with one batch shape and one program."""
        shape = broadcast_shapes(self.model.batch_shape, other.model.batch_shape)
        models, cut = [each.model.expand(shape) for each in (self, other)], self._cut & other._cut
        if cut and self.model.observed is not other.model.observed:
            every = (model.observed for model in models if model.observed is not None)
            labels = [observed.expand(*shape, -1).reshape(-1, self.model.graph.num_nodes) for observed in every]
            cut &= frozenset((labels[0] == labels[1]).all(0).nonzero().flatten().tolist())
        handle, all_fit = self._handle, self._all_fit
        if cut != self._cut:
            handle, all_fit = _handle(self.model.graph.handle, cut, tuple(self._limits), self.model.dtype)
        one, two = (ExactSolution(m, handle, cut, m.observed is not None, self._limits, all_fit) for m in models)
        return one, two

    @property
    def _shared(self) -> SharedTables | None:
        """All rows as one pass, where that serves and no gradients are asked for."""
        if self._differentiated or not self._all_fit:
            return None
        return self._once("shared", lambda: shared_tables(self.centred[0], self._plan, self._cut))

    def summed_marginals(self, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        shared, lead = self._shared, self.model.batch_shape[:-1]
        if shared is None or shared.networks != lead.numel():
            return super().summed_marginals(weights)
        parts = shared.sums(weights).split([math.prod(shape) for shape in self._shapes], 1)
        return tuple(part.reshape(*lead, 1, *shape) for part, shape in zip(parts, self._shapes, strict=True))

    def _marginal_rows(self) -> Tensor:
        shared = self._shared
        if shared is not None and shared.networks == 1:
            return self._once("all marginals", shared.marginals).to(self.model.dtype)
        rows = self._rows(self.model.centred()[0])
        done = self._both(rows)
        if not self._differentiated:
            return done[1]
        return elimination.differentiable_marginals(rows, self._base, self._handle, done)

    @property
    def marginals(self) -> tuple[Tensor, ...]:
        batch = self.model.batch_shape
        sizes = [math.prod(shape) for shape in self._shapes]
        parts = self._marginal_rows()[:, : sum(sizes)].split(sizes, 1) if sizes else ()
        return tuple(part.reshape(*batch, *shape) for part, shape in zip(parts, self._shapes, strict=True))

    @property
    def node_marginals(self) -> Tensor:
        graph, shared = self.model.graph, self._shared
        if shared is not None and shared.networks == 1 and "all marginals" not in self._kept:
            tables = self._once("node marginals", shared.node_marginals).to(self.model.dtype)
        else:
            tables = self._per_node(self._marginal_rows(), 0.0)
        return tables.reshape(*self.model.batch_shape, graph.num_nodes, graph.max_cardinality)

    def _per_node(self, rows: Tensor, fill: float) -> Tensor:
        """The node tables ``[…, N, L]`` of ``rows``, with ``fill`` beyond a node's own cardinality."""
        graph = self.model.graph
        flat = rows[..., rows.shape[-1] - sum(graph.cardinalities) :]
        if graph.uniform_cardinality is not None:
            return flat.reshape(*flat.shape[:-1], graph.num_nodes, graph.uniform_cardinality)
        cards = torch.tensor(graph.cardinalities, device=rows.device)
        valid = torch.arange(graph.max_cardinality, device=rows.device) < cards[:, None]
        padded = torch.full((*flat.shape[:-1], *valid.shape), fill, dtype=flat.dtype, device=flat.device)
        return padded.masked_scatter(valid, flat)

    @property
    def _labels(self) -> Tensor:
        """``int64 [B, N]``: what was observed, the other labels to be filled in."""
        batch, nodes = self.model.batch_shape.numel(), self.model.graph.num_nodes
        if self._observed_rows is None:
            return torch.full((batch, nodes), IGNORE, device=self.model.device)
        return self._observed_rows.to(self.model.device).expand(batch, -1)

    def argmax(self) -> Tensor:
        self._require_all_messages()
        labels = elimination.argmax(self._constant_rows(), self._base, self._handle, self._labels)
        return labels.reshape(*self.model.batch_shape, self.model.graph.num_nodes)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        self._require_all_messages()
        scores, indicators = elimination.topk(self._constant_rows(), self._base, self._handle, k)
        labels = self._per_node(indicators, 0.0).argmax(-1)
        missing = k - len(scores)
        scores = torch.nn.functional.pad(scores, (0, 0, 0, missing), value=-torch.inf)
        labels = torch.nn.functional.pad(labels, (0, 0, 0, 0, 0, missing), value=IGNORE)
        labels = labels.masked_fill(torch.isneginf(scores)[..., None], IGNORE)
        batch = self.model.batch_shape
        shift = self.model.centred()[1].detach()
        return labels.reshape(k, *batch, self.model.graph.num_nodes), scores.reshape(k, *batch) + shift

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        self._require_all_messages()
        scores = self._constant_rows()
        shape = (n, len(scores), len(program_of(self._handle).cliques))
        device = scores.device if generator is None else generator.device
        uniforms = torch.rand(shape, dtype=torch.float64, device=device, generator=generator).to(scores.device)
        drawn = elimination.sample(scores, self._base, self._handle, uniforms, self._labels)
        return drawn.reshape(n, *self.model.batch_shape, self.model.graph.num_nodes)

    @property
    def _plan(self) -> Plan:
        return next(p for p in plans_of(self.model.graph).values() if p.program.handle == self._handle)

    @property
    def order(self) -> Order:
        """The elimination order."""
        return self._plan.order

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The order's heuristic and what it needs: treewidth, entries and bytes of the largest table, of all tables,
        and of the messages, all of them and those that ln Z alone holds at once.
        """
        order = self.order
        width = torch.finfo(working_dtype(self.model.dtype)).bits // 8
        return {
            "heuristic": order.heuristic,
            "treewidth": order.width,
            "largest_table": order.largest,
            "table_bytes": order.largest * width,
            "total_entries": order.total,
            "message_entries": self._plan.messages,
            "message_entries_at_once": self._plan.live,
        }
