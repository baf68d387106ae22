"""Tree-reweighted messages on 4-neighbour grids, by the kernels of belief propagation.

These are told how much each message counts at the node where it arrives, and given the scores over ρ: a table that
edges share becomes one per value of ρ where these are few, in runs, as packed forests have them; else one with weights
1/ρ. Messages are probabilities where the range of the tables allows, else logarithms.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lnz.ops.belief.schedule import Run
from lnz.ops.grid_belief.prepared import Prepared, message_floor, prepared_for
from lnz.ops.grid_belief.solve import KERNELS
from lnz.ops.grid_scores import FULL, POTTS, TABLE, WEIGHTED, Side, covers, is_potts, which_entry
from lnz.ops.tree_reweighted.reference import Reweighted
from lnz.scores import Model

MOST = 16
"""From more different appearance probabilities, a shared table is not copied for each."""
RUN = 4
"""The least mean number of neighbouring edges with one table for which it is."""


def serves(model: Model, run: Run) -> bool:
    """Whether the kernel covers a model and a schedule."""
    return run.schedule == "flooding" and covers(model) and KERNELS.find("Images", *model.tensors) is not None


def reweighted(model: Model, appearance: Tensor) -> Prepared:
    """A model as the kernels read it, with ``appearance [*batch', F]``; for :mod:`lnz.ops.grid_belief.solve`."""
    prepared = prepared_for(model)
    rho = _by_direction(model, prepared, appearance.to(prepared.node.dtype))
    which = which_entry(appearance.shape[:-1], model.batch_shape)
    sides = tuple(_over(s, r, which) for s, r in zip(prepared.given, rho, strict=True))
    across = torch.nn.functional.pad(rho[0], (1, 1)).contiguous()
    down = torch.nn.functional.pad(rho[1], (0, 0, 1, 1)).contiguous()
    floor = message_floor(Reweighted(model, appearance))
    return replace(prepared, sides=(sides[0], sides[1]), floor=floor, rho=(which, across, down))


def _by_direction(model: Model, prepared: Prepared, appearance: Tensor) -> tuple[Tensor, Tensor]:
    """Those of horizontal edges ``[entries, H, W − 1]`` and of vertical ones ``[entries, H − 1, W]``."""
    height, width = prepared.height, prepared.width
    flat = appearance.reshape(-1, appearance.shape[-1])[:, model.graph.num_nodes :]
    across, down = flat.split([height * (width - 1), (height - 1) * width], -1)
    return across.unflatten(-1, (height, width - 1)), down.unflatten(-1, (height - 1, width))


def _over(given: Side, rho: Tensor, which: Tensor) -> Side:
    """The scores of one direction over ``rho [entries, rows, columns]``, of which each image reads ``which [B]``."""
    entries = max(len(given.table), len(rho)) if given.weight is None else max(len(given.weight), len(rho))
    # an entry per image, where images may combine any entry of the scores with any of the appearance
    own, other = (torch.zeros(1, dtype=torch.int64),) * 2 if entries == 1 else (given.which, which)
    index = which if entries == 1 else torch.arange(len(which))
    reach = given.reach[own] / rho.amin((1, 2))[other].double()
    new = replace(given, which=index, top=given.top[own], reach=reach)
    if given.kind == FULL:
        table = given.table if len(given.table) == 1 else given.table[own]
        return replace(new, table=table.expand(len(own), *table.shape[1:]), weight=1 / rho[other])
    if given.weight is not None:
        return replace(new, weight=given.weight[own] / rho[other])
    top = given.table.amax((-2, -1), keepdim=True)
    table = given.table - top.masked_fill(torch.isneginf(top), 0.0)
    values, value = rho.unique(return_inverse=True)
    changes = (rho.diff(dim=-1) != 0).double().mean().item() if rho.shape[-1] > 1 else 0.0
    if len(values) <= MOST and changes * RUN <= 1:
        tables = (table.unsqueeze(1) / values.reshape(1, -1, 1, 1, 1)).flatten(0, 1)
        first = given.which if len(table) > 1 else torch.zeros_like(which)
        first = first[:, None, None] if entries > 1 else first.new_zeros(1, 1, 1)
        choice = (first * len(values) + value[other]).to(torch.int32)
        return replace(new, kind=TABLE, table=tables, choice=choice)
    weight = 1 / rho[other]
    kind = POTTS if len(table) == 1 and is_potts(table[0, 0], weight) else WEIGHTED
    return replace(new, kind=kind, table=table if len(table) == 1 else table[own], weight=weight)
