"""Sufficient statistics of directed models: how often each entry of each table is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lnz.distributions.families import Families
from lnz.errors import InfeasibleError

if TYPE_CHECKING:
    from lnz.distributions.bayes_net import BayesNet

BLOCK = 2**24  # entries of tables that are worked on at a time


def expected(net: BayesNet, data: Tensor, reduce: bool, weights: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The log evidence of each row ``[R]``, and expected counts; see :meth:`BayesNet.expected_statistics`.

    Sums over rows are made, and returned, in float64; ``weights [R]`` say how often each row counts in them.
    """
    y = net.labelling(data)
    if y.dim() != 2 or net.batch_shape not in (torch.Size(), y.shape[:1]):
        raise ValueError(f"data: expected rows [R, {len(net.cardinalities)}], got {list(y.shape)}")
    size = sum(math.prod(net.families.shape(v)) for v in range(len(net.cardinalities))) + sum(net.cardinalities)
    evidence, parts = [], []
    with torch.no_grad():
        for start, part in blocks(y, size) if not net.batch_shape else [(0, y)]:
            some = slice(start, start + len(part))
            posterior = net.condition(part).to_mrf()
            posterior._validate_args = False
            groups = posterior.marginals  # first: ln Z is made along with them
            evidence.append(posterior.log_partition)
            require_possible(evidence[-1], start)
            counts = net.families.by_variable(groups)
            parts.append([_summed(c, None if weights is None else weights[some]) for c in counts] if reduce else counts)
    if reduce:
        return torch.cat(evidence), [torch.stack(each).sum(0) for each in zip(*parts, strict=True)]
    return torch.cat(evidence), [torch.cat(each) for each in zip(*parts, strict=True)]


def blocks(y: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Rows in blocks for which ``size`` numbers a row are not many, each with the number of its first row."""
    rows = max(1, BLOCK // size)
    for start in range(0, max(1, len(y)), rows):
        yield start, y[start : start + rows]


def counted(wiring: Families, y: Tensor, weights: Tensor | None) -> list[Tensor]:
    """How often each entry is used by full rows ``[R, N]``, float64 ``[*parents, card]``; O(R N) time."""
    counts = []
    for variable, above in enumerate(wiring.parents):
        shape, index = wiring.shape(variable), torch.zeros_like(y[:, 0])
        for node, size in zip((*above, variable), shape, strict=True):
            index = index * size + y[:, node]
        each = None if weights is None else weights.double()
        counts.append(torch.bincount(index, each, minlength=math.prod(shape)).double().reshape(shape))
    return counts


def _summed(counts: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return counts.sum(0, dtype=torch.float64)
    return torch.tensordot(weights.double(), counts.double(), 1)


def require_possible(evidence: Tensor, start: int) -> None:
    """Raise :class:`~lnz.InfeasibleError` for rows of evidence −inf, by their numbers from ``start``."""
    impossible = torch.isneginf(evidence).nonzero().flatten()
    if len(impossible):
        entries = (impossible + start).tolist()
        shown = ", ".join(map(str, entries[:8])) + (", …" if len(entries) > 8 else "")
        raise InfeasibleError(f"data: expected rows of positive probability, got 0 for rows [{shown}]", entries=entries)
