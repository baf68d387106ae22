"""Exact moves of many nodes at once: a random set that is cheap to solve, all other nodes held at their labels.

Which nodes to hold is what elimination says while it runs: where a clique grows too large, a node of it is held
instead (w-cutset conditioning: Bidyuk and Dechter 2007). On a grid most nodes move together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import torch
from torch import Tensor

from lnz.inference.exact.elimination import Neighbours, Order, interaction_graph
from lnz.inference.exact.exact import ExactSolution
from lnz.inference.exact.junction_tree import junction_tree
from lnz.inference.exact.order_search import Limits
from lnz.ops.elimination import Program
from lnz.scores import Model
from lnz.typing import IGNORE


def improved(model: Model, labels: Tensor, max_table: int, patience: int, seed: int) -> tuple[Tensor, int]:
    """Labellings ``int64 [*batch, N]`` no worse than ``labels``, and the number of blocks tried.

    Blocks are tried until ``patience`` in a row made no batch entry better. Memory is that of the expanded scores and
    of tables of up to ``max_table`` entries.
    """
    graph = model.graph
    scopes = [nodes for scope in graph.scopes for nodes in scope.tolist()]
    held = _observed_everywhere(model)
    neighbours = interaction_graph(graph.num_nodes, scopes, held)
    free = [node for node in range(graph.num_nodes) if node not in held]
    drawn = random.Random(seed)
    score = model.precise_score(labels)
    tried = failed = 0
    while failed < patience:
        order, cut = random_block(neighbours, graph.cardinalities, free, max_table, drawn)
        if not order.nodes:
            break
        cliques = [
            (clique.nodes, clique.eliminated, clique.parent) for clique in junction_tree(order, graph.cardinalities)
        ]
        program = Program(graph.cardinalities, scopes, cliques, held | cut)
        moved = _moved(model, labels, program, held | cut)
        now = model.precise_score(moved)
        better = now > score + 1e-12 * score.abs().nan_to_num(posinf=0.0)
        labels, score = torch.where(better[..., None], moved, labels), torch.where(better, now, score)
        tried += 1
        failed = 0 if better.any() else failed + 1
        if not cut:  # all nodes moved at once: a best labelling
            break
    return labels, tried


def random_block(
    neighbours: Neighbours, cardinalities: Sequence[int], free: Sequence[int], max_table: int, drawn: random.Random
) -> tuple[Order, frozenset[int]]:
    """An elimination order of some of the nodes ``free``, no table above ``max_table``, and the rest.

    The node of the smallest clique goes first, ties broken at random; where even that is too large, the node of it
    with the largest clique of its own is held.
    """
    adjacent = {node: set(neighbours[node]) for node in free}
    tie = {node: drawn.random() for node in free}

    def cost(node: int) -> tuple[int, float]:
        return cardinalities[node] * math.prod([cardinalities[other] for other in adjacent[node]]), tie[node]

    key = {node: cost(node) for node in free}
    heap = [(*key[node], node) for node in free]
    heapify(heap)
    order: list[int] = []
    later: list[set[int]] = []
    cut: set[int] = set()
    largest = total = 0
    while heap:
        size, _, node = heappop(heap)
        if key.get(node) != (size, tie[node]):
            continue  # gone, or costed anew
        if size > max_table:
            gone = max((node, *adjacent[node]), key=lambda other: key[other])
            cut.add(gone)
            if gone != node:
                heappush(heap, (size, tie[node], node))
        else:
            gone = node
            order.append(node)
            later.append(adjacent[node])
            largest, total = max(largest, size), total + size
        del key[gone]
        around = adjacent.pop(gone)
        for other in around:
            adjacent[other].discard(gone)
            if gone == node and size <= max_table:
                adjacent[other] |= around - {other}
        for other in around:
            new = cost(other)
            if new != key[other]:
                key[other] = new
                heappush(heap, (*new, other))
    separators = tuple(tuple(others - cut) for others in later)
    return Order("random block", tuple(order), separators, largest, total), frozenset(cut)


def _moved(model: Model, labels: Tensor, program: Program, held: frozenset[int]) -> Tensor:
    """The best labellings among those that agree with ``labels`` at the nodes ``held``."""
    at = torch.tensor(sorted(held), dtype=torch.int64, device=labels.device)
    observed = torch.full_like(labels, IGNORE)
    if model.observed is not None:
        observed = model.observed.expand_as(labels).clone()
    observed[..., at] = labels[..., at]
    clamped = model.observed is not None
    return ExactSolution(Model(model.graph, model.entries, observed), program.handle, held, clamped, Limits()).argmax()


def _observed_everywhere(model: Model) -> frozenset[int]:
    if model.observed is None:
        return frozenset()
    seen = (model.observed != IGNORE).reshape(-1, model.graph.num_nodes).all(0)
    return frozenset(seen.nonzero().flatten().tolist())
