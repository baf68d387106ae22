"""Appearance probabilities: how often each factor is in a random forest of factors.

A set of factors is a *forest* where the bipartite graph of its nodes and factors has no cycle, so that inference in it
is exact; on a graph of edges these are its forests as usual. Any distribution over forests that gives each factor a
positive probability gives an upper bound on ln Z. Factors of fewer than two nodes are in every forest. All is float64,
on the CPU.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.ops import spanning_trees

DENSE = 1024
"""The largest number of nodes for which spanning trees are summed over."""
ROUNDS = 12
"""At least so many forests are packed."""

_known: WeakKeyDictionary[FactorGraph, Tensor] = WeakKeyDictionary()


def uniform(graph: FactorGraph) -> Tensor:
    """``[F]``: uniform over the spanning forests of a graph of edges of up to :data:`DENSE` nodes, else packed.

    Uniform: an edge is in a random spanning tree with probability equal to the effective resistance between its ends
    (Kirchhoff 1847; Lyons & Peres 2016, §4.2). Computed once per graph, O(N³).
    """
    if graph not in _known:
        pairwise = all(scope.shape[1] <= 2 for scope in graph.scopes)
        _known[graph] = resistances(graph) if pairwise and graph.num_nodes <= DENSE else packed(graph)
    return _known[graph]


def resistances(graph: FactorGraph) -> Tensor:
    """The effective resistance of each edge, ``[F]``; 1 for factors of one node or none."""
    edges, found = spanning_trees.appearance(graph), []
    for scope in graph.scopes:
        count = len(scope) if scope.shape[1] == 2 else 0
        found.append(edges[:count] if count else torch.ones(len(scope), dtype=torch.float64))
        edges = edges[count:]
    return torch.cat(found) if found else edges


def packed(graph: FactorGraph, rounds: int = ROUNDS) -> Tensor:
    """The mean of forests packed greedily, ``[F]``: each prefers the factors that the forests before it used least.

    At least ``rounds`` of them, and as many as it takes to use every factor; O(F) each. On a grid they are combs. The
    probabilities approach the most even ones (Thorup 2007).
    """
    used = torch.zeros(sum(graph.num_factors), dtype=torch.float64)
    number = 0
    while number < rounds or not used.all():
        used += forest(graph, -used)
        number += 1
    return used / number


def forest(graph: FactorGraph, weights: Tensor) -> Tensor:
    """A maximal forest by Kruskal's greedy rule, heaviest factors first: 0 and 1, float64 ``[F]``.

    On graphs of edges its weight is the largest of all; among heavier factors the greedy choice is a heuristic.
    """
    root = list(range(graph.num_nodes))

    def find(x: int) -> int:
        while root[x] != x:
            root[x] = root[root[x]]
            x = root[x]
        return x

    scopes = [nodes for scope in graph.scopes for nodes in scope.tolist()]
    kept = np.zeros(len(scopes))
    for f in (-weights).argsort(stable=True).tolist():
        nodes = scopes[f]
        ends = {find(node) for node in nodes}
        if len(ends) == len(nodes):
            kept[f] = 1.0
            first, *others = ends or (0,)
            for other in others:
                root[other] = first
    return torch.from_numpy(kept)


def components(graph: FactorGraph) -> Tensor:
    """``int64 [N]``: the first node of each node's connected component."""
    return spanning_trees.components(graph.num_nodes, graph.scopes)
