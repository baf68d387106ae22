"""Any factor graph: wiring and scores as the kernel reads them. No score is copied, whatever form it was given in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.ops.conditionals.sites import Order, wiring_of
from lnz.ops.gibbs.bands import across, chunks
from lnz.ops.gibbs.images import batch_indices, key_from
from lnz.scores import Model, Weighted
from lnz.typing import IGNORE

_SHARED = 2**12  # node updates from which threads share the work
_CUT = 2**12  # nodes of one colour from which threads share them


def run(
    model: Model,
    labels: Tensor,
    sweeps: int,
    generator: torch.Generator | None,
    order: Order,
    temperature: float,
    accepted: Tensor | None = None,
) -> Tensor:
    """The labellings after ``sweeps`` sweeps; as :func:`lnz.ops.gibbs.reference.gibbs_sweeps`.

    With ``accepted`` ``int64 [n · batch]`` it is as :func:`lnz.ops.metropolis.reference.metropolis_sweeps`, and each
    chain's number of accepted proposals is added there.
    """
    from lnz.ops.gibbs.cpu.graph import redraw

    graph, nodes = model.graph, model.graph.num_nodes
    key = key_from(generator).numpy().view("uint64")
    indices = batch_indices(model)
    free = torch.zeros(len(indices), 0, dtype=torch.bool)
    if model.observed is not None:
        free = (model.observed == IGNORE).expand(*model.batch_shape, nodes).reshape(-1, nodes)
    wiring = tuple(array.numpy() for array in _wiring(graph))
    held, groups, strides, base = _scores(model)
    beta = torch.tensor([1.0 / temperature], dtype=model.dtype)
    sequence, cuts = _sequence(graph, order)
    state = labels.reshape(-1, nodes).to(torch.int32)
    counts = torch.zeros(0, dtype=torch.int64) if accepted is None else accepted
    cards = torch.tensor(graph.cardinalities)
    scores = tuple(array.numpy() for array in (groups, strides, base))

    def part(images: range, first: int, steps: int, low: int, high: int) -> None:
        redraw(
            state.numpy(), free[images.start % len(indices)].numpy(), cards.numpy(), wiring, *scores, key,
            images.start, images.stop, images.step, first, steps, sequence.numpy(), low, high, beta.numpy(),
            counts.numpy(),
        )  # fmt: skip

    threads = torch.get_num_threads() if len(state) * nodes * sweeps >= _SHARED else 1
    apart = accepted is None  # threads that share an image would have to count together
    if apart and threads > len(state) and max((high - low for low, high in pairwise(cuts)), default=0) >= _CUT:
        for image in range(len(state)):
            group = range(image, image + len(indices), len(indices))  # one image; its step tells the batch entry
            for t in range(sweeps):
                for low, high in pairwise(cuts):
                    step = -(-(high - low) // threads)
                    pieces = [(at, min(at + step, high)) for at in range(low, high, step)]
                    across(partial(_piece, part, group, t), pieces, threads)
    else:
        across(lambda group: part(group, 0, sweeps, 0, nodes), chunks(len(state), len(indices), threads), threads)
    del held
    return state.long().reshape(labels.shape)


def _piece(part: Callable[..., None], images: range, first: int, piece: tuple[int, int]) -> None:
    part(images, first, 1, *piece)


def _sequence(graph: FactorGraph, order: Order) -> tuple[Tensor, list[int]]:
    """The nodes of a sweep in order, −1 for one drawn at random, and where runs of independent ones begin and end."""
    nodes = graph.num_nodes
    if order != "chromatic":
        return torch.full((nodes,), -1) if order == "random" else torch.arange(nodes), []
    if graph not in _coloured:
        colours = wiring_of(graph).colours()
        cuts = torch.tensor([0, *(len(colour) for colour in colours)]).cumsum(0).tolist()
        _coloured[graph] = torch.cat(colours) if colours else torch.zeros(0, dtype=torch.int64), cuts
    return _coloured[graph]


_coloured: WeakKeyDictionary[FactorGraph, tuple[Tensor, list[int]]] = WeakKeyDictionary()
_wirings: WeakKeyDictionary[FactorGraph, tuple[Tensor, ...]] = WeakKeyDictionary()


def _wiring(graph: FactorGraph) -> tuple[Tensor, ...]:
    """The factors around each node and the scopes, as the kernel takes them."""
    if graph not in _wirings:
        nodes, around = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 4, dtype=torch.int32)]
        for group, scope in enumerate(graph.scopes):
            factors, arity = scope.shape
            if arity:
                nodes.append(scope.flatten())
                where = torch.cartesian_prod(torch.arange(factors), torch.arange(arity))
                other = scope.flip(-1).reshape(-1, 1)  # of two; not read where there are more
                around.append(torch.cat((torch.nn.functional.pad(where, (1, 0), value=group), other), -1).int())
        node = torch.cat(nodes)
        counts = torch.bincount(node, minlength=graph.num_nodes)
        starts = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        sizes = torch.tensor([0, *(scope.numel() for scope in graph.scopes)]).cumsum(0)
        scopes = torch.cat([torch.zeros(0, dtype=torch.int64), *(scope.flatten() for scope in graph.scopes)])
        _wirings[graph] = starts, torch.cat(around)[node.argsort(stable=True)].contiguous(), sizes[:-1], scopes
    return _wirings[graph]


def _scores(model: Model) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """The tensors to keep alive, and the kernel's ``groups``, ``strides`` and ``base``."""
    held: list[Tensor] = []
    groups, strides, base = [], [], []

    def placed(tensor: Tensor, event: int) -> tuple[int, int, list[int]]:
        """Address and stride of the factors (0 where one serves all), and each batch entry's beginning."""
        held.append(tensor)
        own = max(0, tensor.dim() - event)
        step = [s if n > 1 else 0 for s, n in zip(tensor.stride()[:own], tensor.shape[:own], strict=True)]
        begin = torch.zeros((), dtype=torch.int64)
        for size, stride in zip(model.batch_shape[len(model.batch_shape) - own :], step, strict=True):
            begin = begin[..., None] + torch.arange(size) * stride
        begins = begin.expand(model.batch_shape).flatten().tolist()
        factors = tensor.stride(own) if tensor.dim() == own + event and tensor.shape[own] > 1 else 0
        return tensor.data_ptr(), factors, begins

    for entry, labels in zip(model.entries, model.graph.labels, strict=True):
        first: Any = len(strides)
        weights: tuple[int, int, list[int]] = (0, 0, [0] * model.batch_shape.numel())
        if isinstance(entry, Weighted):
            weights = placed(entry.weight.detach().to(model.dtype), 1)
        table = (entry.table if isinstance(entry, Weighted) else entry).detach().to(model.dtype)
        shared = table.dim() == len(labels)
        address, step, begins = placed(table[None] if shared else table, len(labels) + 1)
        strides += table.stride()[table.dim() - len(labels) :]
        groups.append([len(labels), first, address, step, *weights[:2]])
        base.append([begins, weights[2]])
    count = len(groups)
    batch = model.batch_shape.numel()
    return (
        held, torch.tensor(groups, dtype=torch.int64).reshape(count, 6), torch.tensor(strides, dtype=torch.int64),
        torch.tensor(base, dtype=torch.int64).reshape(count, 2, batch).permute(1, 2, 0).contiguous(),
    )  # fmt: skip
