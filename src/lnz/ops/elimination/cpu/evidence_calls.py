"""What calls the kernels of :mod:`.evidence`: products of tables, chunks, and counts of tables out of beliefs."""

from __future__ import annotations

import numpy as np

from lnz.ops.elimination.cpu.evidence import Found, Given, run
from lnz.ops.elimination.cpu.evidence_layout import TABLE_ENTRIES, Layout, layout
from lnz.ops.elimination.program import Program
from lnz.ops.jit.threads import parallel, partition
from lnz.ops.jit.work import threads_for

_RANGE = 690.0  # float64 has e^±708
_NOTICED = 40.0  # e^−40 of something is below its rounding
_CHUNK = 256  # rows, at least; the sums of chunks are added up in their order, whatever the threads
_SUMS = 2**22  # entries of the sums of all chunks, about
_NOTHING = np.zeros(0)


def evidence(
    tables: np.ndarray, observed: np.ndarray, program: Program, wanted: str, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`lnz.ops.elimination.evidence.rows_of_evidence`; ln Z is NaN where a row left the range of float64."""
    lists: Layout = program.cached("evidence", layout)
    entries = int(lists.lists.sizes[TABLE_ENTRIES])
    products, least = _products(tables, lists)
    S, R = len(tables), len(observed)
    chunk = max(_CHUNK, -(-R * S * entries // _SUMS // _CHUNK) * _CHUNK)
    chunks = S * -(-R // chunk)
    columns, targets, width = _columns(wanted, program, lists)
    found = Found(
        np.empty((S, R)),
        np.empty((chunks if wanted == "sums" else 0, entries)),
        np.zeros((R if width else 0, width)),
        columns,
        targets,
        program.node_start,
    )
    given = Given(observed, _NOTHING if weights is None else weights, products, least, _enough(program), chunk)
    parallel(run, partition(chunks, min(chunks, 4 * threads_for(R * S * entries))), given, found, lists.addresses)
    constants = [int(program.base[0, table]) for table in program.constants if table < program.num_factors]
    log_z = found.log_z + tables[:, constants].sum(1, keepdims=True)
    if wanted != "sums":
        if wanted == "tables":
            found.marginals[:, constants] = (log_z[0] > -np.inf)[:, None]
        return log_z, found.marginals
    beliefs = found.sums.reshape(S, -1, entries).sum(1)
    entry, place = lists.counted
    sums = np.stack([np.bincount(place, row[entry], minlength=program.node_start) for row in beliefs])
    sums[:, constants] = (log_z > -np.inf) @ (np.ones(R) if weights is None else weights)[:, None]
    return log_z, sums


def _products(tables: np.ndarray, lists: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The product of each clique's tables, 0 where it leaves the range; and how low the clique's message may be.

    A product of up to ``CHILDREN`` messages above their limits, and of the tables of the clique that takes them, is in
    range if it is not 0. Nothing is above the limit of a clique whose own product has left the range.
    """
    logs = np.zeros((len(tables), int(lists.lists.sizes[TABLE_ENTRIES])))
    for entry, place in lists.products:
        logs[:, entry] += tables[:, place]
    lost = (logs < -_RANGE) & (logs > -np.inf)
    logs[lost] = -np.inf
    spread = np.minimum.reduceat(np.where(np.isneginf(logs), 0.0, logs), lists.lists.entry, 1)
    children = np.maximum(np.diff(lists.lists.first_child), 1)
    least = np.exp(-(_RANGE + spread) / children)[:, lists.parent]
    least[:, lists.parent < 0] = 0.0
    least[np.logical_or.reduceat(lost, lists.lists.entry, 1)] = np.nan  # not even no message at all
    return np.exp(logs), least


def _enough(program: Program) -> float:
    """The ln Z above which whatever has left the range is nothing, wherever that was.

    No table holds more than 1, so that every labelling that was lost has a weight of at most e^−``_RANGE``.
    """
    return _NOTICED - _RANGE + float(np.log(program.cardinalities).sum()) + np.log(1 + len(program.cliques))


def _columns(wanted: str, program: Program, lists: Layout) -> tuple[np.ndarray, np.ndarray, int]:
    """Which entries of a row of scores are wanted, where they go, and the size of what takes them."""
    if wanted == "tables":
        everything = np.arange(program.size)
        return everything, everything, program.size
    if wanted != "nodes":
        return np.zeros(0, np.int64), np.zeros(0, np.int64), 0
    cards, longest = np.array(program.cardinalities), max(program.cardinalities)
    label = np.concatenate([np.arange(card) for card in cards])
    return (
        program.node_start + np.arange(program.size - program.node_start),
        np.repeat(np.arange(len(cards)), cards) * longest + label,
        len(cards) * longest,
    )
