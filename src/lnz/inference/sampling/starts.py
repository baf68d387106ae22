"""Where chains start: random labellings of finite score."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import check_feasible
from lnz.errors import FailedEstimateError
from lnz.inference.exact.constraints import starting_part
from lnz.ops.conditionals.alone import node_scores
from lnz.ops.conditionals.random import categorical, integers
from lnz.ops.gibbs.op import gibbs_sweeps
from lnz.scores import Entry, Model, Weighted, as_labelling
from lnz.typing import IGNORE

ROUNDS = 20
"""A search for a possible labelling goes through this many rounds …"""
SWEEPS = 20
"""… of this many sweeps each, in which the price of an impossible factor grows."""


def starts(model: Model, n: int, generator: torch.Generator | None, labels: Tensor | None) -> Tensor:
    """``int64 [n, *batch, N]`` labellings of finite score; see :meth:`lnz.inference.Sampler.init`.

    Free nodes are drawn from their own scores, each alone. Where that is impossible jointly, Gibbs sweeps over a
    model in which every −inf of factors of two and more nodes is a finite, growing price, and other scores are 0, look
    for a possible labelling (min-conflicts, annealed). A chain that finds none starts where another of its batch
    entry does; where none does, all are drawn from the part of the model that holds −inf, as far as that can be solved
    exactly.

    Raises:
        InfeasibleError: no labelling is possible, which is proved, or the given ones are not.
        FailedEstimateError: none was found, which is no proof.
    """
    if n < 1:
        raise ValueError(f"n: expected a positive number of chains, got {n}")
    shape = (n, *model.batch_shape, model.graph.num_nodes)
    if labels is not None:
        labels = as_labelling("labels", model.graph, labels, torch.Size(shape[:-1]))
        labels = labels.to(model.device).expand(shape)
        if model.observed is not None:
            labels = torch.where(model.observed == IGNORE, labels, model.observed)
        model = Model(model.graph, model.entries, labels)
    start = labels
    if not model.graph.num_nodes:
        start = torch.zeros(shape, dtype=torch.int64, device=model.device)
    elif start is None or (start == IGNORE).any():
        scores = node_scores(model)
        check_feasible(_reduced(scores.amax(-1).amin(-1), model, shape), "init", "a node has no possible label")
        start = categorical(scores.expand(*shape, -1), generator)
    possible = torch.isfinite(model.precise_score(start))
    if not possible.all() and (labels is None or (labels == IGNORE).any()):
        start, possible = _repaired(model, start, possible, generator)
        if labels is None:
            start, possible = shared(start, possible, generator)
        if not possible.all():
            start, possible = _from_constraints(model, start, possible, generator)
            if not possible.all():
                failed = (~possible.all(0)).reshape(-1).nonzero().flatten().tolist()
                raise FailedEstimateError(
                    f"init: found no labelling of finite score in {ROUNDS * SWEEPS} sweeps, which does not show that "
                    f"there is none, in batch entries {failed}; pass labels to start from"
                )
    if not possible.all():
        found = torch.zeros(possible.shape[1:], device=possible.device).masked_fill(~possible.all(0), -torch.inf)
        check_feasible(found, "init", "the labels to start from have score -inf")
    return start.clone()


def _reduced(values: Tensor, model: Model, shape: tuple[int, ...]) -> Tensor:
    """Over the chains, where each has labels of its own."""
    return values.amin(0) if len(model.batch_shape) == len(shape) - 1 else values


def _from_constraints(
    model: Model, start: Tensor, possible: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draws from the factors with −inf, or a forest of them, for the chains that are not ``possible`` yet."""
    part = starting_part(model)
    shape = tuple(start.shape[:-1])
    check_feasible(_reduced(part.log_partition, model, (*shape, 0)), "init")
    own = len(model.batch_shape) == len(shape)  # each chain has labels of its own that it must keep
    drawn = part.draw(1, generator)[0] if own else part.draw(len(start), generator)
    start = torch.where(possible[..., None], start, drawn)
    return start, possible | torch.isfinite(model.precise_score(start))


def _repaired(
    model: Model, start: Tensor, possible: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Sweeps of the chains that are not ``possible`` yet, until all are or the rounds are over."""
    for sweep in range(ROUNDS * SWEEPS):
        price = 0.5 * (1 + sweep % SWEEPS)
        entries = tuple(
            _priced(entry, price, k) for entry, k in zip(model.entries, map(len, model.graph.labels), strict=True)
        )
        priced = Model(model.graph, entries, model.observed)
        own = len(model.batch_shape) == start.dim() - 1  # each chain has labels of its own that it must keep
        moved = gibbs_sweeps(priced, start[None], 1, generator)[0] if own else gibbs_sweeps(priced, start, 1, generator)
        start = torch.where(possible[..., None], start, moved)
        possible = torch.isfinite(model.precise_score(start))
        if possible.all():
            break
    return start, possible


def _priced(entry: Entry, price: float, arity: int) -> Entry:
    if isinstance(entry, Weighted):
        return Weighted(entry.weight, _priced_table(entry.table, price, arity))
    return _priced_table(entry, price, arity)


def _priced_table(scores: Tensor, price: float, arity: int) -> Tensor:
    impossible = torch.isneginf(scores)
    return torch.zeros_like(scores).masked_fill(impossible, -torch.inf if arity <= 1 else -price)


def shared(start: Tensor, possible: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Chains that found nothing go where a random chain of their batch entry is that did."""
    n = len(start)
    offset = integers(n, tuple(possible.shape), start.device, generator)
    rank = (torch.arange(n, device=start.device).reshape(-1, *(1,) * (possible.dim() - 1)) + offset) % n
    rank = rank.masked_fill(~possible, n)
    donor = rank.argmin(0, keepdim=True).expand_as(possible)
    found = start.gather(0, donor[..., None].expand_as(start))
    return torch.where(possible[..., None], start, found), possible | possible.any(0)
