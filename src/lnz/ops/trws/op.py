"""Sweeps until the bound meets the best labelling found, or stops moving."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.layout import Ints, Layout
from lnz.ops.trws.reference import Messages
from lnz.scores import Model

EVERY = 10  # iterations between looks at the progress
ROUNDING = 1e-9  # of the sum of many float64 scores, as a fraction of the total


@dataclass(frozen=True, eq=False)
class Outcome:
    """The best labelling found ``int64 [*batch, N]``, the bound (float64) and the iterations made, ``[*batch]``."""

    labels: Tensor
    bound: Tensor
    iterations: Tensor


def solve(model: Model, max_iterations: int, tolerance: float) -> Outcome:
    """Visit the nodes in their order and back until nothing is left to gain; batch entries side by side.

    Args:
        model: any factor graph.
        max_iterations: the most there and back passes.
        tolerance: stop once ten iterations have closed less than this fraction of the gap between bound and score.
    """
    run = Run(max_iterations, tolerance, whole_numbers(model))
    if not use_kernels(*model.tensors):
        return _by_reference(model, run)
    layout = Layout(model)
    entries = list(itertools.product(*map(range, model.batch_shape)))
    threads = min(torch.get_num_threads(), len(entries)) or 1
    with ThreadPoolExecutor(threads) as pool:
        each = pool.map if threads > 1 else map
        results = list(each(lambda index: _by_kernel(layout, index, run), entries))
    labels = [torch.from_numpy(labels) for labels, _, _ in results]
    shape = model.batch_shape
    return Outcome(
        (torch.stack(labels) if labels else torch.zeros(0, dtype=torch.int64)).reshape(*shape, model.graph.num_nodes),
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


def _by_kernel(layout: Layout, index: Sequence[int], run: Run) -> tuple[Ints, float, int]:
    from lnz.ops.trws.cpu.sweep import sweep

    scores = layout.scores(index)
    nodes = layout.model.graph.num_nodes
    lent, labels = np.zeros(layout.wiring.slot_at[-1]), np.zeros(nodes, dtype=np.int64)
    there = np.arange(nodes)
    back = there[::-1].copy()

    def turn(forward: bool) -> tuple[float, float, Ints]:
        bound, score = sweep(layout.wiring, scores, there if forward else back, forward, lent, labels)
        return bound + scores.constant, score + scores.constant, labels

    return _iterate(turn, run)


def _iterate(turn: Callable[[bool], tuple[float, float, Ints]], run: Run) -> tuple[Ints, float, int]:
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
        if iteration % EVERY == 0:
            if run.stuck(before, bound, best_score):
                break
            before = bound
    assert best is not None
    return best, run.rounded(bound), iteration


def _by_reference(model: Model, run: Run) -> Outcome:
    """All batch entries at once, until the last one is done; nothing is read from an entry that is."""
    shape, nodes = model.batch_shape, model.graph.num_nodes
    messages = Messages(model, torch.arange(nodes))
    precise = model.map_scores(lambda scores: scores.double())
    turns = {True: list(range(nodes)), False: list(range(nodes))[::-1]}
    cached: dict[tuple[int, bool], tuple[Tensor, Tensor, Tensor]] = {}

    def turn_of(entry: int) -> Callable[[bool], tuple[float, float, Ints]]:
        steps = itertools.count()

        def turn(forward: bool) -> tuple[float, float, Ints]:
            step = next(steps), forward
            if step not in cached:
                bound, labels = messages.sweep(turns[forward], forward=forward)
                cached[step] = bound.reshape(-1), precise.score(labels).reshape(-1), labels.reshape(-1, nodes)
            bound, score, labels = cached[step]
            return float(bound[entry]), float(score[entry]), labels[entry].cpu().numpy()

        return turn

    results = [_iterate(turn_of(entry), run) for entry in range(shape.numel())]
    return Outcome(
        torch.tensor(np.array([labels for labels, _, _ in results], dtype=np.int64)).reshape(*shape, nodes),
        torch.tensor([bound for _, bound, _ in results], dtype=torch.float64).reshape(shape),
        torch.tensor([iterations for _, _, iterations in results], dtype=torch.int64).reshape(shape),
    )
