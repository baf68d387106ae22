"""ln Z, beliefs and their gradient from the kernels, each image in the domain that its scores fit in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.belief.reference import Passing, disagreement, log_sum
from lnz.ops.belief.schedule import AGREEMENT, Run, same_value
from lnz.ops.grid_belief.forms import FULL, fits, fits_reweighted, split_edges
from lnz.ops.grid_belief.kernel import Prepared, Sums
from lnz.ops.grid_belief.kernel import run as run_kernel
from lnz.ops.tree_reweighted.reference import Reweighted
from lnz.scores import Entry, Model, Weighted


def _domains(prepared: Prepared, maximise: bool) -> list[tuple[tuple[int, ...], Tensor]]:
    """Which images to compute in which domain."""
    everything = torch.arange(len(prepared.which))
    if maximise or not len(everything):
        return [((0, 0) if maximise else (), everything)]
    reaches = prepared.reach[prepared.which], *prepared.sides
    safe = (fits if prepared.rho is None else fits_reweighted)(prepared.node.dtype, *reaches)
    return [(domain, images) for domain, images in (((), everything[safe]), ((0,), everything[~safe])) if len(images)]


def solve(
    model: Model,
    prepared: Prepared,
    limit: int,
    tolerance: float,
    damping: float,
    maximise: bool = False,
    start: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """ln Z, node beliefs, messages ``[4, B, H, L, W]``, iterations and residual; from uniform messages, or a ``start``.

    ln Z is in float64; of reweighted messages, it is the upper bound.
    """
    nodes, labels = prepared.node.shape[1:]
    chosen, parts = [], []
    for domain, images in _domains(prepared, maximise):
        even = 1.0 if not domain else 0.0 if maximise else -math.log(labels)
        if start is None:
            messages = start_messages(prepared, len(images), domain, even)
        else:
            messages = start[:, images].contiguous()
        iterations, residual, log_z, beliefs, _ = run_kernel(
            prepared, images, domain, messages, limit, tolerance, damping, None
        )
        chosen.append(images)
        parts.append((log_z, beliefs, messages.movedim(1, 0), iterations, residual))
    log_z, beliefs, messages, iterations, residual = (in_order(chosen, part) for part in (zip(*parts, strict=True)))
    shift = prepared.top.double().sum(1)[prepared.which] + sum(s.top[s.which] for s in prepared.given)
    log_z = log_z + shift
    if prepared.rho is None:
        impossible = torch.isneginf(log_z)
        if impossible.any():
            beliefs = beliefs.masked_fill(impossible[:, None, None], 0.0)
    batch = model.batch_shape
    return (
        log_z.reshape(batch), beliefs.reshape(*batch, nodes, labels), messages.movedim(0, 1),
        iterations.reshape(batch), residual.reshape(batch),
    )  # fmt: skip


def converge(model: Model, prepared: Prepared, run: Run, maximise: bool = False) -> tuple[Tensor, ...]:
    """:func:`solve` until ln Z is at rest as well as messages; last, whether it is, ``bool [*batch]``.

    The stopping rule is that of :func:`lnz.ops.belief.schedule.iterate`.
    """
    damping = run.damping_for(model)
    *answers, iterations, residual = solve(model, prepared, run.max_iterations, run.tolerance, damping, maximise)
    if maximise or not run.tolerance:
        return *answers, iterations, residual, residual <= run.tolerance
    messages = 2 * sum(model.graph.num_factors[1:]) + model.graph.num_nodes
    converged = torch.zeros_like(residual, dtype=torch.bool)
    still = residual <= run.tolerance
    while still.any():
        *onward, _, changed = solve(model, prepared, 1, run.tolerance, damping, start=answers[2])
        at_rest = same_value(answers[0].double(), onward[0].double(), run.tolerance, messages)
        if model.constrained and at_rest.any():
            at_rest = at_rest & _agree(model, prepared, answers[2], AGREEMENT * run.tolerance)
        converged = converged | (still & (residual <= run.tolerance) & at_rest)
        moving = still = ~converged & (iterations < run.max_iterations)
        if not moving.any():
            break
        answers = [
            torch.where(moving.reshape(_over_batch(moving, new, index == 2)), new, old)
            for index, (new, old) in enumerate(zip(onward, answers, strict=True))
        ]
        iterations, residual = iterations + moving, torch.where(moving, changed, residual)
    return *answers, iterations, residual, converged


def _over_batch(flags: Tensor, values: Tensor, messages: bool) -> tuple[int, ...]:
    """The shape in which ``flags [*batch]`` broadcast against ``values [*batch, …]`` or messages ``[4, B, …]``."""
    if messages:
        return 1, flags.numel(), 1, 1, 1
    return *flags.shape, *(1,) * (values.dim() - flags.dim())


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


def start_messages(prepared: Prepared, count: int, domain: tuple[int, ...], start: float) -> Tensor:
    """``start`` everywhere, ``[4, count, H, L, W]``; what arrives across the border says nothing and never changes."""
    labels = prepared.node.shape[-1]
    messages = prepared.node.new_empty(4, count, prepared.height, labels, prepared.width).fill_(start)
    for border in (messages[0, ..., 0], messages[1, ..., -1], messages[2, :, 0], messages[3, :, -1]):
        border.fill_(0.0 if domain else 1.0)
    return messages


def in_order(chosen: list[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Put together what was computed for some images at a time."""
    if len(chosen) == 1:
        return parts[0]
    return torch.cat(list(parts))[torch.cat(chosen).argsort()]


def pull_back(model: Model, prepared: Prepared, messages: Tensor, grad: Tensor) -> list[Tensor]:
    """Σ over images of ``grad`` times the beliefs, in the forms the scores were given in."""
    grad = grad.reshape(-1).to(model.dtype)
    at_nodes = torch.zeros(len(grad), *prepared.node.shape[1:], dtype=model.dtype)
    totals = [
        Sums.empty(s, len(s.table) if s.weight is None else len(s.weight), 1, wanted=True) for s in prepared.given
    ]
    for domain, chosen in _domains(prepared, maximise=False):
        # where several images read one table per edge, their beliefs are added one image after the other
        shared = any(s.kind == FULL and len(s.table) < len(grad) for s in prepared.given)
        for images in chosen.split(1) if shared else [chosen]:
            part = messages[:, images].contiguous()
            *_, beliefs, sums = run_kernel(prepared, images, domain, part, 0, 0.0, 0.0, grad)
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


def pairs(model: Model, prepared: Prepared, messages: Tensor, group: int) -> Tensor:
    """The beliefs of the edges of a group, ``[*batch, F, L, L]``; nothing else of that size is held."""
    count, labels = len(prepared.which), prepared.node.shape[-1]
    shapes = [(s.rows, s.columns) for s in prepared.given]
    result = torch.zeros(count, model.graph.num_factors[group], labels, labels, dtype=prepared.node.dtype)
    whole = model.graph.num_groups == 2
    for domain, images in _domains(prepared, maximise=False):
        for image in images.tolist():
            parts = list(result[image].split([rows * columns for rows, columns in shapes])) if whole else []
            if not whole:
                parts = [result[image] if group == 1 + side else result[image, :0] for side in range(2)]
            sums = tuple(Sums.into(p, *shape, prepared.height) for p, shape in zip(parts, shapes, strict=True))
            one = torch.tensor([image])
            part = messages[:, one].contiguous()
            run_kernel(prepared, one, domain, part, 0, 0.0, 0.0, part.new_ones(count), (sums[0], sums[1]))
    return result.reshape(*model.batch_shape, *result.shape[1:])


def _at_nodes(model: Model, total: Tensor) -> list[Tensor]:
    entry = model.entries[0]
    total = total.reshape(*model.batch_shape, *total.shape[1:])
    if not isinstance(entry, Weighted):
        return [total.sum_to_size(entry.shape)]
    table = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
    weight = (total * table).sum(-1).sum_to_size(entry.weight.shape)
    return [weight, (total * entry.weight[..., None]).sum_to_size(table.shape)]


def _at_edges(entry: Entry, total: Sums) -> list[Tensor]:
    counts = total.counts.sum(1)
    if not isinstance(entry, Weighted):
        return [(total.beliefs if total.beliefs.numel() else counts).reshape(entry.shape)]
    if total.weights.numel():
        return [total.weights.reshape(entry.weight.shape), counts.sum(0)]
    table = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
    weight = entry.weight.reshape(-1, 1, 1)
    return [(counts * table).sum((1, 2)).reshape(entry.weight.shape), (counts * weight).sum(0)]


def slots_of(model: Model, prepared: Prepared, messages: Tensor, maximise: bool = False) -> Tensor:
    """The messages as :mod:`lnz.ops.belief` lays them out, ``[*batch, M, L]``, normalised, in logarithms."""
    labels, batch = model.graph.max_cardinality, model.batch_shape
    messages = messages.clone()
    for domain, images in _domains(prepared, maximise):
        if not domain:
            messages[:, images] = (messages[:, images] / labels).log()
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
