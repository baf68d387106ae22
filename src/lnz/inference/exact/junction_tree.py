"""The junction tree that follows from an elimination order: its cliques, and the messages between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lnz.inference.exact.elimination import Order

_BLOCK = 256  # the most joint labels of the nodes that one clique eliminates together


@dataclass(frozen=True)
class Clique:
    """One table of the junction tree.

    Attributes:
        nodes: the separator first, then the eliminated nodes, both in descending order of elimination, so that a
            message keeps its layout in the table that receives it and the summed axes are the last ones.
        eliminated: how many of the last nodes are summed out here.
        parent: position of the clique that receives the message, −1 for a root.
    """

    nodes: tuple[int, ...]
    eliminated: int
    parent: int


def live_messages(tree: Sequence[Clique], cardinalities: Sequence[int]) -> int:
    """The entries of the messages held at once, at most, in a pass up the tree that lets go of what has been read."""
    sizes = [math.prod([cardinalities[n] for n in c.nodes[: len(c.nodes) - c.eliminated]]) for c in tree]
    read = [0] * len(tree)  # entries that each clique's children have sent
    live = most = 0
    for place, clique in enumerate(tree):
        live += sizes[place]
        most = max(most, live)
        live -= read[place]
        if clique.parent >= 0:
            read[clique.parent] += sizes[place]
    return most


def all_messages(tree: Sequence[Clique], cardinalities: Sequence[int]) -> int:
    """The entries of all messages together, which the pass down the tree reads again."""
    return sum([math.prod([cardinalities[n] for n in c.nodes[: len(c.nodes) - c.eliminated]]) for c in tree])


def junction_tree(order: Order, cardinalities: Sequence[int]) -> tuple[Clique, ...]:
    """The cliques of an order, children before parents, each node eliminated in exactly one.

    A clique that is all of a child's separator is merged into that child: one table, one message fewer.
    """
    position = {node: place for place, node in enumerate(order.nodes)}
    eliminated = [[node] for node in order.nodes]
    parent = [min((position[other] for other in later), default=-1) for later in order.later]
    merged: dict[int, int] = {}  # a child to the parent that swallowed it
    for child, above in enumerate(parent):
        if above >= 0 and len(order.later[child]) == len(order.later[above]) + 1:
            together = eliminated[above] + eliminated[child]
            if len(eliminated[above]) == 1 and math.prod([cardinalities[node] for node in together]) <= _BLOCK:
                eliminated[above] = together
                merged[child] = above
    kept = [place for place in range(len(order.nodes)) if place not in merged]
    renumbered = {place: number for number, place in enumerate(kept)}
    cliques: list[Clique] = []
    for place in kept:
        separator = sorted(order.later[place], key=position.__getitem__, reverse=True)
        above = parent[place]
        while above in merged:
            above = merged[above]
        cliques.append(Clique((*separator, *eliminated[place]), len(eliminated[place]), renumbered.get(above, -1)))
    return tuple(cliques)
