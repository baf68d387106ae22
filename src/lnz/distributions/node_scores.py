"""Adding a score to every label of every node of a model, whatever its factors are."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.scores import Entry, Model, Weighted


def with_node_scores(model: Model, added: Tensor) -> Model:
    """The model with ``added`` ``[*batch, N, L]`` on top of its scores; what lies beyond a cardinality is ignored.

    Where a group of factors scores every node alone, the scores go there; otherwise the graph gets groups that do,
    and the extended graph is kept, so that whatever is planned for it is planned once.
    """
    graph = model.graph
    home = _home(graph)
    if home is not None:
        entries: list[Entry] = list(model.entries)
        entry = entries[home]
        scores = entry.expand() if isinstance(entry, Weighted) else entry
        entries[home] = scores + added[..., graph.scopes[home].flatten().to(added.device), : graph.labels[home][0]]
        return Model(graph, tuple(entries), model.observed)
    extended = _extended(graph)
    new = range(graph.num_groups, extended.num_groups)
    rows = [added[..., extended.scopes[g].flatten().to(added.device), : extended.labels[g][0]] for g in new]
    return Model(extended, (*model.entries, *rows), model.observed)


def _home(graph: FactorGraph) -> int | None:
    """The group that scores every node alone, exactly once, if there is one."""
    for group, scope in enumerate(graph.scopes):
        if scope.shape == (graph.num_nodes, 1) and len(scope.unique()) == graph.num_nodes:
            return group
    return None


_extensions: WeakKeyDictionary[FactorGraph, FactorGraph] = WeakKeyDictionary()


def _extended(graph: FactorGraph) -> FactorGraph:
    """The graph with a factor for every node alone, one more group per cardinality."""
    if graph not in _extensions:
        cards = torch.tensor(graph.cardinalities, dtype=torch.int64)
        groups = [(cards == card).nonzero() for card in sorted(set(graph.cardinalities))]
        _extensions[graph] = FactorGraph(graph.cardinalities, (*graph.scopes, *groups), grid=graph.grid_layout)
    return _extensions[graph]
