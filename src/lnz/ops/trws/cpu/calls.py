"""Batch entries side by side, each by the kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from lnz.ops.jit.threads import side_by_side
from lnz.ops.layout import Ints, Layout, batch_indices
from lnz.ops.trws.cpu.sweep import sweep
from lnz.scores import Model

T = TypeVar("T")
Turn = Callable[[bool], tuple[float, float, Ints]]


def turns(model: Model, iterate: Callable[[Turn], T]) -> list[T]:
    """``iterate(turn)`` for each batch entry; see :func:`lnz.ops.trws.op.solve`."""
    layout, nodes = Layout(model), model.graph.num_nodes
    there = np.arange(nodes)
    back = there[::-1].copy()

    def run(place: int, index: tuple[int, ...]) -> None:
        scores = layout.scores(index)
        lent, labels = np.zeros(layout.wiring.slot_at[-1]), np.zeros(nodes, dtype=np.int64)

        def turn(forward: bool) -> tuple[float, float, Ints]:
            bound, score = sweep(layout.wiring, scores, there if forward else back, forward, lent, labels)
            return bound + scores.constant, score + scores.constant, labels

        found[place] = iterate(turn)

    entries = batch_indices(model)
    found: dict[int, T] = {}
    side_by_side([partial(run, place, index) for place, index in enumerate(entries)])
    return [found[place] for place in range(len(entries))]
