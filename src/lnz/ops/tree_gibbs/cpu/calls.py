"""Chains side by side, each with random numbers of its own, whatever the number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lnz.ops.jit.threads import side_by_side
from lnz.ops.layout import Layout, batch_indices
from lnz.ops.philox import key_from
from lnz.ops.tree_gibbs.blocks import blocks_of
from lnz.ops.tree_gibbs.cpu.sweep import redraw_forests
from lnz.scores import Model
from lnz.typing import IGNORE


def tree_sweeps(
    model: Model,
    labels: Tensor,
    sweeps: int,
    generator: torch.Generator | None,
    blocks: Sequence[Sequence[int]] | None,
) -> Tensor:
    """See :func:`lnz.ops.tree_gibbs.reference.tree_sweeps`."""
    planned = [block.sites.nodes for block in blocks_of(model.graph, blocks, labels.device)]
    return _run(model, labels, planned, True, [1.0] * (sweeps * len(planned)), generator)


def forest_moves(
    model: Model, labels: Tensor, temperatures: Sequence[float], generator: torch.Generator | None
) -> Tensor:
    """See :func:`lnz.ops.tree_gibbs.reference.forest_moves`."""
    return _run(model, labels, [torch.arange(model.graph.num_nodes)], False, temperatures, generator)


def _run(
    model: Model,
    labels: Tensor,
    blocks: Sequence[Tensor],
    fixed: bool,
    temperatures: Sequence[float],
    generator: torch.Generator | None,
) -> Tensor:
    """Chains side by side, each with random numbers of its own, whatever the number of threads."""
    if labels.numel() == 0 or not blocks:
        return labels.clone()
    key = key_from(generator)
    layout, batch = Layout(model), model.batch_shape.numel()
    moved = labels.clone(memory_format=torch.contiguous_format)
    chains = moved.reshape(-1, batch, model.graph.num_nodes).numpy()
    ladder = torch.tensor(temperatures, dtype=torch.float64).numpy()
    observed = None if model.observed is None else model.observed.expand(*model.batch_shape, -1).reshape(batch, -1)

    def entry(place: int, index: tuple[int, ...]) -> None:
        scores = layout.scores(index)
        free = torch.ones(model.graph.num_nodes, dtype=torch.bool) if observed is None else observed[place] == IGNORE
        kept = [block[free[block]] for block in blocks]
        ends = torch.tensor([len(block) for block in kept]).cumsum(0).numpy()
        candidates = torch.cat(kept).numpy()

        def chain(number: int) -> None:
            state, where = chains[number, place], number * batch + place
            redraw_forests(layout.wiring, scores, state, candidates, ends, fixed, ladder, key, where)

        side_by_side([partial(chain, number) for number in range(len(chains))])

    for place, index in enumerate(batch_indices(model)):
        entry(place, index)
    return moved
