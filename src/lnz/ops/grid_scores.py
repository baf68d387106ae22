"""The scores of a grid model as kernels of grids read them: by direction, in the form they were given in.

What belief propagation, tree reweighting, mean field and Gibbs sampling on 4-neighbour grids share.

Batches are flattened; instead of expanding an entry to the batch, an index says which of its own batch entries each
image reads. Shapes: B images, H rows, W columns, L labels, E edges of one direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.checks import has_no_values
from lnz.scores import Entry, Model, Weighted

TABLE, POTTS, WEIGHTED, FULL = 0, 1, 2, 3
"""The kinds of :class:`Side`."""


@dataclass(frozen=True)
class Side:
    """The scores of the horizontal or of the vertical edges.

    Attributes:
        kind: ``TABLE``: ``table [entries, 1, L, L]``; ``WEIGHTED``, or ``POTTS`` where the table says no more than
            whether labels are equal, and equal ones score no less: ``weight [entries, rows, columns]`` and
            ``table [1, 1, L, L]``; ``FULL``: ``table [entries, rows · columns, L, L]``, and ``None`` or a ``weight``
            that multiplies it.
        which: ``int64 [B]``, the entry that each image reads.
        top: float64 ``[entries]``, the sum over edges of the largest score of each.
        reach: float64 ``[entries]``, the largest difference of two scores of one edge; inf where one is −inf.
        choice: with ``TABLE``, ``None`` or ``int32 [entries, rows, columns]``: the table that each edge has.
    """

    kind: int
    table: Tensor
    weight: Tensor | None
    rows: int
    columns: int
    which: Tensor
    top: Tensor
    reach: Tensor
    choice: Tensor | None = None


def covers(model: Model) -> bool:
    """Whether grid kernels could read a model: a 4-neighbour grid, not a chain, a batch that is not empty, one dtype,
    scores with values.

    While ``torch.compile`` traces, it is left to the general path: which backend is chosen cannot be read there.
    """
    grid = model.graph.grid_layout
    return (
        grid is not None
        and grid.neighbours == 4
        and min(grid.height, grid.width) > 1
        and 0 not in model.batch_shape
        and len({tensor.dtype for tensor in model.tensors}) == 1
        and not torch.compiler.is_compiling()
        and not any(map(has_no_values, model.tensors))
    )


def which_entry(own: torch.Size, batch: torch.Size) -> Tensor:
    """The flat index into batch shape ``own`` of each entry of ``batch``, to which it broadcasts."""
    return torch.arange(own.numel()).reshape(own).expand(batch).reshape(-1)


def node_scores(model: Model) -> tuple[Tensor, Tensor]:
    """Node scores ``[entries, N, L]`` with −inf at labels observed otherwise, and ``which [B]``."""
    entry, nodes, labels = model.entries[0], model.graph.num_nodes, model.graph.max_cardinality
    scores = entry.expand() if isinstance(entry, Weighted) else entry
    if model.observed is not None:
        seen = model.observed[..., None]
        scores = scores.masked_fill((seen >= 0) & (seen != torch.arange(labels)), -torch.inf)
    own = scores.shape[:-2]
    return scores.expand(*own, nodes, labels).reshape(-1, nodes, labels), which_entry(own, model.batch_shape)


def split_edges(model: Model) -> tuple[Entry, Entry]:
    """The entries of the horizontal and of the vertical edges; views."""
    if model.graph.num_groups == 3:
        return model.entries[1], model.entries[2]
    entry, layout = model.entries[1], model.graph.grid_layout
    assert layout is not None
    sizes = [layout.height * (layout.width - 1), (layout.height - 1) * layout.width]
    if isinstance(entry, Weighted):
        if entry.weight.shape[-1] == 1:
            return entry, entry
        across, down = entry.weight.split(sizes, -1)
        return Weighted(across, entry.table), Weighted(down, entry.table)
    if entry.dim() == 2 or entry.shape[-3] == 1:
        return entry, entry
    across, down = entry.split(sizes, -3)
    return across, down


def side(entry: Entry, rows: int, columns: int, batch: torch.Size) -> Side:
    """The form of one direction's entry. O(entries as given) time and memory."""
    edges = rows * columns
    if isinstance(entry, Weighted) and entry.weight.shape[-1] == edges:
        table, weight = entry.table, entry.weight.reshape(-1, rows, columns)
        finite = table[~torch.isneginf(table)]
        low, high = (finite.min(), finite.max()) if finite.numel() else (table.new_zeros(()), table.new_zeros(()))
        top = torch.maximum(weight.double() * low, weight.double() * high).sum((1, 2))
        reach = (weight.abs().amax((1, 2)) * (high - low)).double()
        if finite.numel() < table.numel():
            reach = reach + torch.inf
        kind = POTTS if is_potts(table, weight) else WEIGHTED
        own = entry.weight.shape[:-1]
        return Side(kind, table[None, None], weight, rows, columns, which_entry(own, batch), top, reach)
    if isinstance(entry, Weighted):
        entry = entry.expand()
    labels = entry.shape[-1]
    own = entry.shape[:-3]
    table = entry.reshape(own.numel(), -1, labels, labels)
    high, low = table.amax((-2, -1)), table.amin((-2, -1))
    top = high.masked_fill(torch.isneginf(high), 0.0).double().sum(1)
    shared = table.shape[1] == 1
    reach = (high - low).nan_to_num(nan=torch.inf, posinf=torch.inf).amax(1).double()
    where = which_entry(own, batch)
    return Side(TABLE if shared else FULL, table, None, rows, columns, where, top * edges if shared else top, reach)


def is_potts(table: Tensor, weight: Tensor) -> bool:
    """Whether ``table [L, L]`` says no more than whether labels are equal, and equal ones never score less."""
    labels = len(table)
    if labels < 2 or torch.isneginf(table).any():
        return False
    model = torch.full_like(table, table[0, 1].item()).fill_diagonal_(table[0, 0].item())
    gain = table[0, 0] - table[0, 1]
    return bool(torch.equal(table, model)) and bool((weight * gain >= 0).all())
