"""Variable elimination: ln Z and the marginals of all tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.elimination import reference
from lnz.ops.elimination.records import BASE, KERNELS, Pass, Rows, Total, arrays
from lnz.ops.scaffold import Differentiable, Operator
from lnz.semirings import Log


def solve(rows: Rows) -> Pass:
    """The pass, up and down the tree."""
    program, run = rows.program(), KERNELS.find("marginals", rows.scores)
    starts = program.starts(rows.base)
    if run is None:
        return Pass(*reference.marginals(rows.scores, starts, program))
    found = run(*arrays(rows.scores, starts), program, rows.clamped, torch.get_num_threads())
    return Pass(*map(torch.from_numpy, found))


def gradient(weight: Tensor | None, rows: Rows, done: Pass, wanted: Sequence[bool]) -> list[Tensor]:
    """Σ_b weight_b · the marginals of model b."""
    return [done.marginals if weight is None else weight[:, None] * done.marginals]


def marginals(rows: Rows) -> list[Tensor]:
    """The marginals, in plain torch."""
    program = rows.program()
    return [reference.marginals(rows.scores, program.starts(rows.base), program)[1]]


def _upward(rows: Rows) -> Total:
    """ln Z alone: the pass up the tree."""
    program, run = rows.program(), KERNELS.find("partition", rows.scores)
    starts = program.starts(rows.base)
    if run is None:
        return Total(reference.partition(rows.scores, starts, program, Log()))
    found = run(*arrays(rows.scores, starts), program, rows.clamped, torch.get_num_threads())
    return Total(torch.from_numpy(found))


def _fake(rows: Rows) -> Pass:
    return Pass(rows.scores.new_empty(rows.scores.shape[0], dtype=torch.float64), torch.empty_like(rows.scores))


ELIMINATION = Differentiable(
    Operator("elimination", solve, _fake, Rows, Pass, BASE),
    scores=1,
    gradient=gradient,
    marginals=marginals,
    hold=Rows.program,  # the graph may be gone when a derivative asks for it
)
PARTITION = Operator("elimination_partition", _upward, lambda rows: Total(_fake(rows).log_z), Rows, Total, axes=BASE)


def log_partition(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Tensor:
    """ln Z alone, float64 ``[B]``, without gradient: the upward pass."""
    return PARTITION(Rows(scores, base, handle, clamped)).log_z


def partition_and_marginals(scores: Tensor, base: Tensor, handle: str, clamped: bool) -> Pass:
    """ln Z, float64 ``[B]``, and the marginal of every entry of every table, without gradients; see :class:`Rows`.

    :func:`differentiable_log_partition` and :func:`differentiable_marginals` give them some.
    """
    return ELIMINATION.solve(Rows(scores, base, handle, clamped))


def differentiable_log_partition(scores: Tensor, base: Tensor, handle: str, done: tuple[Tensor, Tensor]) -> Tensor:
    """The ln Z of what :func:`partition_and_marginals` has ``done``, as a function of the scores."""
    return ELIMINATION.value(Rows(scores, base, handle, True), Pass(*done))


def differentiable_marginals(scores: Tensor, base: Tensor, handle: str, done: tuple[Tensor, Tensor]) -> Tensor:
    """The marginals of what :func:`partition_and_marginals` has ``done``, as a function of the scores."""
    return ELIMINATION.gradient(None, Rows(scores, base, handle, True), Pass(*done), (True,))[0]
