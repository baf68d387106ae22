"""Plans of exact inference: an elimination order within limits and its junction tree, or a refusal with numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from lnz.checks import working_dtype
from lnz.errors import IntractableError
from lnz.graphs import FactorGraph
from lnz.inference.exact.elimination import Order, frontier, interaction_graph
from lnz.inference.exact.junction_tree import all_messages, junction_tree
from lnz.inference.exact.order_search import Limits, find_order
from lnz.ops.elimination import Program


@dataclass(frozen=True)
class Plan:
    """An elimination order and the junction tree that follows from it.

    Attributes:
        order: the order.
        program: its junction tree.
        live: entries of the messages that are held at once, at most, where ln Z alone is asked for.
        messages: entries of all messages, which marginals, gradients, samples and labellings need.
    """

    order: Order
    program: Program
    live: int
    messages: int


_plans: WeakKeyDictionary[FactorGraph, dict[tuple[frozenset[int], Limits], Plan]] = WeakKeyDictionary()


def plans_of(graph: FactorGraph) -> dict[tuple[frozenset[int], Limits], Plan]:
    """All plans made for a graph, by the nodes that are observed and the limits; kept as long as the graph."""
    return _plans.setdefault(graph, {})


def plan(graph: FactorGraph, cut: frozenset[int], limits: Limits, dtype: torch.dtype) -> Plan:
    """The plan for a graph whose nodes ``cut`` are observed, made once; scores of ``dtype`` count in a refusal."""
    plans = plans_of(graph)
    if (cut, limits) not in plans:
        plans[cut, limits] = _make_plan(graph, cut, limits, dtype)
    return plans[cut, limits]


def _make_plan(graph: FactorGraph, cut: frozenset[int], limits: Limits, dtype: torch.dtype) -> Plan:
    sweep = None if cut else _grid_sweep(graph)
    if sweep is not None and sweep[0] > limits.table:  # no order does better on a grid
        raise _intractable("a sweep along the longer side of the grid", *sweep, sweep[0], limits, dtype)
    scopes = [nodes for scope in graph.scopes for nodes in scope.tolist()]
    neighbours = interaction_graph(graph.num_nodes, scopes, cut)
    free = [node for node in range(graph.num_nodes) if node not in cut]
    cards = graph.cardinalities
    if cut:
        least = max((math.prod([cards[node] for node in nodes if node not in cut]) for nodes in scopes), default=1)
    else:
        least = max((math.prod(labels) for labels in graph.labels), default=1)
    found = find_order(neighbours, cards, free, limits, least)
    if found is None:
        largest, width = frontier(neighbours, cards, free)
        raise _intractable("a sweep over the nodes", largest, width, largest, limits, dtype)
    order = found.order
    if found.excess > 1:
        raise _intractable(order.heuristic, order.largest, order.width, found.live, limits, dtype)
    tree = junction_tree(order, cards)
    program = Program(cards, scopes, [(clique.nodes, clique.eliminated, clique.parent) for clique in tree], cut)
    return Plan(order, program, found.live, all_messages(tree, cards))


def _grid_sweep(graph: FactorGraph) -> tuple[int, int] | None:
    """The largest table and the width of a sweep along a grid's longer side; its shorter side is its treewidth."""
    if graph.grid_layout is None:
        return None
    width = min(graph.grid_layout.height, graph.grid_layout.width)
    return min(graph.cardinalities) ** (width + 1), width


_INSTEAD = (
    "For approximate answers pass inference=lnz.inference.BeliefPropagation(), TreeReweighted() (an upper bound of "
    "ln Z), MeanField() (a lower bound), Gibbs() (samples) or TRWS() (a best labelling); or larger limits"
)
_ALTERNATIVES = ("BeliefPropagation", "TreeReweighted", "MeanField", "Gibbs", "TRWS")


def _intractable(
    found_by: str, largest: int, width: int, live: int, limits: Limits, dtype: torch.dtype
) -> IntractableError:
    entry = torch.finfo(working_dtype(dtype)).bits // 8
    return IntractableError(
        f"Exact: no elimination order was found within max_table={limits.table} entries of one table and "
        f"max_messages={limits.messages} entries of messages; the best one found ({found_by}) has treewidth {width} "
        f"and needs a table of {_readable(largest * entry)} and, at once, up to {_readable(live * entry)} of "
        f"messages per batch entry. {_INSTEAD}",
        treewidth=width,
        table_bytes=largest * entry,
        alternatives=_ALTERNATIVES,
    )


def too_many_messages(found: Plan, limits: Limits, dtype: torch.dtype) -> IntractableError:
    """The refusal where the limit leaves room for the messages of ln Z, but not for all."""
    entry = torch.finfo(working_dtype(dtype)).bits // 8
    return IntractableError(
        f"Exact: marginals, gradients, samples and labellings need {_readable(found.messages * entry)} of "
        f"messages per batch entry, more than max_messages={limits.messages} entries; ln Z without gradient "
        f"needs {_readable(found.live * entry)}. {_INSTEAD}",
        treewidth=found.order.width,
        table_bytes=found.order.largest * entry,
        alternatives=_ALTERNATIVES,
    )


def _readable(size: int) -> str:
    power = max(0, math.floor(math.log(max(size, 1), 1024)))
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    if power < len(units):
        return f"{size / 1024**power:.1f} {units[power]} ({size} bytes)"
    return f"about 10^{math.log10(size):.0f} bytes"
