"""Belief propagation, as the maths has it: messages in the log domain, the Bethe free energy, beliefs.

With ``m[f→i]`` the message of factor f to its node i and ``n[i→f]`` the one back (Kschischang, Frey & Loeliger 2001)::

    n[i→f](x) = prior_i(x) + Σ over the other factors g of i of m[g→i](x)
    m[f→i](x) = ln Σ over x_f with x_i = x of exp(s_f(x_f) + Σ over the other nodes j of f of n[j→f](x_j))

``prior`` is 0, or −inf at labels that a node does not have or that were observed otherwise. Max-product has ``max`` for
``ln Σ exp``. All is plain, differentiable torch; −inf needs no care as nothing is ever subtracted from a sum: "all but
one" is a prefix plus a suffix. Tables are read a chunk of factors at a time, so temporaries stay bounded.

Shapes: ``*batch``; M slots (see :mod:`.wiring`); L the largest cardinality; F factors of a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from lnz.ops.belief.wiring import Step, Targets, Wiring, wiring
from lnz.scores import Entry, Model, Weighted
from lnz.typing import IGNORE

CHUNK = 2**20
"""Table entries, over the batch, that are worked on at a time."""

HELD = 1e3
"""Messages are kept within this many times the range of ln Z."""

Reduce = Callable[[Tensor, list[int]], Tensor]
Times = Callable[[Tensor, Tensor], Tensor]


def log_sum(x: Tensor, dims: list[int]) -> Tensor:
    """Logarithm of Σ exp over ``dims``, which are kept; its gradient at ln 0 is 0."""
    top = x.detach().amax(dims, keepdim=True)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    total = (x - top).exp().sum(dims, keepdim=True)
    empty = total == 0
    return (total.masked_fill(empty, 1.0).log() + top).masked_fill(empty, -torch.inf)


def log_max(x: Tensor, dims: list[int]) -> Tensor:
    """Maximum over ``dims``, which are kept."""
    return x.amax(dims, keepdim=True)


def normalised(messages: Tensor, reduce: Reduce) -> Tensor:
    """Messages whose probabilities sum to one (sum-product) or have maximum one (max-product); all −inf stays so."""
    total = reduce(messages, [-1])
    return messages - total.masked_fill(torch.isneginf(total), 0.0)


class Passing:
    """The two halves of a message update for one model. Accumulates in float32 at least.

    Around cycles of factors with −inf scores the same evidence may be counted again and again, and messages grow
    without end. No label of a node is less probable than another by more than all scores of the model can differ, so
    messages are kept to :data:`HELD` times that, except that a label is impossible: the stronger of two sides still
    wins.
    """

    def __init__(self, model: Model, reduce: Reduce) -> None:
        self.model = model
        self.reduce = reduce
        self.wiring: Wiring = wiring(model.graph, model.device)
        self.dtype = torch.promote_types(model.dtype, torch.float32)
        self.batch = model.batch_shape
        allowed = self.wiring.valid
        if model.observed is not None:
            seen = model.observed[..., None]
            allowed = allowed & ((seen == IGNORE) | (seen == torch.arange(allowed.shape[-1], device=seen.device)))
        self.prior = torch.zeros(allowed.shape, dtype=self.dtype, device=model.device).masked_fill(~allowed, -torch.inf)

    @cached_property
    def limits(self) -> tuple[Tensor, Tensor]:
        """Between what ln Z lies where any labelling is possible, float64 ``[*batch]``: sums of lowest and highest
        finite scores, the latter with the number of labellings.
        """
        low = torch.zeros(self.batch, dtype=torch.float64, device=self.model.device)
        high = low + self.wiring.valid.sum(-1).double().log().sum()
        for group, labels in enumerate(self.wiring.labels):
            for piece, table in self.tables(group):
                scores = table.detach().flatten(table.dim() - len(labels)) if labels else table.detach()[..., None]
                impossible = torch.isneginf(scores)
                none = impossible.all(-1)
                least = scores.masked_fill(impossible, torch.inf).amin(-1).masked_fill(none, 0.0)
                most = scores.amax(-1).masked_fill(none, 0.0)
                low = low + least.expand(*least.shape[:-1], length(piece)).sum(-1, dtype=torch.float64)
                high = high + most.expand(*most.shape[:-1], length(piece)).sum(-1, dtype=torch.float64)
        return low, high

    @cached_property
    def reach(self) -> Tensor | None:
        """The most by which a message calls a possible label less probable than others, ``[*batch, 1, 1]``.

        ``None`` where no factor of several nodes holds −inf: a message's range is then at most that of its table.
        """
        if not self.model.constrained:
            return None
        low, high = self.limits
        return (HELD * (high - low)).to(self.dtype)[..., None, None]

    def bounded(self, messages: Tensor) -> Tensor:
        """Normalised messages ``[*batch, c, L]`` that say no more than :attr:`reach`; −inf stays."""
        if self.reach is None:
            return messages
        return torch.where(torch.isneginf(messages), messages, messages.maximum(-self.reach))

    def value(self, messages: Tensor) -> Tensor:
        """ln Z as the messages have it, float64 ``[*batch]``."""
        return bethe(self, messages)

    def initial(self) -> Tensor:
        """Uniform messages ``[*batch, M, L]``; those of factors of one node are final."""
        wiring = self.wiring
        counts = wiring.valid.sum(-1)[wiring.slot_node]
        start = torch.zeros_like(counts, dtype=self.dtype)
        if self.reduce is log_sum:
            start = -counts.to(self.dtype).log()
        start = start[:, None].expand(*self.batch, wiring.num_slots, wiring.max_cardinality).clone()
        return self.send(wiring.unary, start, torch.empty_like(start))

    def nodes(self, tables: tuple[Tensor, ...], messages: Tensor, out: Tensor) -> Tensor:
        """Write ``n[i→f]`` into the slots in ``tables``."""
        for table in tables:
            columns = table.unbind(-1)
            after = self.prior[..., self.wiring.slot_node[columns[0]], :]
            others = []
            for column in reversed(columns):
                others.append(after)
                after = after + messages[..., column, :]
            before: Tensor | float = 0.0
            for column, rest in zip(columns, reversed(others), strict=True):
                sent = before + rest
                out.index_copy_(-2, column, sent.expand(*self.batch, *sent.shape[-2:]))
                before = before + messages[..., column, :]
        return out

    def factors(self, targets: Targets, sent: Tensor) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Slots and their new messages ``m[f→i]``, normalised, ``[*batch, c, L_k]``."""
        for piece, table, incoming in self.chunks(targets.group, sent, targets.factors):
            new = self.outgoing(table, incoming, targets.positions)
            for position in targets.positions:
                yield shifted(piece, self.wiring.slice(targets.group, position).start), new[position]

    def outgoing(self, table: Tensor, incoming: list[Tensor], positions: tuple[int, ...]) -> dict[int, Tensor]:
        """Per wanted position, ``m[f→i]``, normalised."""
        new = all_but_one(table, incoming, positions, torch.add, self.reduce)
        return {position: self.bounded(normalised(message, self.reduce)) for position, message in new.items()}

    def update(self, step: Step, messages: Tensor, sent: Tensor) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Slots of a step and their new messages ``[*batch, c, L_k]``, for the caller to write."""
        self.nodes(step.nodes, messages, sent)
        for targets in step.targets:
            yield from self.factors(targets, sent)

    def send(self, step: Step, messages: Tensor, sent: Tensor) -> Tensor:
        """``messages`` after one undamped step, in place."""
        for slots, new in self.update(step, messages, sent):
            messages[..., slots, : new.shape[-1]] = new
        return messages

    def node_to_factor(self, messages: Tensor) -> Tensor:
        """All ``n[i→f]``, ``[*batch, M, L]``."""
        return self.nodes(self.wiring.everyone, messages, torch.empty_like(messages))

    def node_sums(self, messages: Tensor) -> Tensor:
        """Unnormalised log beliefs of the nodes, ``[*batch, N, L]``."""
        sums = self.prior.expand(*self.batch, *self.prior.shape[-2:])
        return sums.index_add(-2, self.wiring.slot_node, messages)

    def chunks(
        self, group: int, sent: Tensor, factors: Tensor | None = None
    ) -> Iterator[tuple[slice | Tensor, Tensor, list[Tensor]]]:
        """Factors, their table ``[*batch', c or 1, L1, …, Lk]``, and what nodes sent, ``[*batch, c, L_j]`` each."""
        for piece, table in self.tables(group, factors):
            yield piece, table, self.incoming(group, piece, sent)

    def tables(self, group: int, factors: Tensor | None = None) -> Iterator[tuple[slice | Tensor, Tensor]]:
        """Factors and their table ``[*batch', c or 1, L1, …, Lk]``, a piece of the group at a time.

        ``factors`` is ``None`` for the whole group, which is then read in slices, without a copy.
        """
        labels = self.wiring.labels[group]
        size = max(1, CHUNK // max(1, math.prod(labels) * math.prod(self.batch)))
        count = self.wiring.num_factors[group]
        pieces = (
            [slice(i, min(i + size, count)) for i in range(0, count, size)] if factors is None else factors.split(size)
        )
        for piece in pieces:
            yield piece, rows(self.model.entries[group], len(labels), piece).to(self.dtype)

    def incoming(self, group: int, piece: slice | Tensor, sent: Tensor) -> list[Tensor]:
        """What the nodes of some factors sent them, ``[*batch, c, L_j]`` per position j."""
        return [
            sent[..., shifted(piece, self.wiring.slice(group, position).start), :card]
            for position, card in enumerate(self.wiring.labels[group])
        ]


def shifted(piece: slice | Tensor, by: int) -> slice | Tensor:
    return slice(piece.start + by, piece.stop + by) if isinstance(piece, slice) else piece + by


def length(piece: slice | Tensor) -> int:
    return piece.stop - piece.start if isinstance(piece, slice) else len(piece)


def rows(entry: Entry, arity: int, piece: slice | Tensor) -> Tensor:
    """The tables of some factors ``[*batch', c or 1, L1, …, Lk]``; a shared table stays one."""
    if isinstance(entry, Weighted):
        weight = entry.weight if entry.weight.shape[-1] == 1 else entry.weight[..., piece]
        return Weighted(weight, entry.table).expand()
    if entry.dim() == arity:
        return entry.unsqueeze(0)
    axis = entry.dim() - arity - 1
    return entry if entry.shape[axis] == 1 else entry[(slice(None),) * axis + (piece,)]


def along(message: Tensor, position: int, arity: int) -> Tensor:
    """``[*batch, c, L_k]`` viewed with its labels on axis ``position`` of a table."""
    return message.reshape(*message.shape[:-1], *(1,) * position, message.shape[-1], *(1,) * (arity - position - 1))


def joint(table: Tensor, incoming: list[Tensor]) -> Tensor:
    """Unnormalised log beliefs of factors, ``[*batch, c, L1, …, Lk]``."""
    for position, message in enumerate(incoming):
        table = table + along(message, position, len(incoming))
    return table


def all_but_one(
    table: Tensor, incoming: list[Tensor], positions: tuple[int, ...], times: Times, reduce: Reduce
) -> dict[int, Tensor]:
    """For each wanted position, the table times the messages of all other positions, summed over their labels.

    By halves: each half of the axes is summed out once for the other half, which then recurses, so that the whole
    costs little more than two passes over the table.
    """
    arity = len(incoming)
    result: dict[int, Tensor] = {}

    def recurse(table: Tensor, axes: tuple[int, ...]) -> None:
        if len(axes) == 1:
            result[axes[0]] = table.squeeze([axis - arity for axis in range(arity) if axis != axes[0]])
            return
        middle = len(axes) // 2
        for keep, drop in ((axes[:middle], axes[middle:]), (axes[middle:], axes[:middle])):
            if any(axis in positions for axis in keep):
                inner = table
                for axis in drop:
                    inner = times(inner, along(incoming[axis], axis, arity))
                recurse(reduce(inner, [axis - arity for axis in drop]), keep)

    recurse(table, tuple(range(arity)))
    return result


def bethe(passing: Passing, messages: Tensor) -> Tensor:
    """``Σ_f ln Z_f + Σ_i ln Z_i − Σ_(f,i) ln Z_fi``, ``[*batch]`` (Wainwright & Jordan 2008, §4.1).

    Its derivative to the scores, the messages held, is exactly the beliefs of the factors. −inf where any term is.
    """
    sent = passing.node_to_factor(messages)
    at_nodes = log_sum(passing.node_sums(messages), [-1]).squeeze(-1)
    at_slots = log_sum(messages + sent, [-1]).squeeze(-1)
    total, possible = _add_up(at_nodes)
    total = total - _add_up(at_slots)[0]
    for group, labels in enumerate(passing.wiring.labels):
        for piece, table, incoming in passing.chunks(group, sent):
            inner = joint(table, incoming)
            if labels:
                inner = log_sum(inner, list(range(-len(labels), 0)))
            value, finite = _add_up(
                inner.reshape(inner.shape[: inner.dim() - len(labels)]).expand(*passing.batch, length(piece))
            )
            total, possible = total + value, possible & finite
    return total.masked_fill(~possible, -torch.inf)


def _add_up(terms: Tensor) -> tuple[Tensor, Tensor]:
    """The sum over the last axis of what is finite, in float64 (large sums cancel here), and whether all is."""
    empty = torch.isneginf(terms)
    return terms.masked_fill(empty, 0.0).sum(-1, dtype=torch.float64), ~empty.any(-1)


def disagreement(passing: Passing, messages: Tensor) -> Tensor:
    """The most by which beliefs of factors and of their nodes differ about a label, ``[*batch]``; 0 at fixed points."""
    sent = passing.node_to_factor(messages)
    at_slots = normalised(messages + sent, log_sum).exp()
    worst = torch.zeros(passing.batch, dtype=passing.dtype, device=messages.device)
    for group, labels in enumerate(passing.wiring.labels):
        if len(labels) < 2:
            continue
        for piece, table, incoming in passing.chunks(group, sent):
            belief = beliefs(table, incoming)
            for position, card in enumerate(labels):
                others = [axis - len(labels) for axis in range(len(labels)) if axis != position]
                slots = shifted(piece, passing.wiring.slice(group, position).start)
                apart = (belief.sum(others) - at_slots[..., slots, :card]).abs()
                worst = worst.maximum(apart.flatten(-2).amax(-1))
    return worst


def log_normalised(x: Tensor, dims: list[int]) -> Tensor:
    """``log_softmax`` over ``dims``; all −inf stays so."""
    top = x.detach().amax(dims, keepdim=True)
    x = x - top.masked_fill(torch.isneginf(top), 0.0)
    return x - log_sum(x, dims).masked_fill(torch.isneginf(top), 0.0)


def log_node_beliefs(passing: Passing, messages: Tensor) -> Tensor:
    """ln of the beliefs of nodes, ``[*batch, N, L]``; −inf beyond a node's cardinality."""
    return log_normalised(passing.node_sums(messages), [-1])


def node_beliefs(passing: Passing, messages: Tensor) -> Tensor:
    """``[*batch, N, L]``, summing to one over the labels; 0 beyond a node's cardinality."""
    return log_node_beliefs(passing, messages).exp()


def log_beliefs(table: Tensor, incoming: list[Tensor]) -> Tensor:
    """ln of the beliefs of factors ``[*batch, c, L1, …, Lk]``; all −inf where nothing is possible."""
    inner = joint(table, incoming)
    arity = len(incoming)
    return log_normalised(inner, list(range(-arity, 0))) if arity else torch.zeros_like(inner)


def beliefs(table: Tensor, incoming: list[Tensor]) -> Tensor:
    """Beliefs of factors ``[*batch, c, L1, …, Lk]``; all 0 where nothing is possible."""
    return log_beliefs(table, incoming).exp()


def factor_beliefs(passing: Passing, messages: Tensor, group: int) -> Tensor:
    """``[*batch, F, L1, …, Lk]``, summing to one over the labels."""
    return log_factor_beliefs(passing, messages, group).exp()


def log_factor_beliefs(passing: Passing, messages: Tensor, group: int) -> Tensor:
    """ln of the beliefs of the factors of a group, ``[*batch, F, L1, …, Lk]``."""
    labels, count = passing.wiring.labels[group], passing.wiring.num_factors[group]
    sent = passing.node_to_factor(messages)
    parts = [
        log_beliefs(table, incoming).expand(*passing.batch, length(piece), *labels)
        for piece, table, incoming in passing.chunks(group, sent)
    ]
    return torch.cat(parts, len(passing.batch)) if count else sent.new_zeros(*passing.batch, 0, *labels)
