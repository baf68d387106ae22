"""Exact answers for many rows of evidence under tables that they share: hundreds of conditionings as one pass."""

from __future__ import annotations

from weakref import WeakSet

import torch
from torch import Tensor

from lnz.errors import IntractableError
from lnz.graphs import FactorGraph
from lnz.inference.exact.order_search import Limits
from lnz.inference.exact.plans import Plan, plan
from lnz.ops.dispatch import is_eager
from lnz.ops.elimination import evidence, evidence_gradient
from lnz.scores import Model

_ROWS = 16  # from which they are worked on together
_SECONDS = 0.1  # to search for an order without nodes cut out
_WORTHWHILE = 16  # an entry takes less than 1/16 of the time that it takes in a pass for one row
_OVERHEAD = 2**12  # entries that take as long as whatever else there is to a row
_refused: WeakSet[FactorGraph] = WeakSet()


class SharedTables:
    """The answers for R rows of evidence under S networks, batch shape ``[S, R]`` or any that has R entries.

    ln Z is that of the centred model. Only :meth:`differentiable_log_partition` has gradients.
    """

    def __init__(self, given: evidence.Evidence, batch_shape: torch.Size) -> None:
        self._given, self._batch_shape = given, batch_shape
        self._log_z: Tensor | None = None

    @property
    def networks(self) -> int:
        """S."""
        return len(self._given.tables)

    @property
    def log_partition(self) -> Tensor:
        """ln Z ``[*batch]``, float64."""
        if self._log_z is None:
            self._asked(evidence.NOTHING)
        assert self._log_z is not None
        return self._log_z.reshape(self._batch_shape)

    def differentiable_log_partition(self) -> Tensor:
        """The same, of one network, as a function of its tables."""
        return evidence_gradient.log_partition(self._given).reshape(self._batch_shape)

    def node_marginals(self) -> Tensor:
        """Those of nodes ``[R, N, L]``, of one network."""
        return self._asked(evidence.NODES)

    def marginals(self) -> Tensor:
        """Those of tables and nodes, ``[R, program.size]``, of one network."""
        return self._asked(evidence.TABLES)

    def sums(self, weights: Tensor | None) -> Tensor:
        """Marginals of tables times ``weights [R]``, summed over rows: ``[S, program.node_start]``."""
        return self._asked(evidence.SUMS, weights)

    def _asked(self, wanted: str, weights: Tensor | None = None) -> Tensor:
        given = self._given._replace(tables=self._given.tables.detach())
        self._log_z, answer = evidence.rows_of_evidence(given, wanted, weights)
        return answer


def shared_tables(model: Model, own: Plan, cut: frozenset[int]) -> SharedTables | None:
    """The rows of a centred model, where one pass for many rows serves and is faster than a pass for each.

    Args:
        model: what is asked about.
        own: the plan for its rows one by one.
        cut: the nodes that this plan cuts out, since they are observed in every row; here none is.
    """
    if model.observed is None or model.device.type != "cpu" or not is_eager(*model.tensors, model.observed):
        return None
    alone = Model(model.graph, model.entries)
    networks, all_rows = alone.batch_shape.numel(), model.batch_shape.numel()
    rows = all_rows // max(1, networks)
    stacked = len(model.batch_shape) == 2 and alone.batch_shape == (model.batch_shape[0], 1)
    if rows < _ROWS or not (networks == 1 or (stacked and model.observed.shape[:-1].numel() == rows)):
        return None
    found = own if not cut else _whole(model.graph, model.dtype)
    if found is None or found.order.total > _WORTHWHILE * own.order.total + _OVERHEAD:
        return None
    groups = range(model.graph.num_groups)
    tables = torch.cat([alone.expanded(group).reshape(networks, -1) for group in groups], 1).double()
    if not evidence.serves(tables.detach(), found.program):
        return None
    observed = model.observed if stacked else model.observed.expand(*model.batch_shape, -1)
    given = evidence.Evidence(tables, observed.reshape(rows, model.graph.num_nodes), found.program.handle)
    return SharedTables(given, model.batch_shape)


def _whole(graph: FactorGraph, dtype: torch.dtype) -> Plan | None:
    """A plan in which no node is cut out, if a small one is easily found."""
    if graph in _refused:
        return None
    try:
        return plan(graph, frozenset(), Limits(evidence.MOST_ENTRIES, evidence.MOST_ENTRIES, _SECONDS), dtype)
    except IntractableError:
        _refused.add(graph)
        return None
