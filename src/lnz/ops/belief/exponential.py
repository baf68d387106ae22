"""The backend "cpu": the sum-product update in the exponential domain, products and sums for sums and ``ln Σ exp``.

Tables and messages are shifted to have maximum 1. Where the smallest product that can occur is a normal number, no sum
loses an addend and the result is as accurate as in the log domain; where it may not be, the log domain is used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, all_but_one


class ExponentialPassing(Passing):
    """:class:`Passing` for sum-product without gradients. Same messages, up to rounding."""

    def outgoing(self, table: Tensor, incoming: list[Tensor], positions: tuple[int, ...]) -> dict[int, Tensor]:
        tables, span = _shifted(table, list(range(-len(incoming), 0)))
        messages, spans = list(incoming), []
        for position in range(len(incoming)):
            if any(wanted != position for wanted in positions):  # else it is not used, and may never have been sent
                messages[position], range_of = _shifted(incoming[position], [-1])
                spans.append(range_of)
        if float(span + sum(spans)) > -math.log(torch.finfo(self.dtype).tiny):
            return super().outgoing(table, incoming, positions)
        if len(incoming) == 2:
            new = {position: through(tables, messages[1 - position], position) for position in positions}
        else:
            new = all_but_one(tables, messages, positions, torch.mul, lambda x, dims: x.sum(dims, keepdim=True))
        tiny = torch.finfo(self.dtype).tiny
        return {
            position: self.bounded((m / m.sum(-1, keepdim=True).clamp_min(tiny)).log()) for position, m in new.items()
        }


def _shifted(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """``exp(x − max)`` over ``dims``, and the largest range of finite values that any row spans."""
    top = x.amax(dims, keepdim=True)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    x = x - top
    finite = x.masked_fill(torch.isneginf(x), 0.0)
    return x.exp(), -finite.amin() if x.numel() else x.new_zeros(())


def through(table: Tensor, message: Tensor, position: int) -> Tensor:
    """A message through a table of two nodes to the one at ``position``: a product of matrix and vector."""
    if table.dim() == 3 and table.shape[0] == 1:  # one table for all factors and batch entries
        return message @ (table[0].T if position == 0 else table[0])
    table = table if position == 0 else table.mT
    return (table * message.unsqueeze(-2)).sum(-1)
