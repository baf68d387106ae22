"""Any factor graph: wiring and scores as the kernel reads them. No score is copied, whatever form it was given in."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lnz.graphs import FactorGraph
from lnz.ops.conditionals.sites import Order, wiring_of
from lnz.ops.gibbs.cpu.bands import across, chunks
from lnz.ops.gibbs.cpu.redraw import Chains, Factors, Turn, redraw
from lnz.ops.philox import key_from
from lnz.scores import Model, Weighted
from lnz.typing import IGNORE

_SHARED = 2**12  # node updates from which threads share the work
_CUT = 2**12  # nodes of one colour from which threads share them


def gibbs_sweeps(
    model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, order: Order, temperature: float
) -> Tensor:
    """The labellings after ``sweeps`` sweeps; as :func:`lnz.ops.gibbs.reference.gibbs_sweeps`."""
    run = Run(model, labels, generator, order, temperature)
    threads = torch.get_num_threads() if run.states.numel() * sweeps >= _SHARED else 1
    if threads > len(run.states) and max((high - low for low, high in pairwise(run.cuts)), default=0) >= _CUT:
        run.in_pieces(sweeps, threads)
    else:
        run.whole(sweeps, threads)
    return run.states.long().reshape(labels.shape)


def metropolis_sweeps(
    model: Model, labels: Tensor, sweeps: int, generator: torch.Generator | None, order: Order
) -> tuple[Tensor, Tensor]:
    """The labellings, and the number of accepted proposals; as :func:`lnz.ops.metropolis.op.metropolis_sweeps`."""
    accepted = torch.zeros(labels.shape[:-1], dtype=torch.int64)
    run = Run(model, labels, generator, order, 1.0, accepted.view(-1))
    run.whole(sweeps, torch.get_num_threads() if run.states.numel() * sweeps >= _SHARED else 1)
    return run.states.long().reshape(labels.shape), accepted.to(torch.get_default_dtype())


class Run:
    """The arrays of a run. ``states`` are the labels ``int32 [images, N]``.

    With ``accepted`` ``int64 [images]`` nodes are offered labels by the rule of Metropolis, and each image's number of
    accepted proposals is added there.
    """

    def __init__(
        self,
        model: Model,
        labels: Tensor,
        generator: torch.Generator | None,
        order: Order,
        temperature: float,
        accepted: Tensor | None = None,
    ) -> None:
        nodes = model.graph.num_nodes
        self.key, self.entries = key_from(generator), model.batch_shape.numel()
        self.states = labels.reshape(-1, nodes).to(torch.int32)
        sequence, self.cuts = _sequence(model.graph, order)
        self.sequence = sequence.numpy()
        free = torch.zeros(self.entries, 0, dtype=torch.bool)
        if model.observed is not None:
            free = (model.observed == IGNORE).expand(*model.batch_shape, nodes).reshape(-1, nodes)
        counts = torch.zeros(0, dtype=torch.int64) if accepted is None else accepted
        self.chains = [Chains(self.states.numpy(), own.numpy(), counts.numpy()) for own in free]
        self.held, *scores = _scores(model)
        beta = torch.tensor([1.0 / temperature], dtype=model.dtype)
        arrays = torch.tensor(model.graph.cardinalities), *_wiring(model.graph), *scores, beta
        self.factors = Factors(*(array.numpy() for array in arrays))

    def part(self, images: range, first: int, steps: int, low: int, high: int) -> None:
        """Sweeps ``first`` … ``first + steps − 1`` of places ``low`` … ``high − 1`` of images of one batch entry."""
        turn = Turn(images.start, images.stop, images.step, first, steps, low, high)
        redraw(self.factors, self.chains[images.start % self.entries], self.sequence, turn, self.key)

    def whole(self, sweeps: int, threads: int) -> None:
        """Threads share the images."""
        images, nodes = self.states.shape
        across(lambda some: self.part(some, 0, sweeps, 0, nodes), chunks(images, self.entries, threads), threads)

    def in_pieces(self, sweeps: int, threads: int) -> None:
        """Threads share the nodes of each colour of one image; they would have to count together."""
        for image in range(len(self.states)):
            group = range(image, image + self.entries, self.entries)  # one image; its step tells the batch entry
            for t in range(sweeps):
                for low, high in pairwise(self.cuts):
                    step = -(-(high - low) // threads)
                    pieces = [(at, min(at + step, high)) for at in range(low, high, step)]
                    across(partial(self._piece, group, t), pieces, threads)

    def _piece(self, images: range, first: int, piece: tuple[int, int]) -> None:
        self.part(images, first, 1, *piece)


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
        groups.append([len(labels), first, address, step, *weights[:2]])  # in the order of the kernel's ARITY …
        base.append([begins, weights[2]])
    count = len(groups)
    batch = model.batch_shape.numel()
    return (
        held, torch.tensor(groups, dtype=torch.int64).reshape(count, 6), torch.tensor(strides, dtype=torch.int64),
        torch.tensor(base, dtype=torch.int64).reshape(count, 2, batch).permute(1, 2, 0).contiguous(),
    )  # fmt: skip
