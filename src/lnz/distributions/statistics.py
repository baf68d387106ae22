"""Sufficient statistics of directed models: how often each entry of each table is used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lnz.distributions.families import Families
from lnz.errors import InfeasibleError
from lnz.inference.sampling.sampler import Sampler

if TYPE_CHECKING:
    from lnz.distributions.bayes_net import BayesNet

BLOCK = 2**24  # entries of tables that are worked on at a time


def expected(net: BayesNet, data: Tensor, reduce: bool, weights: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
    """The log evidence of each row ``[R]``, and expected counts; see :meth:`BayesNet.expected_statistics`.

    Sums over rows are made, and returned, in float64; ``weights [R]`` say how often each row counts in them. Of a stack
    of S networks, of batch shape ``[S, 1]``, evidence is ``[S, R]`` and sums are ``[S, 1, *parents, card]``. A sampler
    has no evidence, which is NaN.
    """
    y = net.labelling(data, "data")
    stack = net.batch_shape[0] if reduce and is_stack(net.batch_shape) else 0
    if y.dim() != 2 or (not stack and net.batch_shape not in (torch.Size(), y.shape[:1])):
        raise ValueError(f"data: expected rows [R, {len(net.cardinalities)}], got {list(y.shape)}")
    size = sum(math.prod(net.families.shape(v)) for v in range(len(net.cardinalities))) + sum(net.cardinalities)
    rows = max(1, len(y)) if net.batch_shape and not stack else max(1, BLOCK // (size * max(1, stack)))
    has_evidence = not isinstance(net.inference, Sampler)
    evidence, parts = [], []
    with torch.no_grad():
        for start in range(0, max(1, len(y)), rows):
            some = slice(start, start + rows)
            posterior = net.to_mrf()._clamped(y[some])
            posterior._validate_args = False
            each = None if weights is None else weights[some]
            groups = posterior.solution.summed_marginals(each) if reduce else posterior.marginals  # ln Z with them
            found = (
                posterior.log_partition
                if has_evidence
                else torch.full(posterior.batch_shape, torch.nan, device=y.device)
            )
            evidence.append(found)
            require_possible(found, start)
            parts.append(net.families.by_variable(groups))
    if reduce:
        sums = [torch.stack(each).sum(0) for each in zip(*parts, strict=True)]
        return torch.cat(evidence, -1), sums if stack else [each.squeeze(0) for each in sums]
    return torch.cat(evidence), [torch.cat(each) for each in zip(*parts, strict=True)]


def is_stack(batch_shape: torch.Size) -> bool:
    """Whether networks of this batch shape are a stack ``[S, 1]``, each of which is for all rows."""
    return len(batch_shape) == 2 and batch_shape[1] == 1


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


def require_possible(evidence: Tensor, start: int = 0) -> None:
    """Raise where the log evidence ``[*stack, R]`` of rows, numbered from ``start``, is −inf."""
    impossible = torch.isneginf(evidence).flatten(0, -2).any(0) if evidence.dim() > 1 else torch.isneginf(evidence)
    impossible = impossible.nonzero().flatten()
    if len(impossible):
        entries = (impossible + start).tolist()
        shown = ", ".join(map(str, entries[:8])) + (", …" if len(entries) > 8 else "")
        raise InfeasibleError(f"data: expected rows of positive probability, got 0 for rows [{shown}]", entries=entries)
