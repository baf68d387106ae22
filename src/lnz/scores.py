"""The scores of a factor graph, in the compact forms a user gives them.

One entry per group of factors, in one of three forms:

- a tensor ``[*batch, F, L1, …, Lk]`` (F may be 1, to broadcast): every factor has a table of its own;
- a tensor ``[L1, …, Lk]``: one table shared by the group and the batch;
- :class:`Weighted`: one table, scaled by a weight per factor (a contrast-sensitive Potts model, say).

Compact forms stay compact: only :meth:`Model.expanded` writes a table per factor, and shared tables stay views there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lnz.checks import (
    as_labels,
    broadcast_shapes,
    check_broadcast,
    check_event_shape,
    check_labels,
    check_scores,
    check_tensor,
    common_dtype,
    concrete,
    working_dtype,
)
from lnz.graphs import FactorGraph
from lnz.typing import IGNORE


@dataclass(frozen=True, eq=False)
class Weighted:
    """Scores ``weight[..., f] * table[l1, …, lk]``, never expanded unless asked for.

    Args:
        weight: ``[*batch, F]`` (F may be 1), finite.
        table: ``[L1, …, Lk]``; −inf entries stay −inf where the weight is positive, and are refused where it is not.
    """

    weight: Tensor
    table: Tensor

    def expand(self) -> Tensor:
        """The scores as one tensor ``[*batch, F, L1, …, Lk]``."""
        impossible = torch.isneginf(self.table)  # kept out of the product: 0 · −inf would be the weight's gradient
        weight = self.weight.reshape(*self.weight.shape, *(1,) * self.table.dim())
        return (weight * self.table.masked_fill(impossible, 0.0)).masked_fill(impossible, -torch.inf)


Entry = Tensor | Weighted
"""The scores of one group of factors."""


@dataclass(frozen=True, eq=False)
class Model:
    """A factor graph with its scores and what has been observed: all that an inference method needs to know.

    Attributes:
        graph: the wiring.
        entries: one :data:`Entry` per group, checked against the graph.
        observed: ``int64 [*batch, N]`` labels, −100 where unobserved, or ``None`` where nothing is observed.
        batch_shape: the joint batch shape of entries and observed labels.
    """

    graph: FactorGraph
    entries: tuple[Entry, ...]
    observed: Tensor | None = None
    batch_shape: torch.Size = field(init=False)

    def __post_init__(self) -> None:
        shapes = [_batch_shape(entry, labels) for entry, labels in zip(self.entries, self.graph.labels, strict=True)]
        if self.observed is not None:
            shapes.append(self.observed.shape[:-1])
        object.__setattr__(self, "batch_shape", broadcast_shapes(*shapes))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every score tensor, in order: the leaves that gradients flow to."""
        return tuple(t for e in self.entries for t in ((e.weight, e.table) if isinstance(e, Weighted) else (e,)))

    @property
    def dtype(self) -> torch.dtype:
        """That of the answers: what torch promotes the scores to."""
        return common_dtype(*self.tensors)

    @property
    def device(self) -> torch.device:
        return self.tensors[0].device if self.entries else torch.device("cpu")

    @cached_property
    def constrained(self) -> bool:
        """Whether a factor of several nodes holds −inf: labels of theirs that do not go together."""
        several = [entry for entry, labels in zip(self.entries, self.graph.labels, strict=True) if len(labels) > 1]
        tables = (entry.table if isinstance(entry, Weighted) else entry for entry in several)
        return any(bool(torch.isneginf(table.detach()).any()) for table in tables)

    def expanded(self, group: int) -> Tensor:
        """The scores of one group as ``[*batch, F, L1, …, Lk]``; a view wherever the form allows."""
        entry, labels = self.entries[group], self.graph.labels[group]
        scores = entry.expand() if isinstance(entry, Weighted) else entry
        return scores.expand(*self.batch_shape, self.graph.num_factors[group], *labels)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Model:
        """The model with ``function`` applied to the score tensors of each entry; a :class:`Weighted`, to its table."""
        return self.with_entries(
            Weighted(entry.weight, function(entry.table)) if isinstance(entry, Weighted) else function(entry)
            for entry in self.entries
        )

    def with_entries(self, entries: Iterable[Entry]) -> Model:
        """The same graph and observations with other scores."""
        return Model(self.graph, tuple(entries), self.observed).expand(self.batch_shape)

    def expand(self, batch_shape: Sequence[int]) -> Model:
        """The model with its batch shape broadcast with ``batch_shape``; nothing is copied."""
        shape = broadcast_shapes(batch_shape, self.batch_shape)
        if shape == self.batch_shape:
            return self
        model = Model(self.graph, self.entries, self.observed)
        object.__setattr__(model, "batch_shape", shape)
        return model

    def working(self) -> Model:
        """The model with all scores in one dtype, that of :func:`working_dtype`. Itself, where it is so."""
        dtype = working_dtype(self.dtype, *self.tensors)
        if all(tensor.dtype == dtype for tensor in self.tensors):
            return self
        return self.with_entries(
            Weighted(entry.weight.to(dtype), entry.table.to(dtype)) if isinstance(entry, Weighted) else entry.to(dtype)
            for entry in self.entries
        )

    def centred(self) -> tuple[Model, Tensor]:
        """The working model with the largest score of each table taken away, and their sum, ``[*batch]`` float64.

        The sum is the same for all labellings, so that nothing but ln Z changes, by this sum; and scores that have a
        large offset in common keep the digits in which they differ. The constants have no gradients.
        """
        model = self.working()
        shift = torch.zeros(self.batch_shape, dtype=torch.float64, device=self.device)
        entries: list[Entry] = []
        for entry, labels, factors in zip(model.entries, model.graph.labels, model.graph.num_factors, strict=True):
            table = entry.table if isinstance(entry, Weighted) else entry
            if not table.numel():
                entries.append(entry)
                continue
            axes = tuple(range(-len(labels), 0))
            top = table.detach().amax(axes, keepdim=True) if axes else table.detach()
            top = top.masked_fill(torch.isneginf(top), 0.0)
            each = top.reshape(top.shape[: top.dim() - len(labels)]).double()
            if isinstance(entry, Weighted):
                entries.append(Weighted(entry.weight, table - top))
                each = each * entry.weight.double()
            else:
                entries.append(table - top)
            shift = shift + (each * factors if not each.dim() else each.sum(-1) * (factors // max(1, each.shape[-1])))
        return model.with_entries(entries), shift

    def map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Model:
        """The model with a linear ``function(scores, axes)`` per batch entry applied: to ``[*batch, F, L1, …, Lk]``.

        A table that the group shares is given F = 1; of a :class:`Weighted` the weight ``[*batch, F]`` is given.
        """

        def mapped(entry: Entry, k: int) -> Entry:
            if isinstance(entry, Weighted):
                return Weighted(function(entry.weight, 1), entry.table)
            return function(entry.unsqueeze(0) if entry.dim() == k else entry, k + 1)

        pairs = zip(self.entries, self.graph.labels, strict=True)
        return self.with_entries(mapped(entry, len(labels)) for entry, labels in pairs)

    def score(self, labelling: Tensor) -> Tensor:
        """``s(y) = Σ_α s[α, y[α]]``, shape ``[*batch]``, for a full labelling ``[*batch, N]``; O(F) time and memory.

        Added up in float64 and rounded once. −inf where the labelling contradicts what was observed.
        """
        return self.precise_score(labelling).to(self.dtype)

    def precise_score(self, labelling: Tensor) -> Tensor:
        """:meth:`score` in float64, as it is added up."""
        batch = broadcast_shapes(labelling.shape[:-1], self.batch_shape)
        total = torch.zeros(batch, dtype=torch.float64, device=self.device)
        for group, entry in enumerate(self.entries):
            terms = _gather(entry, labelling[..., self.graph.scopes[group].to(labelling.device)])
            total = total + terms.sum(-1, dtype=torch.float64)
        if self.observed is not None:
            contradicts = ((self.observed != IGNORE) & (self.observed != labelling)).any(-1)
            total = total.masked_fill(contradicts, -torch.inf)
        return total


def checked_model(graph: FactorGraph, scores: Sequence[Entry], *, values: bool = True) -> Model:
    """A :class:`Model` of user input.

    Raises:
        TypeError: an entry is neither a floating point tensor nor :class:`Weighted`.
        ValueError: wrong number of entries, wrong shapes, NaN or +inf (unless ``values=False``).
    """
    if isinstance(scores, Tensor | Weighted):
        raise TypeError(f"scores: expected a sequence of {graph.num_groups} entries, one per group, got one entry")
    entries = tuple(scores)
    if len(entries) != graph.num_groups:
        raise ValueError(
            f"scores: expected one entry per group of factors, {graph.num_groups} in all, got {len(entries)}"
        )
    for group, entry in enumerate(entries):
        _check_entry(graph, group, entry, values)
    try:
        return Model(graph, entries)
    except RuntimeError as error:
        shapes = [list(_batch_shape(e, ls)) for e, ls in zip(entries, graph.labels, strict=True)]
        raise ValueError(f"scores: expected batch shapes that broadcast together, got {shapes}") from error


def observe(model: Model, labelling: Tensor) -> Model:
    """The model with the entries of ``labelling`` that are not −100 clamped, on top of what was observed before.

    Where it contradicts what was observed before, no labelling is possible.

    Raises:
        ValueError: wrong shape, or a label out of range.
    """
    return clamped(model, as_labelling("y", model.graph, labelling, model.batch_shape))


def clamped(model: Model, labelling: Tensor) -> Model:
    """:func:`observe`, of a labelling that has been checked."""
    observed = labelling
    if model.observed is not None:
        before, now = torch.broadcast_tensors(model.observed, labelling)
        clash = ((before != IGNORE) & (now != IGNORE) & (before != now)).any(-1)
        if not concrete(clash) or clash.any():
            model = _impossible(model, clash)
        observed = torch.where(now != IGNORE, now, before)
    return Model(model.graph, model.entries, observed).expand(model.batch_shape)


def _impossible(model: Model, where: Tensor) -> Model:
    """The model in which no labelling of the batch entries ``where`` ``[*batch]`` has a finite score.

    By −inf in one group of factors, the smallest: the others stay as compact as they are.
    """
    sizes = {g: f * math.prod(model.graph.labels[g]) for g, f in enumerate(model.graph.num_factors) if f}
    if not sizes:
        raise ValueError("y: expected no contradiction with earlier observations in a model without factors")
    group = min(sizes, key=lambda g: sizes[g])
    scores, entries = model.expanded(group), list(model.entries)
    entries[group] = torch.where(
        where.reshape(*where.shape, *[1] * (scores.dim() - len(model.batch_shape))), -torch.inf, scores
    )
    return model.with_entries(entries)


def as_labelling(name: str, graph: FactorGraph, labelling: Tensor, batch_shape: torch.Size) -> Tensor:
    """``labelling`` as ``int64 [*batch, N]``; raises unless its labels are in range or −100."""
    check_tensor(name, labelling)
    check_event_shape(name, labelling.shape, (graph.num_nodes,))
    check_broadcast(name, labelling.shape[:-1], batch_shape)
    labelling = as_labels(name, labelling)
    check_labels(name, labelling, torch.tensor(graph.cardinalities, device=labelling.device))
    return labelling


def _batch_shape(entry: Entry, labels: tuple[int, ...]) -> torch.Size:
    if isinstance(entry, Weighted):
        return entry.weight.shape[:-1]
    return entry.shape[: max(0, entry.dim() - len(labels) - 1)]


def _check_entry(graph: FactorGraph, group: int, entry: Entry, values: bool) -> None:
    name = f"scores[{group}]"
    labels, factors = graph.labels[group], graph.num_factors[group]
    table = ", ".join(map(str, labels))
    if isinstance(entry, Weighted):
        if entry.table.shape != labels:
            raise ValueError(f"{name}.table: expected shape [{table}], got {list(entry.table.shape)}")
        if entry.weight.dim() == 0 or entry.weight.shape[-1] not in (1, factors):
            raise ValueError(f"{name}.weight: expected shape [*batch, {factors}], got {list(entry.weight.shape)}")
        if values:
            check_scores(f"{name}.table", entry.table)
            check_scores(f"{name}.weight", entry.weight)
            if concrete(entry.table, entry.weight):
                _check_impossible(name, entry)
        return
    if not isinstance(entry, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor or lnz.Weighted, got {type(entry).__name__}")
    k = len(labels)
    shared = entry.shape == torch.Size(labels)
    own = entry.dim() > k and tuple(entry.shape[-k - 1 :][1:]) == labels and entry.shape[-k - 1] in (1, factors)
    if not (shared or own):
        shared_form = f" or [{table}]" if labels else ""
        full_form = ", ".join(map(str, ("*batch", factors, *labels)))
        raise ValueError(f"{name}: expected shape [{full_form}]{shared_form}, got {list(entry.shape)}")
    if values:
        check_scores(name, entry)


def _check_impossible(name: str, entry: Weighted) -> None:
    """A weight must keep −inf what it is, and not be it."""
    if torch.isneginf(entry.table).any() and not (entry.weight > 0).all():
        raise ValueError(f"{name}: a table with -inf needs positive weights, got {entry.weight.min().item()}")
    if torch.isneginf(entry.weight).any():
        raise ValueError(f"{name}.weight: expected finite weights, got -inf")


def _gather(entry: Entry, labels: Tensor) -> Tensor:
    """The score of each factor under its joint label; ``labels`` is ``[*batch, F, k]``, the result ``[*batch, F]``."""
    k = labels.shape[-1]
    joint = labels.unbind(-1)
    if isinstance(entry, Weighted):
        table = entry.table[joint]
        impossible = torch.isneginf(table)
        product = entry.weight.double() * table.double().masked_fill(impossible, 0.0)
        return product.masked_fill(impossible, -torch.inf)
    if entry.dim() == k:
        return entry[joint] if k else entry.expand(labels.shape[:-1])
    if k == 0:
        return entry.expand(broadcast_shapes(entry.shape, labels.shape[:-1]))
    shape = broadcast_shapes(entry.shape[:-k], labels.shape[:-1])
    index = torch.zeros(labels.shape[:-1], dtype=torch.int64, device=labels.device)
    for label, size in zip(joint, entry.shape[-k:], strict=True):
        index = index * size + label
    flat = entry.flatten(-k).expand(*shape, -1)
    return flat.gather(-1, index.expand(shape).unsqueeze(-1)).squeeze(-1)
