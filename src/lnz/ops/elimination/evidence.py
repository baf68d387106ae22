"""Many rows of evidence under the same tables: nothing is copied per row. Without gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.elimination.op import solve
from lnz.ops.elimination.program import Program, program_of
from lnz.ops.elimination.records import KERNELS, Rows

NOTHING, NODES, TABLES, SUMS = "nothing", "nodes", "tables", "sums"
"""What :func:`rows_of_evidence` may be asked for beside ln Z."""
MOST_ENTRIES = 2**17
"""The entries of all cliques up to which rows are worked on side by side: larger tables are fast one by one."""


class Evidence(NamedTuple):
    """R rows of observations and S networks that share a junction tree, in which no node is cut out.

    Attributes:
        tables: scores of all factors ``[S, program.node_start]``, float64, at most 0.
        observed: ``int64 [R, N]``, negative where unobserved.
        handle: the junction tree's :attr:`Program.handle`.
    """

    tables: Tensor
    observed: Tensor
    handle: str


def serves(tables: Tensor, program: Program) -> bool:
    """Whether a backend works on rows of evidence side by side; elsewhere each row is a model of its own."""
    small = sum(map(math.prod, program.shapes)) <= MOST_ENTRIES
    return small and not program.cut and KERNELS.find("evidence", tables) is not None


def rows_of_evidence(given: Evidence, wanted: str, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """ln Z of every row under every network, ``[S, R]``, −inf where a row is impossible; and what is ``wanted``.

    - ``NODES``: the marginals of nodes ``[R, N, L]``, 0 beyond a node's labels; of one network (S = 1);
    - ``TABLES``: the marginals of all tables and nodes ``[R, program.size]``; of one network;
    - ``SUMS``: those of tables times ``weights [R]``, summed over rows, ``[S, program.node_start]``.

    Marginals are 0 for impossible rows. O(S R) times the entries of all cliques; memory does not grow with R beyond the
    answer.
    """
    program = program_of(given.handle)
    run = KERNELS.find("evidence", given.tables)
    each = None if weights is None else weights.detach().double().contiguous().numpy()
    observed = given.observed.contiguous()
    if run is None:
        log_z = torch.full((len(given.tables), len(observed)), torch.nan, dtype=torch.float64)
        answer = _blank(given, program, wanted)
    else:
        found = run(given.tables.contiguous().numpy(), observed.numpy(), program, wanted, each)
        log_z, answer = map(torch.from_numpy, found)
        if wanted == NODES:
            answer = answer.reshape(len(observed), len(program.cardinalities), -1)
    for net in range(len(given.tables)):
        left = torch.isnan(log_z[net]).nonzero().flatten()
        if len(left):
            _in_logarithms(given, net, left, wanted, weights, log_z, answer)
    return log_z, answer


def _blank(given: Evidence, program: Program, wanted: str) -> Tensor:
    rows, cards = len(given.observed), program.cardinalities
    shapes = {
        NODES: (rows, len(cards), max(cards, default=0)),
        TABLES: (rows, program.size),
        SUMS: (len(given.tables), program.node_start),
    }
    return torch.zeros(shapes.get(wanted, (0,)), dtype=torch.float64)


def _in_logarithms(
    given: Evidence, net: int, rows: Tensor, wanted: str, weights: Tensor | None, log_z: Tensor, answer: Tensor
) -> None:
    """Answer for some rows, each as a model of its own."""
    program = program_of(given.handle)
    scores = scores_of_rows(given.tables[net], given.observed[rows], given.handle)
    value, marginals = solve(Rows(scores, program.base, given.handle, True))
    marginals = marginals.masked_fill(torch.isneginf(value)[:, None], 0.0)
    log_z[net, rows] = value
    if wanted == SUMS:
        each = marginals[:, : program.node_start]
        answer[net] += each.sum(0) if weights is None else weights[rows].double() @ each
    elif wanted == TABLES:
        answer[rows] = marginals
    elif wanted == NODES:
        label = _labels(program)
        node = torch.arange(len(program.cardinalities)).repeat_interleave(torch.tensor(program.cardinalities))
        answer[rows[:, None], node, label] = marginals[:, program.node_start :]


def scores_of_rows(tables: Tensor, observed: Tensor, handle: str) -> Tensor:
    """The rows of :class:`Rows` of each row of evidence ``[R, N]``, with tables ``[program.node_start]`` of its own."""
    program = program_of(handle)
    seen = observed.repeat_interleave(torch.tensor(program.cardinalities), 1)
    ruled_out = (seen >= 0) & (seen != _labels(program))
    nodes = torch.zeros(seen.shape, dtype=tables.dtype).masked_fill(ruled_out, -torch.inf)
    return torch.cat([tables.expand(len(observed), -1), nodes], 1)


def _labels(program: Program) -> Tensor:
    """The label that each entry of the nodes' tables is about."""
    return torch.cat([torch.arange(card) for card in program.cardinalities])
