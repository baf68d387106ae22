"""Binary 4-neighbour grids whose nodes all have one probability per number of neighbours of label 1; see the kernel.

That is: one table of node scores and one of edge scores, shared by all nodes and edges, the latter symmetric, all of
them finite. The classical Ising and lattice-gas models are of this kind.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from lnz.ops.gibbs.cpu.arguments import Band
from lnz.ops.gibbs.cpu.bands import advance
from lnz.ops.gibbs.cpu.multispin import Spins, pack, sweep, unpack
from lnz.ops.layout import batch_indices, entry_of
from lnz.ops.philox import key_from
from lnz.scores import Entry, Model, Weighted
from lnz.typing import IGNORE


def serves(model: Model) -> bool:
    """Whether a model on a 4-neighbour grid is of this kind."""
    if model.graph.uniform_cardinality != 2 or not all(_shared(entry, g) for g, entry in enumerate(model.entries)):
        return False
    tables = [_table(entry, int(g > 0) + 1) for g, entry in enumerate(model.entries)]
    edges = tables[1:]
    return (
        all(bool(torch.isfinite(table).all()) for table in tables)
        and all(bool(torch.equal(table, table.mT)) for table in edges)
        and all(bool((_per_neighbour(table) == _per_neighbour(edges[0])).all()) for table in edges)
    )


def run(model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, temperature: float) -> Tensor:
    """The labellings after ``sweeps`` sweeps; as :func:`lnz.ops.gibbs.reference.gibbs_sweeps`."""
    grid = model.graph.grid_layout
    assert grid is not None
    height, width = grid.height, grid.width
    key, indices = key_from(generator), batch_indices(model)
    everywhere, missing = _layout(height, width)
    coefficients = [_coefficients(_chances(model, index, temperature)).numpy().astype("uint32") for index in indices]
    free = [everywhere] * len(indices)
    if model.observed is not None:
        free = [torch.zeros_like(everywhere) for _ in indices]
        for words, index in zip(free, indices, strict=True):
            pack((entry_of(model.observed, 1, index) == IGNORE).long().reshape(height, width).numpy(), _words(words))
    before = labels.reshape(-1, height, width).contiguous().numpy()
    states = torch.zeros(len(before), *everywhere.shape, dtype=torch.int32)
    after = torch.empty(before.shape, dtype=torch.int64)

    def part(band: Band) -> None:
        entry = band.begin % len(indices)
        sweep(Spins(_words(free[entry]), _words(missing), coefficients[entry]), _words(states), key, band)

    for image, state in enumerate(states):
        pack(before[image], _words(state))
    advance(part, len(states), len(indices), height, width, 2 * sweeps)
    for image, state in enumerate(states):
        unpack(_words(state), after[image].numpy())
    return after.reshape(labels.shape)


def _words(tensor: Tensor) -> object:
    return tensor.numpy().view("uint32")


def _shared(entry: Entry, group: int) -> bool:
    """Whether all factors of a group read one table."""
    if isinstance(entry, Weighted):
        return entry.weight.shape[-1] == 1
    arity = 1 if group == 0 else 2
    return entry.dim() == arity or entry.shape[-arity - 1] == 1


def _table(entry: Entry, arity: int) -> Tensor:
    """The table of an entry that all factors share, ``[*batch, L, …]``, in float64."""
    table = entry.expand() if isinstance(entry, Weighted) else entry
    table = table.detach().double()
    return table if table.dim() == arity else table.squeeze(-arity - 1)


def _per_neighbour(table: Tensor) -> Tensor:
    """What label 1 scores above label 0 given a neighbour of label 0, and one of label 1: ``[*batch, 2]``."""
    return table[..., 1] - table[..., 0]


def _chances(model: Model, index: tuple[int, ...], temperature: float) -> Tensor:
    """2³² times the probability of label 1 with 4 neighbours, none to 4 of them of label 1; 3 neighbours; 2."""
    node = entry_of(_table(model.entries[0], 1), 1, index)
    zero, one = _per_neighbour(entry_of(_table(model.entries[1], 2), 2, index)).tolist()
    field = float(node[1] - node[0])
    odds = [field + (n - k) * zero + k * one for n in (4, 3, 2) for k in range(n + 1)]
    chance = (torch.tensor(odds, dtype=torch.float64) / temperature).sigmoid()
    return (chance * 2.0**32).round().clamp(0, 2**32 - 1).long()


def _coefficients(chances: Tensor) -> Tensor:
    """What the kernel takes as ``c``, ``int64 [32, 12]``: the digits of sums of these chances, over {0, 1}."""
    places = torch.arange(31, -1, -1).unsqueeze(1)
    sums = [[0], [0, 1], [0, 2], [0, 1, 2, 3], [0, 4], [5], [5, 6], [5, 7], [5, 6, 7, 8], [9], [9, 10], [9, 11]]
    bits = (chances >> places) & 1
    return torch.stack([bits[:, own].sum(1) & 1 for own in sums], 1) * 0xFFFFFFFF


@lru_cache(maxsize=8)
def _layout(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Words of the nodes there are, and (two such) of those that lack one neighbour or two."""
    lacking = torch.zeros(height, width, dtype=torch.int64)
    for line in (lacking[0], lacking[-1], lacking[:, 0], lacking[:, -1]):
        line.add_(1)
    shape = (2, 2, 2 + (width + 63) // 64, 2 + (height + 1) // 2)
    words = torch.zeros(3, *shape, dtype=torch.int32)
    for place, marked in zip(words, (torch.ones_like(lacking), lacking == 1, lacking == 2), strict=True):
        pack(marked.long().numpy(), _words(place))
    return words[0], words[1:]
