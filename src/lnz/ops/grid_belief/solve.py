"""ln Z, beliefs and their gradient from the kernels, each image in the domain that its scores fit in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, disagreement, log_sum
from lnz.ops.belief.schedule import AGREEMENT, Run, same_value
from lnz.ops.dispatch import Kernels
from lnz.ops.grid_belief.domains import EXP, LOG, MAX, fits, fits_reweighted
from lnz.ops.grid_belief.prepared import Prepared, Settings, Sums, Wanted
from lnz.ops.grid_scores import FULL, Side, split_edges
from lnz.ops.tree_reweighted.reference import Reweighted
from lnz.scores import Entry, Model, Weighted

KERNELS = Kernels("grid_belief")
KERNELS.register("cpu", "lnz.ops.grid_belief.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))


def domains(prepared: Prepared, maximise: bool = False) -> list[tuple[tuple[int, ...], Tensor]]:
    """Which images ``int64`` to compute in which domain."""
    everything = torch.arange(len(prepared.which))
    if maximise or not len(everything):
        return [(MAX if maximise else EXP, everything)]
    reaches = prepared.reach[prepared.which], *prepared.sides
    safe = (fits if prepared.rho is None else fits_reweighted)(prepared.node.dtype, *reaches)
    return [(domain, chosen) for domain, chosen in ((EXP, everything[safe]), (LOG, everything[~safe])) if len(chosen)]


def parts_of(prepared: Prepared, maximise: bool = False) -> list[Any]:
    """The images of each domain, as the backend reads them."""
    images = KERNELS.find("Images", prepared.node)
    assert images is not None
    return [images(prepared, chosen, domain) for domain, chosen in domains(prepared, maximise)]


class Found(NamedTuple):
    """What iterations end with, each ``[B]``: ln Z in float64, of reweighted messages the upper bound; node beliefs
    ``[B, N, L]``; messages ``[4, B, H, L, W]``; iterations; residual.
    """

    log_z: Tensor
    beliefs: Tensor
    messages: Tensor
    iterations: Tensor
    residual: Tensor


def solve(prepared: Prepared, parts: Sequence[Any], settings: Settings, start: Tensor | None = None) -> Found:
    """Iterate from uniform messages, or from a ``start``; of max-product, ln Z and beliefs are 0."""
    found = []
    for part in parts:
        messages = part.start() if start is None else start[:, part.chosen].contiguous()
        iterations, residual = part.iterate(messages, settings)
        if part.domain == MAX:
            beliefs = prepared.node.new_zeros(len(part.chosen), *prepared.node.shape[1:])
            log_z = residual.double() * 0
        else:
            log_z, beliefs, _ = part.collect(messages, None, (Wanted(), Wanted()))
        found.append((log_z, beliefs, messages.movedim(1, 0), iterations, residual))
    log_z, beliefs, messages, iterations, residual = (in_order(parts, values) for values in zip(*found, strict=True))
    log_z = log_z + prepared.top.double().sum(1)[prepared.which] + sum(s.top[s.which] for s in prepared.given)
    if prepared.rho is None:
        impossible = torch.isneginf(log_z)
        if impossible.any():
            beliefs = beliefs.masked_fill(impossible[:, None, None], 0.0)
    return Found(log_z, beliefs, messages.movedim(0, 1), iterations, residual)


def converge(model: Model, prepared: Prepared, run: Run, maximise: bool = False) -> tuple[Found, Tensor]:
    """:func:`solve` until ln Z is at rest as well as messages; and whether it is, ``bool [B]``.

    The stopping rule is that of :func:`lnz.ops.belief.schedule.iterate`.
    """
    settings = Settings(run.max_iterations, run.tolerance, run.damping_for(model))
    parts = parts_of(prepared, maximise)
    found = solve(prepared, parts, settings)
    if maximise or not run.tolerance:
        return found, found.residual <= run.tolerance
    messages = 2 * sum(model.graph.num_factors[1:]) + model.graph.num_nodes
    converged = torch.zeros_like(found.residual, dtype=torch.bool)
    still = found.residual <= run.tolerance
    while still.any():
        onward = solve(prepared, parts, settings._replace(limit=1), found.messages)
        at_rest = same_value(found.log_z, onward.log_z, run.tolerance, messages)
        if model.constrained and at_rest.any():
            at_rest = at_rest & _agree(model, prepared, found.messages, AGREEMENT * run.tolerance)
        converged = converged | (still & (found.residual <= run.tolerance) & at_rest)
        moving = still = ~converged & (found.iterations < run.max_iterations)
        if not moving.any():
            break
        onward = onward._replace(iterations=found.iterations + 1)
        found = Found(
            *(
                torch.where(moving.reshape(shape), new, old)
                for shape, new, old in zip(_OVER_BATCH, onward, found, strict=True)
            )
        )
    return found, converged


_OVER_BATCH = (-1,), (-1, 1, 1), (1, -1, 1, 1, 1), (-1,), (-1,)
"""The shapes in which ``[B]`` broadcasts against the fields of :class:`Found`."""


def _agree(model: Model, prepared: Prepared, messages: Tensor, tolerance: float) -> Tensor:
    """Whether beliefs of edges and of nodes agree about every label, ``bool [*batch]``."""
    if prepared.rho is None:
        passing = Passing(model, log_sum)
    else:
        chosen, across, down = prepared.rho
        own = torch.cat([across[:, :, 1:-1].flatten(1), down[:, 1:-1].flatten(1)], -1)[chosen]
        own = torch.nn.functional.pad(own, (model.graph.num_nodes, 0), value=1.0)
        passing = Reweighted(model, own.reshape(*model.batch_shape, -1))
    return disagreement(passing, slots_of(model, prepared, messages)) <= tolerance


def in_order(parts: Sequence[Any], values: Sequence[Tensor]) -> Tensor:
    """Put together what was computed for some images at a time."""
    if len(parts) == 1:
        return values[0]
    return torch.cat(list(values))[torch.cat([part.chosen for part in parts]).argsort()]


def pull_back(model: Model, prepared: Prepared, messages: Tensor, grad: Tensor) -> list[Tensor]:
    """Σ over images of ``grad`` times the beliefs, in the forms the scores were given in."""
    grad = grad.reshape(-1).to(model.dtype)
    at_nodes = torch.zeros(len(grad), *prepared.node.shape[1:], dtype=model.dtype)
    totals = [Total.of(s) for s in prepared.given]
    wanted = totals[0].wanted, totals[1].wanted
    # where several images read one table per edge, their beliefs are added one image after the other
    shared = any(s.kind == FULL and len(s.table) < len(grad) for s in prepared.given)
    for part in parts_of(prepared):
        for one in part.split() if shared else [part]:
            images = one.chosen
            _, beliefs, sums = one.collect(messages[:, images].contiguous(), grad[images], wanted)
            at_nodes[images] = beliefs * grad[images, None, None]
            for s, total, added in zip(prepared.given, totals, sums, strict=True):
                total.add(added, s.which[images])
    gradients = _at_nodes(model, at_nodes)
    sides = [_at_edges(e, t) for e, t in zip(split_edges(model), totals, strict=True)]
    if model.graph.num_groups == 3:
        return gradients + sides[0] + sides[1]
    entry = model.entries[1]
    lead = entry.weight if isinstance(entry, Weighted) else entry
    axis = -1 if isinstance(entry, Weighted) else -3
    shared = (lead.dim() == 2 and axis == -3) or lead.shape[axis] == 1
    first = sides[0][0] + sides[1][0] if shared else torch.cat((sides[0][0], sides[1][0]), axis)
    return [*gradients, first, *(a + b for a, b in zip(sides[0][1:], sides[1][1:], strict=True))]


@dataclass
class Total:
    """What is added up over the edges of one side, by entry of the scores: see :class:`.prepared.Sums`."""

    counts: Tensor
    weights: Tensor
    wanted: Wanted

    @classmethod
    def of(cls, side: Side) -> Total:
        table, labels = side.table, side.table.shape[-1]
        if side.kind == FULL:
            beliefs = table.new_zeros(len(table), side.rows, side.columns, labels, labels)
            return cls(table.new_zeros(0), table.new_zeros(0), Wanted(beliefs=beliefs))
        weights = table.new_zeros(0) if side.weight is None else torch.zeros_like(side.weight)
        entries = len(table) if side.weight is None else len(side.weight)
        return cls(
            table.new_zeros(entries, labels, labels), weights, Wanted(counts=True, weights=side.weight is not None)
        )

    def add(self, other: Sums, entries: Tensor) -> None:
        """Add those of images to those of the entries they read."""
        if self.wanted.counts:
            self.counts.index_add_(0, entries, other.counts)
        if self.wanted.weights:
            self.weights.index_add_(0, entries, other.weights)


def pairs(model: Model, prepared: Prepared, messages: Tensor, group: int) -> Tensor:
    """The beliefs of the edges of a group, ``[*batch, F, L, L]``; nothing else of that size is held."""
    count, labels = len(prepared.which), prepared.node.shape[-1]
    shapes = [(s.rows, s.columns) for s in prepared.given]
    result = torch.zeros(count, model.graph.num_factors[group], labels, labels, dtype=prepared.node.dtype)
    for part in parts_of(prepared):
        for one in part.split():
            place = result[int(one.chosen)]
            if model.graph.num_groups == 2:
                beliefs = list(place.split([rows * columns for rows, columns in shapes]))
            else:
                beliefs = [place if group == 1 + side else None for side in range(2)]
            across, down = (
                Wanted() if b is None else Wanted(beliefs=b.reshape(1, *shape, labels, labels))
                for b, shape in zip(beliefs, shapes, strict=True)
            )
            one.collect(messages[:, one.chosen].contiguous(), messages.new_ones(1), (across, down))
    return result.reshape(*model.batch_shape, *result.shape[1:])


def _at_nodes(model: Model, total: Tensor) -> list[Tensor]:
    entry = model.entries[0]
    total = total.reshape(*model.batch_shape, *total.shape[1:])
    if not isinstance(entry, Weighted):
        return [total.sum_to_size(entry.shape)]
    table = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
    weight = (total * table).sum(-1).sum_to_size(entry.weight.shape)
    return [weight, (total * entry.weight[..., None]).sum_to_size(table.shape)]


def _at_edges(entry: Entry, total: Total) -> list[Tensor]:
    counts, beliefs = total.counts, total.wanted.beliefs
    if not isinstance(entry, Weighted):
        return [(counts if beliefs is None else beliefs).reshape(entry.shape)]
    if total.wanted.weights:
        return [total.weights.reshape(entry.weight.shape), counts.sum(0)]
    table = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
    weight = entry.weight.reshape(-1, 1, 1)
    return [(counts * table).sum((1, 2)).reshape(entry.weight.shape), (counts * weight).sum(0)]


def slots_of(model: Model, prepared: Prepared, messages: Tensor, maximise: bool = False) -> Tensor:
    """The messages as :mod:`lnz.ops.belief` lays them out, ``[*batch, M, L]``, normalised, in logarithms."""
    labels, batch = model.graph.max_cardinality, model.batch_shape
    messages = messages.clone()
    for domain, chosen in domains(prepared, maximise):
        if domain == EXP:
            messages[:, chosen] = (messages[:, chosen] / labels).log()
    from_left, from_right, from_up, from_down = messages.movedim(3, 4)
    across = [from_right[:, :, :-1], from_left[:, :, 1:]]  # to the earlier node, to the later one
    down = [from_down[:, :-1], from_up[:, 1:]]
    if model.graph.num_groups == 3:
        edges = [part.flatten(1, 2) for part in (*across, *down)]
    else:
        edges = [part.flatten(1, 2) for pair in zip(across, down, strict=True) for part in pair]
    node = model.expanded(0).reshape(-1, model.graph.num_nodes, labels)
    node = node - (node.amax(-1, keepdim=True) if maximise else node.logsumexp(-1, keepdim=True))
    return torch.cat([node.nan_to_num(nan=-torch.inf, neginf=-torch.inf), *edges], 1).reshape(*batch, -1, labels)
