"""Belief propagation on 4-neighbour grids: registration, autograd, and the calls into the kernel.

``lnz::grid_belief`` iterates and gives the Bethe ln Z, node beliefs and messages; ``lnz::grid_belief_gradient`` the
beliefs in the form of the scores, which is its gradient. What is computed is defined by
:mod:`lnz.ops.belief.reference`, through which the second derivative goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnz.graphs import graph_of
from lnz.ops import use_kernels
from lnz.ops.belief.gradient import pulled_back
from lnz.ops.belief.op import Spec, _one_by_one, _put_together, _taken_apart, _warn_unless_converged
from lnz.ops.belief.reference import Passing, log_sum, node_beliefs
from lnz.ops.belief.schedule import Outcome, Run, unrolled
from lnz.ops.grid_belief.forms import FULL, POTTS, TABLE, WEIGHTED, Side, fits, node_scores, side, split_edges
from lnz.scores import Entry, Model, Weighted


def serves(model: Model, run: Run) -> bool:
    """Whether the kernel covers a model: a 4-neighbour grid, not a chain, one dtype, flooding, and kernels allowed.

    While ``torch.compile`` traces, it is left to the general path: which backend is chosen cannot be read there.
    """
    grid = model.graph.grid_layout
    return (
        grid is not None
        and grid.neighbours == 4
        and min(grid.height, grid.width) > 1
        and run.schedule == "flooding"
        and len({tensor.dtype for tensor in model.tensors}) == 1
        and not torch.compiler.is_compiling()
        and use_kernels(*model.tensors)
    )


@dataclass(frozen=True)
class _Prepared:
    """Scores of one model, flat over the batch; see :mod:`.forms`."""

    node: Tensor
    which: Tensor
    top: Tensor
    reach: Tensor
    sides: tuple[Side, Side]
    height: int
    width: int


def _prepared(model: Model) -> _Prepared:
    grid = model.graph.grid_layout
    assert grid is not None
    node, which = node_scores(model)
    high, low = node.amax(-1), node.amin(-1)
    if torch.isneginf(low).any():
        low = node.masked_fill(torch.isneginf(node), torch.inf).amin(-1)
    high = high.masked_fill(torch.isneginf(high), 0.0)
    across, down = split_edges(model)
    return _Prepared(
        node, which, high, (high - low).clamp(min=0).amax(1).double(),
        (side(across, grid.height, grid.width - 1, model.batch_shape),
         side(down, grid.height - 1, grid.width, model.batch_shape)),
        grid.height, grid.width,
    )  # fmt: skip


def _edges(side: Side, domain: tuple[int, ...]) -> tuple[Any, ...]:
    """One side as the kernel's ``(kind, square, weight, full, extent)``."""
    table = side.table
    labels = table.shape[-1]
    extent = table.new_zeros(2)
    weight, full = table.new_zeros(0, 0, 0), table.new_zeros(0, 0, 0, 0, 0)
    square = table.new_zeros(1, 2, labels, (labels + 3) // 4 * 4)
    if side.kind in (POTTS, WEIGHTED):
        assert side.weight is not None
        finite = table[~torch.isneginf(table)]
        if finite.numel():
            extent = torch.stack((finite.min(), finite.max()))
        square[:, 0, :, :labels] = table[:, 0]
        weight = side.weight
    else:
        high = table.amax((-2, -1), keepdim=True)
        shifted = table - high.masked_fill(torch.isneginf(high), 0.0)
        shifted = shifted if domain else shifted.exp_()
        if side.kind == TABLE:
            square = table.new_zeros(len(table), *square.shape[1:])
            square[:, 0, :, :labels] = shifted[:, 0]
            square[:, 1, :, :labels] = shifted[:, 0].mT
        else:
            full = shifted.reshape(len(table), side.rows, side.columns, labels, labels).permute(0, 1, 3, 4, 2)
    return side.kind, *(t.contiguous().numpy() for t in (square, weight, full, extent))


@dataclass
class _Sums:
    """What the kernel adds up over the edges of one side."""

    counts: Tensor
    weights: Tensor
    beliefs: Tensor

    def add(self, other: _Sums, entries: Tensor) -> None:
        """Add those of images to those of the entries they read."""
        if self.counts.numel():
            self.counts[:, 0].index_add_(0, entries if len(self.counts) > 1 else entries * 0, other.counts.sum(1))
        if self.weights.numel():
            self.weights.index_add_(0, entries, other.weights)
        if self.beliefs.numel():
            self.beliefs += other.beliefs

    @classmethod
    def empty(cls, side: Side, images: int, bands: int, wanted: bool) -> _Sums:
        labels, table = side.table.shape[-1], side.table
        counts, weights, beliefs = (images, 2 * bands, 0, 0), (images, 0, 0), (0, 0, 0, 0, 0)
        if wanted and side.kind != FULL:
            counts = (images, 2 * bands, labels, labels)
        if wanted and side.kind in (POTTS, WEIGHTED):
            weights = (images, side.rows, side.columns)
        if wanted and side.kind == FULL:
            beliefs = (len(table), side.rows, side.columns, labels, labels)
        return cls(table.new_zeros(counts), table.new_zeros(weights), table.new_zeros(beliefs))

    @property
    def arrays(self) -> tuple[Any, ...]:
        return self.counts.numpy(), self.weights.numpy(), self.beliefs.numpy()


def _run(
    prepared: _Prepared,
    images: Tensor,
    domain: tuple[int, ...],
    messages: Tensor,
    limit: int,
    tolerance: float,
    damping: float,
    grad: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[_Sums, _Sums]]:
    """Iterate (``limit`` may be 0) and collect: iterations, residual, ln Z without shifts, node beliefs, edge sums."""
    from lnz.ops.grid_belief.cpu import run, use_threads

    threads = use_threads(torch.get_num_threads())
    count, labels = len(images), prepared.node.shape[-1]
    even = count % threads == 0 or count >= 4 * threads
    bands = 1 if even else max(1, min(prepared.height // 4, 4 * threads))
    node = prepared.node - prepared.top[..., None]
    node = (node if domain else node.exp_()).reshape(-1, prepared.height, prepared.width, labels).mT.contiguous()
    sides = prepared.sides
    which = torch.stack([w[images] for w in (prepared.which, sides[0].which, sides[1].which)])
    settings = node.new_tensor([1 if domain else labels, damping, 1 - damping, tolerance])
    sums = tuple(_Sums.empty(s, count, bands, grad is not None) for s in sides)
    factor = node.new_zeros(count) if grad is None else grad[images].to(node.dtype)
    scale = [torch.cat((factor[:, None], s.table[0, 0].flatten().expand(count, -1)), 1).contiguous() for s in sides]
    iterations, residual = torch.zeros(count, dtype=torch.int64), node.new_zeros(count)
    bethe = torch.zeros(count, 2 * bands, 2, dtype=torch.float64)
    beliefs = node.new_empty(count, prepared.height, prepared.width, labels)
    run(
        domain, node.numpy(), which.numpy(), _edges(sides[0], domain), _edges(sides[1], domain), messages.numpy(),
        settings.numpy(), torch.full((count,), limit).numpy(), bands, iterations.numpy(), residual.numpy(),
        True, scale[0].numpy(), scale[1].numpy(), bethe.numpy(), beliefs.numpy(), sums[0].arrays, sums[1].arrays,
    )  # fmt: skip
    total, impossible = bethe.sum(1).unbind(-1)
    total = total.masked_fill(impossible > 0, -torch.inf)
    return iterations, residual, total, beliefs.flatten(1, 2), (sums[0], sums[1])


def _domains(prepared: _Prepared, maximise: bool) -> list[tuple[tuple[int, ...], Tensor]]:
    """Which images to compute in which domain."""
    everything = torch.arange(len(prepared.which))
    if maximise:
        return [((0, 0), everything)]
    safe = fits(prepared.node.dtype, prepared.reach[prepared.which], *prepared.sides)
    return [(domain, images) for domain, images in (((), everything[safe]), ((0,), everything[~safe])) if len(images)]


def _solve(model: Model, limit: int, tolerance: float, damping: float, maximise: bool) -> tuple[Tensor, ...]:
    prepared = _prepared(model)
    count, nodes, labels = len(prepared.which), *prepared.node.shape[1:]
    new = prepared.node.new_empty
    log_z, beliefs = new(count, dtype=torch.float64), new(count, nodes, labels)
    messages = new(4, count, prepared.height, labels, prepared.width)
    iterations, residual = torch.zeros(count, dtype=torch.int64), new(count)
    for domain, images in _domains(prepared, maximise):
        start = 1.0 if not domain else 0.0 if maximise else -math.log(labels)
        part = new(4, len(images), *messages.shape[2:]).fill_(start)
        # what arrives across the border never changes: nothing
        for border in (part[0, ..., 0], part[1, ..., -1], part[2, :, 0], part[3, :, -1]):
            border.fill_(0.0 if domain else 1.0)
        iterations[images], residual[images], log_z[images], beliefs[images], _ = _run(
            prepared, images, domain, part, limit, tolerance, damping, None
        )
        messages[:, images] = part
    shift = prepared.top.double().sum(1)[prepared.which] + sum(s.top[s.which] for s in prepared.sides)
    log_z = (log_z + shift).to(model.dtype)
    beliefs = beliefs.masked_fill(torch.isneginf(log_z)[:, None, None], 0.0)
    batch = model.batch_shape
    return (
        log_z.reshape(batch), beliefs.reshape(*batch, nodes, labels), messages,
        iterations.reshape(batch), residual.reshape(batch),
    )  # fmt: skip


def _pull_back(model: Model, messages: Tensor, log_z: Tensor, grad: Tensor) -> list[Tensor]:
    """Σ over images of ``grad`` times the beliefs, in the forms the scores were given in."""
    prepared = _prepared(model)
    grad = grad.masked_fill(torch.isneginf(log_z), 0.0).reshape(-1)
    at_nodes = torch.zeros(len(grad), *prepared.node.shape[1:], dtype=model.dtype)
    totals = [
        _Sums.empty(s, len(s.table) if s.weight is None else len(s.weight), 1, wanted=True) for s in prepared.sides
    ]
    for domain, chosen in _domains(prepared, maximise=False):
        # where several images read one table per edge, their beliefs are added one image after the other
        shared = any(s.kind == FULL and len(s.table) < len(grad) for s in prepared.sides)
        for images in chosen.split(1) if shared else [chosen]:
            part = messages[:, images].contiguous()
            *_, beliefs, sums = _run(prepared, images, domain, part, 0, 0.0, 0.0, grad)
            at_nodes[images] = beliefs * grad[images, None, None]
            for s, total, added in zip(prepared.sides, totals, sums, strict=True):
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


def _at_nodes(model: Model, total: Tensor) -> list[Tensor]:
    entry = model.entries[0]
    total = total.reshape(*model.batch_shape, *total.shape[1:])
    if not isinstance(entry, Weighted):
        return [total.sum_to_size(entry.shape)]
    table = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
    weight = (total * table).sum(-1).sum_to_size(entry.weight.shape)
    return [weight, (total * entry.weight[..., None]).sum_to_size(table.shape)]


def _at_edges(entry: Entry, total: _Sums) -> list[Tensor]:
    counts = total.counts.sum(1)
    if not isinstance(entry, Weighted):
        return [(total.beliefs if total.beliefs.numel() else counts).reshape(entry.shape)]
    if total.weights.numel():
        return [total.weights.reshape(entry.weight.shape), counts.sum(0)]
    table = entry.table.masked_fill(torch.isneginf(entry.table), 0.0)
    weight = entry.weight.reshape(-1, 1, 1)
    return [(counts * table).sum((1, 2)).reshape(entry.weight.shape), (counts * weight).sum(0)]


@torch.library.custom_op("lnz::grid_belief", mutates_args=())
def _solved(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    graph: int,
    weighted: Sequence[bool],
    batch: Sequence[int],
    max_iterations: int,
    tolerance: float,
    damping: float,
    schedule: str,
    maximise: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    model = _put_together(tensors, observed, graph, weighted, batch)
    result = _solve(model, max_iterations, tolerance, damping, maximise)
    outcome = Outcome(result[2], result[3], result[4])
    _warn_unless_converged(outcome, tolerance, "max-product" if maximise else "sum-product")
    return result  # type: ignore[return-value]


@_solved.register_fake
def _(tensors: Sequence[Tensor], observed: Any, graph: int, weighted: Any, batch: Sequence[int], *_: Any) -> Any:
    new, wiring = tensors[0].new_empty, graph_of(graph)
    grid, labels, count = wiring.grid_layout, wiring.max_cardinality, math.prod(batch)
    assert grid is not None
    messages = new(4, count, grid.height, labels, grid.width)
    return new(batch), new(*batch, wiring.num_nodes, labels), messages, new(batch, dtype=torch.int64), new(batch)


@torch.library.custom_op("lnz::grid_belief_gradient", mutates_args=())
def _gradient(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    messages: Tensor,
    log_z: Tensor,
    grad: Tensor,
    graph: int,
    weighted: Sequence[bool],
    batch: Sequence[int],
) -> list[Tensor]:
    return _pull_back(_put_together(tensors, observed, graph, weighted, batch), messages, log_z, grad)


@_gradient.register_fake
def _(tensors: Sequence[Tensor], *_: Any) -> list[Tensor]:
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors]


def _hold_graph(ctx: Any) -> None:
    """Keep the graph alive as long as the tape: a handle does not, and the caller may have dropped it by then."""
    if not torch.compiler.is_compiling():
        ctx.graph = graph_of(ctx.spec[0])


class _GridBelief(torch.autograd.Function):
    """ln Z, node beliefs, messages, iterations and residual. ln Z has the beliefs as its gradient at fixed messages."""

    @staticmethod
    def forward(spec: Spec, run: tuple[Any, ...], observed: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        return _solved(tensors, observed, *spec, *run)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec, ctx.run, observed, *tensors = inputs
        _hold_graph(ctx)
        log_z, _, messages, iterations, residual = output
        ctx.mark_non_differentiable(messages, iterations, residual)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(observed, messages, iterations, log_z, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, at_beliefs: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        observed, messages, iterations, log_z, *tensors = ctx.saved_tensors
        gradients: list[Tensor | None] = [None] * len(tensors)
        if grad is not None:
            gradients = list(
                _GridGradient.apply(ctx.spec, ctx.run, observed, messages, iterations, log_z.detach(), grad, *tensors)
            )
        if at_beliefs is not None:

            def beliefs(*tensors: Tensor) -> Tensor:
                model = _put_together(tensors, observed, *ctx.spec)
                at = unrolled(model, Run(*ctx.run[:-1]), Outcome(messages, iterations, log_z))
                return node_beliefs(Passing(model, log_sum), at).to(at_beliefs.dtype)

            pulled = torch.func.vjp(beliefs, *tensors)[1](at_beliefs)
            gradients = [p if g is None else g + p for g, p in zip(gradients, pulled, strict=True)]
        return None, None, None, *gradients

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _one_by_one(_GridBelief, info.batch_size, in_dims, inputs)


class _GridGradient(torch.autograd.Function):
    """``grad`` times the beliefs at given messages; its own derivative goes through the iterations that led to them."""

    @staticmethod
    def forward(
        spec: Spec,
        run: Any,
        observed: Tensor | None,
        messages: Tensor,
        iterations: Tensor,
        log_z: Tensor,
        grad: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        return tuple(_gradient(tensors, observed, messages, log_z, grad, *spec))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.spec, ctx.run, observed, messages, iterations, _, grad, *tensors = inputs
        _hold_graph(ctx)
        ctx.save_for_backward(observed, messages, iterations, grad, *tensors)

    @staticmethod
    def backward(ctx: Any, *vectors: Tensor) -> tuple[Tensor | None, ...]:
        observed, messages, iterations, grad, *tensors = ctx.saved_tensors

        def gradient(grad: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            model = _put_together(tensors, observed, *ctx.spec)
            at = unrolled(model, Run(*ctx.run[:-1]), Outcome(messages, iterations, messages))
            return tuple(pulled_back(model, at, grad))

        pull = torch.func.vjp(gradient, grad, *tensors)[1]
        return None, None, None, None, None, None, *pull(vectors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _one_by_one(_GridGradient, info.batch_size, in_dims, inputs)


@dataclass(frozen=True, eq=False)
class GridOutcome:
    """Bethe ln Z ``[*batch]``, node beliefs ``[*batch, N, L]``, messages, iterations and residual ``[*batch]``."""

    log_partition: Tensor
    beliefs: Tensor
    messages: Tensor
    iterations: Tensor
    residual: Tensor


def solved(model: Model, run: Run, *, maximise: bool = False) -> GridOutcome:
    """Iterate to the stopping rule; warns, once, where messages have not converged. ``model`` is one :func:`serves`."""
    settings = (run.max_iterations, run.tolerance, run.damping, run.schedule, maximise)
    return GridOutcome(*_GridBelief.apply(_taken_apart(model), settings, model.observed, *model.tensors))


def slots(model: Model, outcome: GridOutcome, *, maximise: bool = False) -> Tensor:
    """The messages as :mod:`lnz.ops.belief` lays them out, ``[*batch, M, L]``, normalised, in logarithms."""
    messages, labels, batch = outcome.messages, model.graph.max_cardinality, model.batch_shape
    prepared = _prepared(model)
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
