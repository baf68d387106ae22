"""Spanning trees of graphs as dependency trees of any shape, whose sums :mod:`lnz.ops.arborescence` finds.

The first node of each component is *earthed*: it hangs under the root 0, and nothing else does. A spanning tree of the
component then hangs together in one way, every other node under its neighbour on the way there; so spanning trees and
trees of arcs are one to one (Kirchhoff 1847; Tutte 1984), and the probability of an edge is that of its two arcs.
Node i is word i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.caching import constant
from lnz.checks import concrete
from lnz.graphs import FactorGraph, graph_of
from lnz.ops.arborescence.decode import TREES
from lnz.ops.arcs.records import Arcs
from lnz.semirings import Log


class Wiring(NamedTuple):
    """A graph of N nodes and E edges, on the CPU.

    Attributes:
        edges: the nodes of each edge ``int64 [E, 2]``: the factors of two nodes, in the order of groups.
        number: which of its parallel edges each is ``int64 [E]``.
        earthed: bool ``[N]``.
        places: the edge of each arc ``int64 [N + 1, N + 1, R]``, by dependent, head and number among parallel edges;
            E where there is no arc, E + 1 for those of earthed nodes.
    """

    edges: Tensor
    number: Tensor
    earthed: Tensor
    places: Tensor


_known: WeakKeyDictionary[FactorGraph, Wiring] = WeakKeyDictionary()


@constant
def wiring(handle: str) -> Wiring:
    """That of the graph with this handle, found once."""
    graph = graph_of(handle)
    if graph not in _known:
        edges = torch.cat([torch.zeros(0, 2, dtype=torch.int64), *(s for s in graph.scopes if s.shape[1] == 2)])
        nodes = torch.arange(graph.num_nodes)
        earthed = components(graph.num_nodes, (edges,)) == nodes
        low, high = edges.sort(-1).values.unbind(-1)
        number = _number_among_equals(low * graph.num_nodes + high)
        _known[graph] = Wiring(edges, number, earthed, _places(edges, earthed, nodes))
    return _known[graph]


def components(num_nodes: int, scopes: Sequence[Tensor]) -> Tensor:
    """``int64 [N]``: the first node of each node's connected component, factors ``[F, k]`` joining their nodes."""
    first = torch.arange(num_nodes)
    while True:
        before = first.clone()
        for scope in scopes:
            if scope.shape[1]:
                least = first[scope].amin(-1, keepdim=True).expand(scope.shape)
                first = first.scatter_reduce(0, scope.flatten(), least.flatten(), "amin")
        first = first[first]
        if torch.equal(first, before):
            return first


def _places(edges: Tensor, earthed: Tensor, group: Tensor) -> Tensor:
    """The places where nodes are joined to the first of their ``group [N]``, under which the others hang for good."""
    N, E = len(group), len(edges)
    low, high = group[edges].sort(-1).values.unbind(-1)
    kept = (low != high).nonzero().flatten()
    low, high = low[kept], high[kept]
    number = _number_among_equals(low * N + high)
    places = torch.full((N + 1, N + 1, int(number.max()) + 1 if len(kept) else 1), E)
    places[low + 1, high + 1, number] = places[high + 1, low + 1, number] = kept
    at_root = earthed | (group != torch.arange(N))
    places[1:][at_root] = E
    places[1:, 0, 0] = torch.where(at_root, E + 1, E)
    return places


def _number_among_equals(keys: Tensor) -> Tensor:
    """0, 1, 2 … in the order of ``keys [K]``, counted anew for each of their values."""
    ordered, order = keys.sort(stable=True)
    number = torch.arange(len(keys)) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(number).scatter(0, order, number)


# Edges that are in all trees ------------------------------------------------------------------------------------------


def joined_by(wired: Wiring, required: Tensor) -> tuple[Tensor, Tensor]:
    """The first node that edges ``required [*batch, E]`` join each node to ``[*batch, N]``; whether without cycle."""
    N = len(wired.earthed)
    together = _between(wired, required.long()) + torch.eye(N, dtype=torch.int64, device=required.device) > 0
    for _ in range(max(1, N - 1).bit_length()):
        together = together.float() @ together.float() > 0
    group = together.to(torch.uint8).argmax(-1) if N else required.new_zeros(*required.shape[:-1], 0).long()
    groups = (group == torch.arange(N, device=group.device)).sum(-1)
    return group, required.sum(-1) == N - groups


def contracted_places(wired: Wiring, required: Tensor) -> Tensor:
    """Places ``[*batch, N + 1, N + 1, R]`` of trees that hold edges ``[*batch, E]``; no arcs if these have a cycle."""
    rows, index = required.cpu().reshape(-1, len(wired.edges)).unique(dim=0, return_inverse=True)
    groups, acyclic = joined_by(wired, rows)
    each = [_places(wired.edges, wired.earthed, group) for group in groups]
    wide, E = max((places.shape[-1] for places in each), default=1), len(wired.edges)
    each = [torch.nn.functional.pad(places, (0, wide - places.shape[-1]), value=E) for places in each]
    shape = (*wired.places.shape[:-1], wide)
    stacked = torch.stack(each) if each else torch.zeros(0, *shape, dtype=torch.int64)
    stacked = stacked.masked_fill(~acyclic[:, None, None, None], E)
    return stacked[index].reshape(*required.shape[:-1], *shape).to(required.device)


def contracted_arcs(wired: Wiring, required: Tensor, scores: Tensor) -> Tensor:
    """Scores of arcs ``[*batch, N + 1, N + 1]``, parallel edges summed up, as :func:`contracted_places` has them.

    What the compiler can trace: its shapes do not depend on ``required``.
    """
    group, acyclic = joined_by(wired, required)
    M = group.shape[-1] + 1
    batch = torch.broadcast_shapes(scores.shape[:-1], group.shape[:-1])
    a, b = (group[..., nodes.to(group.device)].expand(*batch, -1) + 1 for nodes in wired.edges.unbind(-1))
    scores = scores.expand(*batch, -1).masked_fill(a == b, -torch.inf)
    arcs = torch.cat((scores, scores), -1)
    index = torch.cat((a * M + b, b * M + a), -1)
    top = scores.new_full((*batch, M * M), -torch.inf).scatter_reduce(-1, index, arcs.detach(), "amax")
    top = top.masked_fill(torch.isneginf(top), 0.0)
    sums = torch.zeros_like(top).scatter_add(-1, index, (arcs - top.gather(-1, index)).exp())
    table = (sums.masked_fill(sums == 0, 1.0).log() + top).masked_fill(sums == 0, -torch.inf).unflatten(-1, (M, M))
    at_root = wired.earthed.to(group.device) | (group != torch.arange(M - 1, device=group.device))
    at_root = torch.nn.functional.pad(at_root, (1, 0)).unsqueeze(-1)
    first = torch.arange(M, device=group.device) == 0
    table = table.masked_fill(at_root, -torch.inf).masked_fill(at_root & first, 0.0)
    return table.masked_fill(~acyclic[..., None, None], -torch.inf)


# Between edges and arcs -----------------------------------------------------------------------------------------------


def as_arcs(places: Tensor, scores: Tensor) -> Tensor:
    """Scores of edges ``[*batch, E]`` as scores of arcs ``[*batch, N + 1, N + 1, R]``."""
    others = scores.new_tensor([-torch.inf, 0.0]).expand(*scores.shape[:-1], 2)
    table = torch.cat((scores, others), -1)
    if places.dim() == 3:
        return table[..., places]
    batch = torch.broadcast_shapes(table.shape[:-1], places.shape[:-3])
    places = places.expand(*batch, *places.shape[-3:])
    return table.expand(*batch, -1).gather(-1, places.flatten(-3)).view(places.shape)


def summed_by_edge(places: Tensor, values: Tensor, E: int) -> Tensor:
    """Σ of ``values [*batch, N + 1, N + 1, R]`` over the arcs of each edge, ``[*batch, E]``."""
    batch = values.shape[:-3]
    places = places.expand(*batch, *places.shape[-3:]).flatten(-3)
    return values.new_zeros(*batch, E + 2).scatter_add(-1, places, values.flatten(-3))[..., :E]


def edges_of_trees(places: Tensor, heads: Tensor, numbers: Tensor, E: int) -> Tensor:
    """The edges of trees, 0 and 1, ``int64 [*, E]``, from heads and numbers of parallel edges ``[*, N + 1]``."""
    M, R = places.shape[-2:]
    rows = places.flatten(-2).expand(*heads.shape, M * R)
    edge = rows.gather(-1, (heads.clamp(min=0) * R + numbers.clamp(min=0)).unsqueeze(-1)).squeeze(-1)
    return heads.new_zeros(*heads.shape[:-1], E + 2).scatter(-1, edge, 1)[..., :E]


def hung(wired: Wiring, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heads and numbers of parallel edges ``[*, N + 1]`` of edges y ``[*, E]``; and whether they are a spanning tree.

    O(N³) time.
    """
    N, batch = len(wired.earthed), y.shape[:-1]
    earthed = wired.earthed.to(y.device)
    joined, numbers = _between(wired, y) > 0, _between(wired, y * wired.number.to(y.device))
    reached, heads = earthed.expand(*batch, N), y.new_zeros(*batch, N)
    for _ in range(N - 1):
        near = joined & reached.unsqueeze(-2)
        fresh = near.any(-1) & ~reached
        if concrete(fresh) and not fresh.any():
            break
        heads = torch.where(fresh, near.to(torch.uint8).argmax(-1) + 1, heads)
        reached = reached | fresh
    chosen = numbers.gather(-1, (heads - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1) if N else heads
    is_tree = reached.all(-1) & (y.sum(-1) == N - earthed.sum())
    heads, chosen = (torch.nn.functional.pad(x, (1, 0)) for x in (heads, chosen.masked_fill(heads == 0, 0)))
    return heads, chosen, is_tree


def _between(wired: Wiring, values: Tensor) -> Tensor:
    """Σ of ``values [*batch, E]`` of the edges between two nodes, ``[*batch, N, N]``."""
    N = len(wired.earthed)
    a, b = wired.edges.to(values.device).unbind(-1)
    one = values.new_zeros(*values.shape[:-1], N * N).index_add(-1, a * N + b, values).unflatten(-1, (N, N))
    return one + one.mT


def appearance(graph: FactorGraph) -> Tensor:
    """How often each edge is in a spanning tree, all being equally likely: float64 ``[E]``, its effective resistance.

    Kirchhoff (1847); Lyons & Peres 2016, §4.2. O(N³).
    """
    wired = wiring(graph.handle)
    E, N = len(wired.edges), graph.num_nodes
    scores = as_arcs(wired.places, torch.zeros(1, E, dtype=torch.float64))
    summed = Log().plus(scores, -1)
    heads = TREES.trees.solve(Arcs(summed, torch.tensor([N]), False)).marginals.unsqueeze(-1)
    arcs = heads * (scores - summed.masked_fill(torch.isneginf(summed), 0.0).unsqueeze(-1)).exp()
    return summed_by_edge(wired.places, arcs, E)[0].clamp(max=1.0)
