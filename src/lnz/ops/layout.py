"""A model as flat arrays, for kernels that walk over nodes and their factors; scores in float64.

A *slot* is one pair (factor, node of its scope). The slots of a factor are consecutive, its nodes in the order in
which they are visited. Observed labels and factors of one node become scores of nodes, those of no node a constant.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lnz.scores import Entry, Model, Weighted
from lnz.typing import IGNORE

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Wiring(NamedTuple):
    """Who meets whom. N nodes, F factors of two nodes or more, S slots; ``x_at`` are positions in flat arrays."""

    label_at: Ints
    """``[N + 1]``: where the labels of each node start in an array of scores of nodes."""
    node_at: Ints
    """``[N + 1]``: where the slots of each node start in ``node_slots``."""
    node_slots: Ints
    """``[S]``: slots, node by node."""
    factor_at: Ints
    """``[F + 1]``: the first slot of each factor."""
    slot_node: Ints
    slot_factor: Ints
    slot_at: Ints
    """``[S + 1]``: where the labels of each slot start in an array of messages."""
    slot_table: Ints
    """``[S]``: where the factor's table starts; of two nodes, the copy whose rows run over this slot's labels."""
    slot_stride: Ints
    """``[S]``: how far apart this slot's labels lie in a table of three nodes or more."""
    factor_weight: Ints
    """``[F]``: position of the factor's weight."""


class Scores(NamedTuple):
    """The scores of one batch entry."""

    nodes: Floats
    tables: Floats
    weights: Floats
    constant: float


class Layout:
    """The wiring of a model, and the scores of its batch entries one at a time.

    Args:
        model: what to lay out.
        rank: ``int64 [N]``, the place of each node in the order of visits; ``None`` is the order of the nodes.
    """

    def __init__(self, model: Model, rank: Ints | None = None) -> None:
        self.model = model
        self.wiring = _wiring(model, np.arange(model.graph.num_nodes) if rank is None else rank)
        self._shared: tuple[Floats, Floats] | None = None
        observed = model.observed
        self._observed = None if observed is None else observed.expand(*model.batch_shape, -1)

    def scores(self, index: Sequence[int]) -> Scores:
        """The scores of batch entry ``index``; tables that all entries share are laid out once."""
        model, graph = self.model, self.model.graph
        nodes = np.zeros(self.wiring.label_at[-1])
        constant = 0.0
        for entry, scope, labels in zip(model.entries, graph.scopes, graph.labels, strict=True):
            if len(labels) > 1 or not len(scope):
                continue
            table, weight = _parts(entry, labels, index)
            values = table if weight is None else _product(weight.reshape(-1, *(1,) * len(labels)), table)
            values = np.broadcast_to(values, (len(scope), *labels))
            if not labels:
                constant += float(values.sum())
            else:
                at = self.wiring.label_at[scope[:, 0].numpy()][:, None] + np.arange(labels[0])
                np.add.at(nodes, at, values)
        if self._observed is not None:
            self._clamp(nodes, self._observed[tuple(index)].cpu().numpy())
        if self._shared is None or model.batch_shape.numel() > 1:
            self._shared = self._tables(index)
        return Scores(nodes, *self._shared, constant)

    def _clamp(self, nodes: Floats, observed: Ints) -> None:
        label_at = self.wiring.label_at
        owner = np.repeat(np.arange(len(observed)), np.diff(label_at))
        label = np.arange(len(nodes)) - label_at[owner]
        nodes[(observed[owner] != IGNORE) & (observed[owner] != label)] = -np.inf

    def _tables(self, index: Sequence[int]) -> tuple[Floats, Floats]:
        model = self.model
        tables: list[Floats] = []
        weights: list[Floats] = [np.ones(1)]
        for entry, scope, labels in zip(model.entries, model.graph.scopes, model.graph.labels, strict=True):
            if len(labels) < 2 or not len(scope):
                continue
            table, weight = _parts(entry, labels, index)
            tables.append(table.ravel())
            if len(labels) == 2:
                tables.append(np.swapaxes(table, -1, -2).ravel())
            if weight is not None:
                weights.append(weight)
        return np.concatenate(tables) if tables else np.zeros(0), np.concatenate(weights)


def _product(weight: Floats, table: Floats) -> Floats:
    """The product in which −inf stays −inf, whatever the weight."""
    impossible = np.isneginf(table)
    return np.where(impossible, -np.inf, weight * np.where(impossible, 0.0, table))


def _parts(entry: Entry, labels: tuple[int, ...], index: Sequence[int]) -> tuple[Floats, Floats | None]:
    """Tables ``[1 or F, L1, …, Lk]`` of one batch entry, and weights ``[1 or F]`` if there are any."""
    if isinstance(entry, Weighted):
        return _array(entry.table)[None], _array(entry_of(entry.weight, 1, index))
    if entry.dim() == len(labels):
        return _array(entry)[None], None
    return _array(entry_of(entry, len(labels) + 1, index)), None


def batch_indices(model: Model) -> list[tuple[int, ...]]:
    """The index of every batch entry, in flat order."""
    return list(itertools.product(*map(range, model.batch_shape)))


def entry_of(tensor: Tensor, event: int, index: Sequence[int]) -> Tensor:
    """The view of ``tensor [*own batch, *event]`` that batch entry ``index`` reads; ``event`` counts dimensions."""
    own = tensor.shape[: max(0, tensor.dim() - event)]
    return tensor[tuple(i if size > 1 else 0 for i, size in zip(index[len(index) - len(own) :], own, strict=True))]


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _wiring(model: Model, rank: Ints) -> Wiring:
    graph = model.graph
    cards = np.array(graph.cardinalities, dtype=np.int64)
    slot_node, slot_table, slot_stride, arity, factor_weight = (
        [_start()],
        [_start()],
        [_start()],
        [_start()],
        [_start()],
    )
    table_at, weight_at = 0, 1
    for entry, scope, labels in zip(model.entries, graph.scopes, graph.labels, strict=True):
        factors, k = scope.shape
        if k < 2 or not factors:
            continue
        nodes = scope.numpy()
        axes = np.argsort(rank[nodes], axis=1)
        size = int(np.prod(labels))
        own = 1
        if not isinstance(entry, Weighted) and entry.dim() > k:
            own = entry.shape[-k - 1]
        base = table_at + size * (np.arange(factors) if own > 1 else np.zeros(factors, dtype=np.int64))
        copy = (axes == 0) * (own * size) if k == 2 else 0  # the copy turned round has the first axis in its rows
        strides = np.array([int(np.prod(labels[a + 1 :])) for a in range(k)], dtype=np.int64)
        slot_node.append(np.take_along_axis(nodes, axes, 1).ravel())
        slot_table.append((base[:, None] + copy + np.zeros((1, k), dtype=np.int64)).ravel())
        slot_stride.append(strides[axes].ravel())
        arity.append(np.full(factors, k))
        table_at += own * size * (2 if k == 2 else 1)
        weight = np.zeros(factors, dtype=np.int64)
        if isinstance(entry, Weighted):
            several = entry.weight.shape[-1] > 1
            weight = weight_at + (np.arange(factors) if several else weight)
            weight_at += entry.weight.shape[-1]
        factor_weight.append(weight)
    slots, arities = np.concatenate(slot_node), np.concatenate(arity)
    return Wiring(
        label_at=_ends(cards),
        node_at=_ends(np.bincount(slots, minlength=len(cards))),
        node_slots=np.argsort(slots, kind="stable"),
        factor_at=_ends(arities),
        slot_node=slots,
        slot_factor=np.repeat(np.arange(len(arities)), arities),
        slot_at=_ends(cards[slots]),
        slot_table=np.concatenate(slot_table),
        slot_stride=np.concatenate(slot_stride),
        factor_weight=np.concatenate(factor_weight),
    )


def _start() -> Ints:
    return np.zeros(0, dtype=np.int64)


def _ends(sizes: NDArray[np.integer]) -> Ints:
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)))
