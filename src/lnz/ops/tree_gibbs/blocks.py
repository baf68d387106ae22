"""Blocks of nodes that induce forests, and in which order their nodes are filtered: integer tables, made once.

A factor with one node in the block scores that node alone, since its other nodes are fixed; one with two is an edge of
the forest. Three would need more than a forest, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.graphs import FactorGraph, Grid
from lnz.ops.conditionals.sites import Part, Sites, wiring_of


@dataclass(frozen=True)
class Joint:
    """Factors of one group that join a child to its parent.

    Attributes:
        group: of the factors.
        child, parent: positions of the two in the scope.
        factors: ``int64 [P]``.
        slots: ``int64 [P]``, which of the children of the level each factor holds.
    """

    group: int
    child: int
    parent: int
    factors: Tensor
    slots: Tensor


@dataclass(frozen=True)
class Level:
    """All nodes of one depth: ``children`` and their ``parents``, as positions in the block, and what joins them."""

    children: Tensor
    parents: Tensor
    joints: tuple[Joint, ...]


@dataclass(frozen=True)
class Block:
    """A forest of M nodes: ``sites`` with the factors that hold one of them, ``roots``, and ``levels`` by depth."""

    sites: Sites
    roots: Tensor
    levels: tuple[Level, ...]


_blocks: WeakKeyDictionary[FactorGraph, dict[object, tuple[Block, ...]]] = WeakKeyDictionary()


def blocks_of(graph: FactorGraph, given: Sequence[Sequence[int]] | None, device: torch.device) -> tuple[Block, ...]:
    """The blocks of ``given``, or where that is ``None`` combs or those of a greedy partition.

    Raises:
        ValueError: a node is out of range or in no block, or a block does not induce a forest.
    """
    if given is not None:
        given = tuple(tuple(block) for block in given)
        _check_covers(given, graph.num_nodes)
    kept = _blocks.setdefault(graph, {})
    if (given, device) not in kept:
        chosen = given or _chosen(graph)
        kept[given, device] = tuple(planned(graph, list(nodes), device, i) for i, nodes in enumerate(chosen) if nodes)
    return kept[given, device]


def _chosen(graph: FactorGraph) -> Sequence[Sequence[int]]:
    grid = graph.grid_layout
    if grid is not None and grid.neighbours == 4 and min(grid.height, grid.width) > 1:
        return combs(grid)
    return forests(graph)


def combs(grid: Grid) -> tuple[list[int], list[int]]:
    """Two combs that cover a 4-neighbour grid: the first column with the even rows, the last with the odd ones."""
    at = torch.arange(grid.height * grid.width).reshape(grid.height, grid.width)
    first = torch.zeros_like(at, dtype=torch.bool)
    first[::2] = True
    first[:, -1] = False
    first[:, 0] = True
    return at[first].tolist(), at[~first].tolist()


def forests(graph: FactorGraph) -> list[list[int]]:
    """A partition into induced forests: each takes, in order, every node left that closes no cycle in it."""
    left, blocks = list(range(graph.num_nodes)), []
    while left:
        block, left = forest(graph, left)
        blocks.append(block)
    return blocks


def forest(graph: FactorGraph, candidates: Sequence[int]) -> tuple[list[int], list[int]]:
    """An induced forest that takes, in order, each of ``candidates`` that closes no cycle in it, and those left out."""
    neighbours, around = wiring_of(graph).neighbours, _larger_factors(graph)
    root: dict[int, int] = {}
    held: dict[tuple[int, int], int] = {}
    rest = []
    for node in candidates:
        trees = [_find(root, other) for other in neighbours[node] if other in root]
        if len(set(trees)) < len(trees) or any(held.get(factor, 0) == 2 for factor in around[node]):
            rest.append(node)
            continue
        root[node] = node
        for tree in trees:
            root[tree] = node
        for factor in around[node]:
            held[factor] = held.get(factor, 0) + 1
    return list(root), rest


def _larger_factors(graph: FactorGraph) -> list[list[tuple[int, int]]]:
    """Per node, the factors of three and more nodes that it is in."""
    around: list[list[tuple[int, int]]] = [[] for _ in range(graph.num_nodes)]
    for group, scope in enumerate(graph.scopes):
        if scope.shape[1] > 2:
            for f, nodes in enumerate(scope.tolist()):
                for node in nodes:
                    around[node].append((group, f))
    return around


def _find(root: dict[int, int], node: int) -> int:
    while root[node] != node:
        root[node] = root[root[node]]
        node = root[node]
    return node


def _check_covers(blocks: Sequence[Sequence[int]], num_nodes: int) -> None:
    seen = {node for block in blocks for node in block}
    if outside := [node for node in seen if not 0 <= node < num_nodes]:
        raise ValueError(f"blocks: expected nodes in [0, {num_nodes}), got {outside[0]}")
    if missing := set(range(num_nodes)) - seen:
        raise ValueError(
            f"blocks: expected every node in a block, but {len(missing)} are in none, first {min(missing)}"
        )
    for i, block in enumerate(blocks):
        if len(set(block)) < len(block):
            raise ValueError(f"blocks[{i}]: expected distinct nodes, got one twice")


def planned(graph: FactorGraph, nodes: list[int], device: torch.device, number: int = 0) -> Block:
    """The block of ``nodes``, the one of that number."""
    slot = {node: i for i, node in enumerate(nodes)}
    member = torch.zeros(graph.num_nodes, dtype=torch.bool)
    member[nodes] = True
    held = [member[scope].sum(-1) for scope in graph.scopes]
    joined: dict[int, dict[int, list[tuple[int, int, int, int]]]] = {node: {} for node in nodes}
    for group, scope in enumerate(graph.scopes):
        if (held[group] > 2).any():
            factor = scope[held[group] > 2][0].tolist()
            raise ValueError(
                f"blocks[{number}]: expected at most two nodes of each factor, got three of factor {factor}"
            )
        for f in (held[group] == 2).nonzero().flatten().tolist():
            scoped = scope[f].tolist()
            i, j = (position for position, node in enumerate(scoped) if node in slot)
            a, b = scoped[i], scoped[j]
            joined[a].setdefault(b, []).append((group, i, j, f))
            joined[b].setdefault(a, []).append((group, j, i, f))
    roots, by_depth = _rooted(joined, number)
    levels = tuple(_level(edges, joined, slot, device) for edges in by_depth)
    sites = wiring_of(graph).sites(torch.tensor(nodes), torch.device("cpu"))
    alone = [(part, held[part.group][part.factors] == 1) for part in sites.parts]
    parts = tuple(
        Part(part.group, part.position, part.factors[only].to(device), part.slots[only].to(device))
        for part, only in alone
        if only.any()
    )
    return Block(
        Sites(sites.nodes.to(device), parts), torch.tensor([slot[root] for root in roots], device=device), levels
    )


def _rooted(joined: dict[int, dict[int, list]], number: int) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """Roots of the trees, and per depth the pairs (child, parent)."""
    roots, by_depth, seen = [], [], set()
    for root in joined:
        if root in seen:
            continue
        roots.append(root)
        seen.add(root)
        front, depth = [(root, root)], 0
        while front:
            found = []
            for node, parent in front:
                for other in joined[node]:
                    if other == parent:
                        continue
                    if other in seen:
                        raise ValueError(
                            f"blocks[{number}]: expected a block that induces a forest, got a cycle at {other}"
                        )
                    seen.add(other)
                    found.append((other, node))
            if found:
                if depth == len(by_depth):
                    by_depth.append([])
                by_depth[depth] += found
            front, depth = found, depth + 1
    return roots, by_depth


def _level(
    edges: list[tuple[int, int]], joined: dict[int, dict[int, list]], slot: dict[int, int], device: torch.device
) -> Level:
    alike: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {}
    for at, (child, parent) in enumerate(edges):
        for group, i, j, f in joined[child][parent]:
            factors, slots = alike.setdefault((group, i, j), ([], []))
            factors.append(f)
            slots.append(at)

    def table(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    joints = tuple(Joint(*key, table(factors), table(slots)) for key, (factors, slots) in alike.items())
    return Level(table([slot[c] for c, _ in edges]), table([slot[p] for _, p in edges]), joints)
