"""Tree-reweighted messages on 4-neighbour grids, by the kernel of belief propagation.

That kernel is told how much each message counts at the node where it arrives, and given the scores over ρ: a table that
edges share becomes one with weights 1/ρ. Messages are logarithms. Edges are computed in probabilities where no table
spans more than half the range of exponents: then what a sum loses to underflow is far below rounding.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lnz.ops.belief.schedule import Outcome, Run
from lnz.ops.grid_belief.forms import FULL, POTTS, TABLE, WEIGHTED, Side, covers, is_potts, which_entry
from lnz.ops.grid_belief.kernel import Prepared, arranged, iterated, prepared_for
from lnz.ops.grid_belief.solve import in_order, slots_of, start_messages
from lnz.scores import Model


def serves(model: Model, run: Run) -> bool:
    """Whether the kernel covers a model and a schedule."""
    return run.schedule == "flooding" and covers(model)


@torch.no_grad()
def iterate(model: Model, appearance: Tensor, run: Run) -> Outcome:
    """From uniform messages, as :func:`lnz.ops.belief.schedule.iterate` does; ``appearance [*batch', F]``."""
    prepared = prepared_for(model)
    rho = _by_direction(model, prepared, appearance.to(prepared.node.dtype))
    which = which_entry(appearance.shape[:-1], model.batch_shape)
    sides = tuple(_reweighted(s, r, which) for s, r in zip(prepared.sides, rho, strict=True))
    prepared = replace(prepared, sides=(sides[0], sides[1]))
    across = torch.nn.functional.pad(rho[0], (1, 1))
    down = torch.nn.functional.pad(rho[1], (0, 0, 1, 1))
    reach = torch.maximum(*(s.reach[s.which] for s in prepared.sides))
    safe = reach < (40.0 if prepared.node.dtype == torch.float32 else 350.0)
    everything = torch.arange(len(which))
    chosen, parts = [], []
    for domain, images in (((), everything[safe]), ((0,), everything[~safe])):
        if len(images):
            messages = start_messages(prepared, len(images), (0,), -math.log(prepared.node.shape[-1]))
            arrays, threads, cuts = arranged(
                prepared, images, domain, (0,), messages, (which, across.contiguous(), down.contiguous())
            )
            iterations, residual = iterated(arrays, threads, cuts, run.max_iterations, run.tolerance, run.damping)
            chosen.append(images)
            parts.append((messages.movedim(1, 0), iterations, residual.to(messages.dtype)))
    if not parts:
        parts, chosen = [(start_messages(prepared, 0, (0,), 0.0).movedim(1, 0), which, reach)], [everything]
    messages, iterations, residual = (in_order(chosen, part) for part in zip(*parts, strict=True))
    batch = model.batch_shape
    slots = slots_of(model, messages.movedim(0, 1), logarithms=True)
    return Outcome(slots, iterations.reshape(batch), residual.to(slots.dtype).reshape(batch))


def _by_direction(model: Model, prepared: Prepared, appearance: Tensor) -> tuple[Tensor, Tensor]:
    """Those of horizontal edges ``[entries, H, W − 1]`` and of vertical ones ``[entries, H − 1, W]``."""
    height, width = prepared.height, prepared.width
    flat = appearance.reshape(-1, appearance.shape[-1])[:, model.graph.num_nodes :]
    across, down = flat.split([height * (width - 1), (height - 1) * width], -1)
    return across.unflatten(-1, (height, width - 1)), down.unflatten(-1, (height - 1, width))


def _reweighted(given: Side, rho: Tensor, which: Tensor) -> Side:
    """The scores of one direction over ``rho [entries, rows, columns]``, of which each image reads ``which [B]``."""
    entries = max(len(given.table), len(rho)) if given.weight is None else max(len(given.weight), len(rho))
    if entries == 1:
        own = other = which
    else:  # an entry per image, since images may combine any entry of the scores with any of the appearance
        own, other = given.which, which
    index = which if entries == 1 else torch.arange(len(which))
    lowest = rho.amin((1, 2))[which if entries > 1 else slice(None)]
    if given.kind == FULL:
        rows, columns = given.rows, given.columns
        table = given.table if entries == 1 else given.table[own]
        scale = (rho if entries == 1 else rho[other]).reshape(-1, rows * columns, 1, 1)
        reach = (given.reach if entries == 1 else given.reach[own]) / lowest.double()
        return replace(given, table=table / scale, which=index, reach=reach)
    weight = 1 / (rho if entries == 1 else rho[other])
    reach = (given.reach if entries == 1 else given.reach[own]) / lowest.double()
    table = given.table
    if given.kind == TABLE:
        top = table.amax((-2, -1), keepdim=True)
        table = table - top.masked_fill(torch.isneginf(top), 0.0)
        table = table if len(table) == 1 else table[own]
        potts = len(table) == 1 and is_potts(table[0, 0], weight)
        kind = POTTS if potts else WEIGHTED
    else:
        assert given.weight is not None
        weight = weight * (given.weight if entries == 1 else given.weight[own])
        kind = given.kind
    return replace(given, kind=kind, table=table, weight=weight, which=index, reach=reach)
