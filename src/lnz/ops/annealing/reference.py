"""Annealing and tempering in plain torch: any device and dtype.

What is impossible costs more here than all else together, but no more than that: chains may start at an impossible
labelling, and pass through one. See :mod:`lnz.ops.softened`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.ops.annealing.records import Replicas
from lnz.ops.conditionals.random import categorical, integers, uniform
from lnz.ops.conditionals.reference import label_scores
from lnz.ops.conditionals.sites import Sites, schedule
from lnz.ops.softened import softened
from lnz.scores import Model
from lnz.typing import IGNORE

EVERY = 10  # sweeps of tempering between looks at what could be better in the best labelling


def anneal(
    model: Model, labels: Tensor, temperatures: Sequence[float], generator: torch.Generator | None = None
) -> Tensor:
    """The best labelling that each chain met at the end of a sweep, or at its start (Geman and Geman 1984).

    At each temperature every node, in order, is drawn from the softmax of its scores given all others, divided by the
    temperature. In float64; O(Σ_f k_f · L) time per sweep and chain.

    Args:
        model: observed nodes keep their labels.
        labels: ``int64 [n, *batch, N]``, in range, observed entries as observed.
        temperatures: positive, one per sweep.
        generator: of the random numbers; ``None`` is torch's default one.
    """
    model = softened(model)
    sets = schedule(model.graph, "systematic", labels.device)
    best, labels = labels.clone(), labels.clone()
    top = model.score(labels)
    for temperature in temperatures:
        _sweep(model, labels, labels.new_full((), temperature, dtype=torch.float64), sets, generator)
        score = model.score(labels)
        better = score > top
        best, top = torch.where(better[..., None], labels, best), torch.where(better, score, top)
    return best


def temper(
    model: Model,
    replicas: Replicas,
    temperatures: Sequence[float],
    sweeps: int,
    generator: torch.Generator | None = None,
) -> Replicas:
    """The replicas after ``sweeps`` rounds of parallel tempering with isoenergetic cluster moves.

    A round is a Gibbs sweep of every replica; a cluster move at each temperature; and, in each of the two rows, an
    exchange of neighbouring temperatures by Metropolis' rule (Hukushima and Nemoto 1996). A cluster holds nodes at
    which the two replicas differ and that factors connect; exchanged as a whole, it leaves the sum of both scores as it
    was, whatever the factors are (Houdayer 2001; Zhu, Ochoa and Katzgraber 2015). Every ten rounds, each cluster of a
    replica that would make the best labelling better is taken over into it.

    In float64; O(R · Σ_f k_f · L) time per round, and memory for the scores of every label of all replicas.

    Args:
        model: observed nodes keep their labels.
        replicas: where to go on from.
        temperatures: R of them, positive, rising.
        sweeps: rounds.
        generator: of the random numbers; ``None`` is torch's default one.
    """
    model, joined = softened(model), _joined(model)
    labels, best = replicas.labels.clone(), replicas.best.clone()
    warmth = torch.tensor(temperatures, dtype=torch.float64, device=labels.device)
    for own, top in zip(labels, best, strict=True):
        _run(model, joined, own, top, warmth, sweeps, generator)
    return Replicas(labels, best)


def _run(
    model: Model,
    joined: list[set[int]],
    labels: Tensor,
    best: Tensor,
    warmth: Tensor,
    sweeps: int,
    generator: torch.Generator | None,
) -> None:
    """One run: ``labels [2, R, *batch, N]`` and ``best [*batch, N]`` in place."""
    graph, R, entries = model.graph, len(warmth), model.batch_shape.numel()
    sets = schedule(graph, "systematic", labels.device)
    for t in range(1, sweeps + 1):
        _sweep(model, labels, warmth.reshape(R, *(1,) * len(model.batch_shape)), sets, generator)
        rows = labels.reshape(2, R, entries, graph.num_nodes)  # a view
        for r, entry in itertools.product(range(R), range(entries)):
            one, two = rows[0, r, entry], rows[1, r, entry]
            start = int(integers(graph.num_nodes, (), labels.device, generator))
            if one[start] != two[start]:
                nodes = _cluster(joined, start, one != two)
                if len(nodes) <= graph.num_nodes // 2:
                    one[nodes], two[nodes] = two[nodes], one[nodes]
        for h, r, entry in itertools.product(range(2), range(R - 1), range(entries)):
            score = model.score(labels).reshape(2, R, entries)[h, :, entry]
            gain = (1 / warmth[r] - 1 / warmth[r + 1]) * (score[r + 1] - score[r])
            if uniform((), gain, generator) < gain.exp():
                rows[h, [r, r + 1], entry] = rows[h, [r + 1, r], entry]
        if t % EVERY == 0:
            for entry in range(entries):
                _take_over(model, joined, rows[:, :, entry].flatten(0, 1), best.reshape(entries, -1)[entry], entry)


def _sweep(
    model: Model, labels: Tensor, temperature: Tensor, sets: Sequence[Sites], generator: torch.Generator | None
) -> None:
    """Draw every node given all others, in place."""
    for sites in sets:
        drawn = categorical(label_scores(model, labels, sites) / temperature[..., None, None], generator)
        if model.observed is not None:
            drawn = torch.where(model.observed[..., sites.nodes] == IGNORE, drawn, labels[..., sites.nodes])
        labels[..., sites.nodes] = drawn


def _joined(model: Model) -> list[set[int]]:
    """Which nodes share a factor with each."""
    joined: list[set[int]] = [set() for _ in range(model.graph.num_nodes)]
    for scope in model.graph.scopes:
        for nodes in scope.tolist():
            for node in nodes:
                joined[node].update(nodes)
    return joined


def _cluster(joined: list[set[int]], start: int, differ: Tensor) -> Tensor:
    """The nodes that factors connect with ``start`` through nodes where ``differ [N]`` holds, ``int64``."""
    reached, ahead = {start}, [start]
    while ahead:
        new = {node for node in joined[ahead.pop()] if differ[node]} - reached
        reached |= new
        ahead += new
    return torch.tensor(sorted(reached), device=differ.device)


def _take_over(model: Model, joined: list[set[int]], labels: Tensor, best: Tensor, entry: int) -> None:
    """Give ``best [N]`` every cluster of the ``labels [n, N]`` that makes it better, in place."""

    def score(labelling: Tensor) -> Tensor:
        return model.score(labelling.expand(*model.batch_shape, -1)).reshape(-1)[entry]

    for other in labels:
        left = set((other != best).nonzero().flatten().tolist())
        while left:
            nodes = _cluster(joined, min(left), other != best)
            left -= set(nodes.tolist())
            changed = best.clone()
            changed[nodes] = other[nodes]
            if score(changed) > score(best):
                best.copy_(changed)
