"""Exact inference by variable elimination over a junction tree; on a forest this is two-pass message passing.

Time and memory are exponential in the width of the elimination order that was found, and linear in everything else.
The order is planned, or the model refused, before any table is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.caching import constant
from lnz.checks import check_integer, concrete, working_dtype
from lnz.errors import IntractableError
from lnz.graphs import FactorGraph, graph_of
from lnz.inference.base import Method, Solution
from lnz.inference.elimination import (
    Order,
    find_order,
    frontier,
    interaction_graph,
    junction_tree,
)
from lnz.ops import elimination
from lnz.ops.elimination import Program, program_of
from lnz.scores import Model
from lnz.typing import IGNORE


@dataclass(frozen=True)
class Plan:
    """An elimination order and the junction tree that follows from it."""

    order: Order
    program: Program


_plans: WeakKeyDictionary[FactorGraph, dict[tuple[frozenset[int], int], Plan]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Exact(Method):
    """Exact inference on any factor graph, as long as the tables that its elimination order needs are small enough.

    Nodes observed in every batch entry are cut out of the graph first. Everything is O(Σ_cliques Π L) in time; memory
    is that of the scores and of the messages between cliques.

    Args:
        max_table: the most entries that one table (the joint labels of a clique) may have. Tables are not allocated,
            but the messages between them are: a message of the default's size takes up to 1 GiB in float64 between
            binary nodes, less where nodes have more labels; and a pass over such a table takes one to three seconds
            on one core. There may be several of them: ``diagnostics`` tells the entries of all tables together.

    Raises:
        IntractableError: on ``solve``, where no order was found that keeps within ``max_table``.
    """

    max_table: int = 2**28
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("max_table", self.max_table, 1)

    def solve(self, model: Model) -> ExactSolution:
        cut: frozenset[int] = frozenset()
        clamped = model.observed is not None
        if model.observed is not None and concrete(model.observed):
            seen = (model.observed != IGNORE).reshape(model.observed.shape[:-1].numel(), model.graph.num_nodes)
            everywhere = seen.all(0)
            cut = frozenset(everywhere.nonzero().flatten().tolist())
            clamped = bool((seen & ~everywhere).any())
        return ExactSolution(model, _handle(model.graph.handle, cut, self.max_table, model.dtype), cut, clamped)


@constant  # the compiler calls this once while tracing, instead of tracing it
def _handle(graph: str, cut: frozenset[int], max_table: int, dtype: torch.dtype) -> str:
    """The program of the plan for the graph with this handle, as what stands for it in operators."""
    return plan(graph_of(graph), cut, max_table, dtype).program.handle


def plan(graph: FactorGraph, cut: frozenset[int], max_table: int, dtype: torch.dtype) -> Plan:
    """The plan for a graph whose nodes ``cut`` are observed; made once and kept with the graph."""
    plans = _plans.setdefault(graph, {})
    if (cut, max_table) not in plans:
        plans[cut, max_table] = _make_plan(graph, cut, max_table, dtype)
    return plans[cut, max_table]


def _make_plan(graph: FactorGraph, cut: frozenset[int], max_table: int, dtype: torch.dtype) -> Plan:
    sweep = None if cut else _grid_sweep(graph)
    if sweep is not None and sweep[0] > max_table:  # no order does better on a grid
        raise _intractable(*sweep, max_table, dtype)
    scopes = [nodes for scope in graph.scopes for nodes in scope.tolist()]
    neighbours = interaction_graph(graph.num_nodes, scopes, cut)
    free = [node for node in range(graph.num_nodes) if node not in cut]
    cards = graph.cardinalities
    if cut:
        least = max((math.prod([cards[node] for node in nodes if node not in cut]) for nodes in scopes), default=1)
    else:
        least = max((math.prod(labels) for labels in graph.labels), default=1)
    order = find_order(neighbours, cards, free, max_table, bound=least)
    if order is None:
        raise _intractable(*frontier(neighbours, cards, free), max_table, dtype)
    cliques = [(clique.nodes, clique.eliminated, clique.parent) for clique in junction_tree(order, cards)]
    return Plan(order, Program(cards, scopes, cliques, cut))


def _grid_sweep(graph: FactorGraph) -> tuple[int, int] | None:
    """The largest table and the width of a sweep along a grid's longer side; its shorter side is its treewidth."""
    if graph.grid_layout is None:
        return None
    width = min(graph.grid_layout.height, graph.grid_layout.width)
    return min(graph.cardinalities) ** (width + 1), width


def _intractable(largest: int, width: int, max_table: int, dtype: torch.dtype) -> IntractableError:
    table_bytes = largest * (torch.finfo(dtype).bits // 8)
    return IntractableError(
        f"Exact: no elimination order was found that keeps every table within max_table={max_table} entries; a plain "
        f"sweep over the nodes has treewidth {width} and a table of {_readable(table_bytes)} per batch entry. "
        "For approximate answers pass inference=lnz.inference.BeliefPropagation(), TreeReweighted() (an upper bound "
        "of ln Z), MeanField() (a lower bound), Gibbs() (samples) or TRWS() (a best labelling); or a larger max_table",
        treewidth=width,
        table_bytes=table_bytes,
        alternatives=("BeliefPropagation", "TreeReweighted", "MeanField", "Gibbs", "TRWS"),
    )


def _readable(size: int) -> str:
    power = max(0, math.floor(math.log(max(size, 1), 1024)))
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    if power < len(units):
        return f"{size / 1024**power:.1f} {units[power]} ({size} bytes)"
    return f"about 10^{math.log10(size):.0f} bytes"


Value = TypeVar("Value")


class ExactSolution(Solution):
    """Answers by passes over the junction tree: upward for ln Z, and downward for marginals, samples and labellings."""

    method = "Exact"
    exact = True

    def __init__(self, model: Model, handle: str, cut: frozenset[int], clamped: bool) -> None:
        super().__init__(model)
        self._handle = handle
        self._cut = cut
        self._clamped = clamped
        self._kept: dict[str, Any] = {}

    def _once(self, name: str, compute: Callable[[], Value]) -> Value:
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]

    def _rows(self) -> Tensor:
        """The centred scores as rows ``[B, program.size]``, made anew: a graph of gradients of their own each time."""
        model = self.centred[0]
        batch = model.batch_shape.numel()
        parts = [model.expanded(group).reshape(batch, math.prod(shape)) for group, shape in enumerate(self._shapes)]
        return torch.cat([*parts, self._node_tables(batch, model.dtype)], 1)

    def _constant_rows(self) -> Tensor:
        return self._once("rows", lambda: self._rows().detach())

    @property
    def _base(self) -> Tensor:
        """Where each table starts in its row; no rows where no node is cut out."""
        if not self._cut:
            return torch.empty(0, 0, dtype=torch.int64, device=self.model.device)
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
        args = (rows, self._base, self._handle, self._clamped)
        return self._once("both", lambda: elimination.partition_and_marginals(*args))

    @property
    def _differentiated(self) -> bool:
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.model.tensors)

    @property
    def centred_log_partition(self) -> Tensor:
        rows = self._rows()
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
        return self.centred_log_partition + self.centred[1]

    def _marginal_rows(self) -> Tensor:
        rows = self._rows()
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
        graph = self.model.graph
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
        labels = elimination.argmax(self._constant_rows(), self._base, self._handle, self._labels)
        return labels.reshape(*self.model.batch_shape, self.model.graph.num_nodes)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        scores, indicators = elimination.topk(self._constant_rows(), self._base, self._handle, k)
        labels = self._per_node(indicators, 0.0).argmax(-1)
        missing = k - len(scores)
        scores = torch.nn.functional.pad(scores, (0, 0, 0, missing), value=-torch.inf)
        labels = torch.nn.functional.pad(labels, (0, 0, 0, 0, 0, missing), value=IGNORE)
        labels = labels.masked_fill(torch.isneginf(scores)[..., None], IGNORE)
        batch = self.model.batch_shape
        shift = self.centred[1].detach()
        return labels.reshape(k, *batch, self.model.graph.num_nodes), scores.reshape(k, *batch) + shift

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        scores = self._constant_rows()
        shape = (n, len(scores), len(program_of(self._handle).cliques))
        device = scores.device if generator is None else generator.device
        uniforms = torch.rand(shape, dtype=torch.float64, device=device, generator=generator).to(scores.device)
        drawn = elimination.sample(scores, self._base, self._handle, uniforms, self._labels)
        return drawn.reshape(n, *self.model.batch_shape, self.model.graph.num_nodes)

    @property
    def order(self) -> Order:
        """The elimination order."""
        return next(p.order for p in _plans[self.model.graph].values() if p.program.handle == self._handle)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """The order's heuristic and what it needs: treewidth, entries and bytes of the largest table, of all tables."""
        order = self.order
        width = torch.finfo(working_dtype(self.model.dtype)).bits // 8
        return {
            "heuristic": order.heuristic,
            "treewidth": order.width,
            "largest_table": order.largest,
            "table_bytes": order.largest * width,
            "total_entries": order.total,
        }
