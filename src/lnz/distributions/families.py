"""The wiring of a directed model: which variables there are, and the parents of each.

A *family* is a variable with its parents. Its table ``[*parents, card]`` is one factor of the graph of all families.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

import torch
from torch import Tensor

from lnz.caching import constant
from lnz.checks import broadcast_shapes
from lnz.graphs import FactorGraph


class Families:
    """N variables and the parents of each; made by :func:`families`, so that equal ones share a graph and its plans.

    Attributes:
        cardinalities: the number of states of each variable.
        parents: the parents of each variable, in the order of the axes of its table.
        order: all variables, parents before their children.
        graph: with one factor ``(*parents, variable)`` per family.
    """

    def __init__(self, cardinalities: tuple[int, ...], parents: tuple[tuple[int, ...], ...]) -> None:
        self.cardinalities, self.parents = cardinalities, parents
        self.order = tuple(TopologicalSorter(dict(enumerate(parents))).static_order())
        scopes = [(*above, variable) for variable, above in enumerate(parents)]
        self.graph, self._members = FactorGraph.grouped(cardinalities, scopes)

    def shape(self, variable: int) -> tuple[int, ...]:
        """That of a variable's table: the cardinalities of its parents, then its own."""
        return tuple(self.cardinalities[node] for node in (*self.parents[variable], variable))

    @property
    def event_shape(self) -> torch.Size:
        """Of rows, ``[N]``."""
        return torch.Size((len(self.cardinalities),))

    def batch_shape(self, tables: Sequence[Tensor]) -> torch.Size:
        """That of tables ``[*batch, *parents, card]`` together."""
        return broadcast_shapes(*(table.shape[: table.dim() - len(self.shape(v))] for v, table in enumerate(tables)))

    def grouped(self, tables: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Tables ``[*batch, *parents, card]`` of all variables as scores of the groups of :attr:`graph`."""
        entries = []
        for members in self._members:
            axes = len(self.shape(members[0]))
            batch = broadcast_shapes(*(tables[v].shape[: tables[v].dim() - axes] for v in members))
            entries.append(torch.stack([tables[v].expand(*batch, *self.shape(v)) for v in members], -axes - 1))
        return tuple(entries)

    def by_variable(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """The inverse of :meth:`grouped`: of each group's ``[*batch, F, …]``, the part of each variable."""
        parts: list[Tensor] = [torch.empty(0)] * len(self.cardinalities)
        for members, group in zip(self._members, groups, strict=True):
            each = group.unbind(-len(self.shape(members[0])) - 1)
            for variable, part in zip(members, each, strict=True):
                parts[variable] = part
        return parts


_KEPT = 256
_known: dict[tuple[object, ...], Families] = {}


@constant  # the compiler calls this once while tracing, and then finds what is known
def _remember(cardinalities: tuple[int, ...], parents: tuple[tuple[int, ...], ...]) -> bool:
    if (cardinalities, parents) not in _known:
        if len(_known) >= _KEPT:
            del _known[next(iter(_known))]
        _known[cardinalities, parents] = Families(cardinalities, parents)
    return True


def families(cardinalities: Sequence[int] | Tensor, parents: Sequence[Sequence[int]]) -> Families:
    """The wiring, checked.

    Raises:
        ValueError: not as many lists of parents as variables, a cardinality below 1, a parent out of range or twice,
            or a directed cycle.
    """
    cards = tuple(int(card) for card in cardinalities)
    above = tuple(tuple(int(parent) for parent in group) for group in parents)
    if len(above) != len(cards):
        raise ValueError(f"parents: expected one list per variable, {len(cards)}, got {len(above)}")
    for variable, group in enumerate(above):
        wrong = [parent for parent in group if not 0 <= parent < len(cards)]
        if wrong:
            raise ValueError(f"parents[{variable}]: expected variables in [0, {len(cards)}), got {wrong[0]}")
        if len(set(group)) < len(group):
            raise ValueError(f"parents[{variable}]: expected every parent once, got {list(group)}")
    try:
        _remember(cards, above)
    except CycleError as error:
        shown = " → ".join(map(str, error.args[1]))
        raise ValueError(f"parents: expected no directed cycle, got {shown}") from None
    return _known[cards, above]
