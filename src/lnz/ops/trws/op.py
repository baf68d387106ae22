"""Sweeps until the bound meets the best labelling found, or stops moving."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lnz.ops.dispatch import Kernels
from lnz.ops.layout import Ints
from lnz.ops.trws.reference import Messages
from lnz.scores import Model

KERNELS = Kernels("trws")
KERNELS.register("cpu", "lnz.ops.trws.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))

T = TypeVar("T")
Turn = Callable[[bool], tuple[float, float, Ints]]
"""A pass over the nodes, there or back: the bound, the score of a labelling, the labelling ``int64 [N]``."""
EVERY = 10  # iterations between looks at the progress
ROUNDING = 1e-9  # of the sum of many float64 scores, as a fraction of the total


@dataclass(frozen=True, eq=False)
class Outcome:
    """The best labelling found ``int64 [*batch, N]``, the bound (float64) and the iterations made, ``[*batch]``."""

    labels: Tensor
    bound: Tensor
    iterations: Tensor


def solve(model: Model, max_iterations: int, tolerance: float, time_limit: float | None = None) -> Outcome:
    """Visit the nodes in their order and back until nothing is left to gain; batch entries side by side.

    Args:
        model: any factor graph.
        max_iterations: the most there and back passes.
        tolerance: stop once ten iterations have closed less than this fraction of the gap between bound and score.
        time_limit: seconds after which no iteration is begun, at least one being made; ``None`` is no limit.
    """
    end = math.inf if time_limit is None else time.monotonic() + time_limit
    run, shape, nodes = (
        Run(max_iterations, tolerance, whole_numbers(model), end),
        model.batch_shape,
        model.graph.num_nodes,
    )
    turns = KERNELS.find("turns", *model.tensors) or _reference_turns
    results = turns(model, lambda turn: _iterate(turn, run))
    return Outcome(
        torch.tensor(np.array([labels for labels, _, _ in results], dtype=np.int64)).reshape(*shape, nodes),
        torch.tensor([bound for _, bound, _ in results], dtype=torch.float64).reshape(shape),
        torch.tensor([iterations for _, _, iterations in results], dtype=torch.int64).reshape(shape),
    )


def whole_numbers(model: Model) -> bool:
    """Whether every score is a whole number (or −inf), so that the best total is one too."""
    return all(bool((tensor.round() == tensor).all()) for tensor in model.tensors)


@dataclass
class Run:
    """When to stop, for one batch entry at a time."""

    max_iterations: int
    tolerance: float
    whole: bool
    end: float
    """On the clock of :func:`time.monotonic`."""

    def rounded(self, bound: float) -> float:
        """The bound with room for rounding errors, or rounded down where the best score is a whole number."""
        if not math.isfinite(bound):
            return bound
        bound += ROUNDING * (1 + abs(bound))
        return float(math.floor(bound)) if self.whole else bound

    def proved(self, bound: float, score: float) -> bool:
        """Whether a labelling with this score is a best one, as far as float64 can tell."""
        return self.rounded(bound) <= score + (0 if self.whole else 2 * ROUNDING * (1 + abs(score)))

    def stuck(self, before: float, bound: float, score: float) -> bool:
        """Whether ``EVERY`` iterations took the bound from ``before`` to too little less."""
        gap = bound - score if math.isfinite(score) else 1 + abs(bound)
        return before - bound < self.tolerance * gap


def _iterate(turn: Turn, run: Run) -> tuple[Ints, float, int]:
    best: Ints | None = None
    best_score, bound, before = -math.inf, math.inf, math.inf
    for iteration in range(1, run.max_iterations + 1):
        for forward in (True, False):
            found, score, labels = turn(forward)
            bound = min(bound, found)
            if best is None or score > best_score:
                best, best_score = labels.copy(), score
            if bound == -math.inf or run.proved(bound, best_score):
                return best, run.rounded(bound), iteration
        if time.monotonic() >= run.end:
            break
        if iteration % EVERY == 0:
            if run.stuck(before, bound, best_score):
                break
            before = bound
    assert best is not None
    return best, run.rounded(bound), iteration


def _reference_turns(model: Model, iterate: Callable[[Turn], T]) -> list[T]:
    """All batch entries at once, until the last one is done; nothing is read from an entry that is."""
    shape, nodes = model.batch_shape, model.graph.num_nodes
    messages = Messages(model, torch.arange(nodes))
    precise = model.map_scores(lambda scores: scores.double())
    orders = {True: list(range(nodes)), False: list(range(nodes))[::-1]}
    cached: dict[tuple[int, bool], tuple[Tensor, Tensor, Tensor]] = {}

    def turn_of(entry: int) -> Turn:
        steps = itertools.count()

        def turn(forward: bool) -> tuple[float, float, Ints]:
            step = next(steps), forward
            if step not in cached:
                bound, labels = messages.sweep(orders[forward], forward=forward)
                cached[step] = bound.reshape(-1), precise.score(labels).reshape(-1), labels.reshape(-1, nodes)
            bound, score, labels = cached[step]
            return float(bound[entry]), float(score[entry]), labels[entry].cpu().numpy()

        return turn

    return [iterate(turn_of(entry)) for entry in range(shape.numel())]
