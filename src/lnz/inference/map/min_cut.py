"""Minimum cuts with real capacities, by SciPy's integer maximum flow at one resolution after another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_UNITS = 2.0**29  # capacities of a round in whole units: the solver's integers have 32 bits, and arcs two directions
_ROUNDS = 8


def min_cut(tail: Ints, head: Ints, capacity: Floats, to_sink: Floats) -> tuple[NDArray[np.bool_], float, float]:
    """A cut of least value between a source and a sink: which nodes lie on the sink's side.

    A maximum flow of capacities rounded down to whole units is a flow; what is left of the capacities is then worked
    on with units as much smaller as the cut found so far is tighter, until flow and cut agree to float64's precision.

    Args:
        tail: nodes that arcs leave, in [0, N).
        head: nodes that they enter.
        capacity: of the arcs, at least 0, finite.
        to_sink: ``[N]``: the capacity from a node to the sink; where negative, of the arc from the source, negated.

    Returns:
        The sink's side ``[N]``, the value of the cut, and by how much at most another cut may be lower.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    nodes = len(to_sink)
    source, sink = nodes, nodes + 1
    into, out = np.flatnonzero(to_sink < 0), np.flatnonzero(to_sink > 0)
    rows = np.concatenate((tail, np.full(len(into), source), out))
    columns = np.concatenate((head, into, np.full(len(out), sink)))
    amounts = np.concatenate((capacity, -to_sink[into], to_sink[out]))
    entries = (amounts, (rows.astype(np.int32), columns.astype(np.int32)))
    arcs = coo_array(entries, shape=(nodes + 2, nodes + 2)).tocsr()
    left = arcs
    gap = float(min(-to_sink[into].sum(), to_sink[out].sum()))
    value, beyond = gap, np.ones(nodes + 2, dtype=bool)  # the cut around the source, or around the sink
    beyond[source] = False
    if to_sink[out].sum() < -to_sink[into].sum():
        beyond[:] = False
        beyond[sink] = True
    for _ in range(_ROUNDS):
        if gap <= 1e-14 * value:
            break
        whole = bool((arcs.data == np.round(arcs.data)).all()) and left is arcs and gap <= _UNITS
        units = 1.0 if whole else _UNITS / gap  # no arc can carry more than the gap
        rounded = left.copy()
        rounded.data = np.floor(np.minimum(left.data, gap) * units).astype(np.int32)
        flow = maximum_flow(rounded, source, sink).flow
        rest = rounded - flow
        rest.data = np.maximum(rest.data, 0)
        rest.eliminate_zeros()
        reached = breadth_first_order(rest, source, return_predecessors=False)
        side = np.ones(nodes + 2, dtype=bool)
        side[reached] = False
        left = left - flow.astype(np.float64) / units
        left.data = np.maximum(left.data, 0.0)  # but for rounding errors they are
        value, gap, beyond = _across(arcs, side), _across(left, side), side
        if whole:
            gap = 0.0
    return beyond[:nodes], value, gap


def _across(matrix: object, beyond: NDArray[np.bool_]) -> float:
    """The sum of the arcs from this side to the side ``beyond``."""
    coo = matrix.tocoo()  # type: ignore[attr-defined]
    rows, columns = coo.coords
    return float(coo.data[~beyond[rows] & beyond[columns]].sum())
