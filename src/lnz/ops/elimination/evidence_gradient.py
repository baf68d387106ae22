"""ln Z of many rows of evidence as a function of the tables that they share: no table per row, forward or backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lnz.ops.elimination import evidence
from lnz.ops.elimination.op import differentiable_log_partition, partition_and_marginals
from lnz.ops.elimination.program import program_of


def log_partition(given: evidence.Evidence) -> Tensor:
    """ln Z ``[R]`` of rows under one network (S = 1), differentiable any number of times by ``tables [1, …]``.

    The gradient is Σ_r weight_r · marginals of row r, a second pass over the rows. Its own gradient takes a model per
    row, O(R) tables.
    """
    return _LogPartition.apply(*given)  # pyright: ignore[reportReturnType]


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tables: Tensor, observed: Tensor, handle: str) -> Tensor:
        ctx.save_for_backward(tables, observed)
        ctx.handle = handle
        return evidence.rows_of_evidence(evidence.Evidence(tables.detach(), observed, handle), evidence.NOTHING)[0][0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        tables, observed = ctx.saved_tensors
        given = evidence.Evidence(tables, observed, ctx.handle)
        if torch.is_grad_enabled():  # the gradient is to be differentiated in turn
            found = torch.autograd.grad(_row_by_row(given), tables, grads[0], create_graph=True)[0]
        else:
            found = evidence.rows_of_evidence(given._replace(tables=tables.detach()), evidence.SUMS, grads[0])[1]
        return found, None, None


def _row_by_row(given: evidence.Evidence) -> Tensor:
    base = program_of(given.handle).base
    scores = evidence.scores_of_rows(given.tables[0], given.observed, given.handle)
    done = partition_and_marginals(scores.detach(), base, given.handle, True)
    return differentiable_log_partition(scores, base, given.handle, done)
