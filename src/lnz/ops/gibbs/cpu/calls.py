"""Which kernel serves a model."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.conditionals.sites import Order
from lnz.ops.gibbs.cpu import graph, grid, spins
from lnz.scores import Model


def gibbs_sweeps(
    model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, order: Order, temperature: float
) -> Tensor:
    """As :func:`lnz.ops.gibbs.reference.gibbs_sweeps`."""
    if order == "chromatic" and _is_plain_grid(model):
        kernel = spins if spins.serves(model) else grid
        return kernel.run(model, labels, sweeps, generator, temperature)
    return graph.gibbs_sweeps(model, labels, sweeps, generator, order, temperature)


def _is_plain_grid(model: Model) -> bool:
    """A 4-neighbour grid of at least two rows and columns, with scores of one dtype."""
    layout = model.graph.grid_layout
    return (
        layout is not None
        and layout.neighbours == 4
        and min(layout.height, layout.width) > 1
        and len({tensor.dtype for tensor in model.tensors}) == 1
    )
