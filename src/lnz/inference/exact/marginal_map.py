"""Marginal MAP: the best labelling of some variables, all others summed out. Exact, by constrained elimination."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from lnz.errors import InfeasibleError, IntractableError
from lnz.graphs import FactorGraph
from lnz.inference.base import Method
from lnz.inference.exact.enumeration import Enumeration
from lnz.inference.exact.exact import Exact
from lnz.scores import Model, checked_model, observe
from lnz.typing import IGNORE

Factor = tuple[tuple[int, ...], Tensor]
"""Nodes, ascending, and a table of scores with one axis for each."""


def marginal_map(model: Model, nodes: Sequence[int], method: Method) -> tuple[tuple[int, ...], float]:
    """The labels of ``nodes`` that maximise ln Σ exp s(y), the sum over the labels of all other nodes; and that value.

    ``Exact`` sums the other nodes out first, each time the one of the smallest table, and maximises over what is left
    by elimination: time and memory are exponential in the width of an order in which those nodes come first, which may
    be far above the treewidth (Park & Darwiche 2004). ``Enumeration`` lists every labelling.

    Args:
        model: without batch; what is observed there is given.
        nodes: different from each other.
        method: ``Exact`` or ``Enumeration``; the smaller of its limits is the largest table to allocate, in entries.

    Raises:
        InfeasibleError: every labelling that agrees with what was observed has probability 0.
        IntractableError: a table would be larger than that, before any is allocated.
        TypeError: another method.
        ValueError: no nodes, nodes out of range, or one twice; a batch of models.
    """
    if not isinstance(method, Exact | Enumeration):
        raise TypeError(f"{type(method).__name__} has no marginal MAP; methods that do: Exact(), Enumeration()")
    if not nodes or len(set(nodes)) < len(nodes) or not all(0 <= node < model.graph.num_nodes for node in nodes):
        raise ValueError(f"variables: expected different nodes in [0, {model.graph.num_nodes}), got {list(nodes)}")
    if model.batch_shape:
        raise ValueError(f"marginal MAP: expected one model, got a batch of shape {list(model.batch_shape)}")
    if isinstance(method, Enumeration):
        return _listed(model, nodes, method)
    limit = min(method.max_table, method.max_messages)
    remaining = summed_out(_conditioned(model), frozenset(nodes), model.graph.cardinalities, limit)
    position = {node: k for k, node in enumerate(nodes)}
    tables = [(tuple(position[node] for node in scope), table) for scope, table in remaining]
    # nodes that were observed are in no table, but in the answer
    groups = [([[k]], torch.zeros(1, model.graph.cardinalities[node])) for k, node in enumerate(nodes)]
    groups += [([list(scope)], table[None]) for scope, table in tables if scope]
    constant = math.fsum(float(table) for scope, table in tables if not scope)
    scopes = [torch.tensor(scope) for scope, _ in groups]
    graph = FactorGraph([model.graph.cardinalities[node] for node in nodes], scopes)
    left = checked_model(graph, [table.double() for _, table in groups])
    if model.observed is not None:
        left = observe(left, model.observed[list(nodes)])
    best = method.solve(left).argmax()
    value = float(left.precise_score(best)) + constant
    if value == -math.inf:
        raise _impossible()
    return tuple(best.tolist()), value


def _listed(model: Model, nodes: Sequence[int], method: Enumeration) -> tuple[tuple[int, ...], float]:
    solution = method.solve(model)
    others = [node for node in range(model.graph.num_nodes) if node not in nodes]
    mass = solution.joint.logsumexp(others) if others else solution.joint
    value = float(mass.max())
    if value == -math.inf:
        raise _impossible()
    labels = dict(zip(sorted(nodes), torch.unravel_index(mass.argmax(), mass.shape), strict=True))
    return tuple(int(labels[node]) for node in nodes), value + float(solution.centred[1])  # the table is centred


def _impossible() -> InfeasibleError:
    return InfeasibleError("no labelling that agrees with the evidence has a probability above 0: Z = 0")


def _conditioned(model: Model) -> list[Factor]:
    """Every factor as a table of the nodes that were not observed."""
    observed = [IGNORE] * model.graph.num_nodes if model.observed is None else model.observed.tolist()
    cardinalities = enumerate(model.graph.cardinalities)
    free = [(node, card) for node, card in cardinalities if observed[node] == IGNORE]
    factors: list[Factor] = [((node,), torch.zeros(card).double()) for node, card in free]  # some are in no other
    for group, scope in enumerate(model.graph.scopes):
        for nodes, table in zip(scope.tolist(), model.expanded(group), strict=True):
            given = table[tuple(slice(None) if observed[node] == IGNORE else observed[node] for node in nodes)]
            factors.append(_sorted(tuple(node for node in nodes if observed[node] == IGNORE), given))
    return factors


def _sorted(nodes: tuple[int, ...], table: Tensor) -> Factor:
    order = sorted(range(len(nodes)), key=lambda axis: nodes[axis])
    return tuple(nodes[axis] for axis in order), table.permute(order)


def summed_out(
    factors: list[Factor], kept: frozenset[int], cardinalities: Sequence[int], max_table: int
) -> list[Factor]:
    """Factors over the nodes ``kept`` alone, whose product is that of ``factors`` with the other nodes summed out.

    Raises:
        IntractableError: a table would have more than ``max_table`` entries.
    """
    order = _order([scope for scope, _ in factors], kept, cardinalities, max_table)
    for node in order:
        inside = [factor for factor in factors if node in factor[0]]
        factors = [factor for factor in factors if node not in factor[0]]
        union = tuple(sorted(set().union(*(scope for scope, _ in inside))))
        total = reduce(torch.add, (_spread(scope, table, union) for scope, table in inside))
        factors.append((tuple(other for other in union if other != node), total.logsumexp(union.index(node))))
    return factors


def _spread(scope: tuple[int, ...], table: Tensor, union: tuple[int, ...]) -> Tensor:
    """The table with an axis, of size 1 where it has none, for every node of ``union``."""
    sizes = dict(zip(scope, table.shape, strict=True))
    return table.reshape([sizes.get(node, 1) for node in union])


def _order(
    scopes: Sequence[tuple[int, ...]], kept: frozenset[int], cardinalities: Sequence[int], max_table: int
) -> list[int]:
    """The nodes not kept, each time the one whose table is the smallest."""
    neighbours: dict[int, set[int]] = {node: set() for scope in scopes for node in scope}
    for scope in scopes:
        for node in scope:
            neighbours[node].update(other for other in scope if other != node)

    def size(node: int) -> int:
        return math.prod(cardinalities[other] for other in (node, *neighbours[node]))

    sizes = {node: size(node) for node in neighbours if node not in kept}
    order: list[int] = []
    while sizes:
        node = min(sizes, key=lambda other: (sizes[other], other))
        if sizes[node] > max_table:
            raise IntractableError(
                f"marginal MAP: with the variables to be summed out first, a table of {sizes[node]} entries is more "
                f"than max_table={max_table}; choose other variables, or observe some",
                treewidth=len(neighbours[node]),
                table_bytes=8 * sizes[node],
                alternatives=("Enumeration",),
            )
        order.append(node)
        around = neighbours.pop(node)
        del sizes[node]
        for other in around:
            neighbours[other] = (neighbours[other] | around) - {node, other}
            if other in sizes:
                sizes[other] = size(other)
    return order
