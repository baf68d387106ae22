"""Chains, runs and batch entries side by side, each by the kernels. Random numbers are Philox's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lnz.ops.annealing.cpu import anneal as annealing
from lnz.ops.annealing.cpu import temper as tempering
from lnz.ops.annealing.records import Replicas
from lnz.ops.jit.threads import side_by_side
from lnz.ops.layout import Layout, batch_indices
from lnz.ops.philox import key_from
from lnz.ops.softened import softened
from lnz.scores import Model


def anneal(model: Model, labels: Tensor, temperatures: Sequence[float], generator: torch.Generator | None) -> Tensor:
    """See :func:`lnz.ops.annealing.reference.anneal`."""
    layout, key = Layout(softened(model)), key_from(generator)
    scores = [layout.scores(index) for index in batch_indices(model)]
    best = labels.clone(memory_format=torch.contiguous_format)
    chains = best.reshape(len(best), len(scores), model.graph.num_nodes).numpy()
    falling = np.asarray(temperatures, np.float64)

    def one(chain: int, entry: int) -> None:
        number = chain * len(scores) + entry
        annealing.run(layout.wiring, scores[entry], falling, number, key, chains[chain, entry])

    side_by_side([partial(one, chain, entry) for chain in range(len(best)) for entry in range(len(scores))])
    return best


def temper(
    model: Model,
    replicas: Replicas,
    temperatures: Sequence[float],
    sweeps: int,
    generator: torch.Generator | None,
) -> Replicas:
    """See :func:`lnz.ops.annealing.reference.temper`."""
    layout, key, R = Layout(softened(model)), key_from(generator), len(temperatures)
    scores, nodes = [layout.scores(index) for index in batch_indices(model)], model.graph.num_nodes
    labels, best = (each.clone(memory_format=torch.contiguous_format) for each in replicas)
    states = labels.reshape(len(best), 2, R, len(scores), nodes).numpy()
    tops = best.reshape(len(best), len(scores), nodes).numpy()
    rising = np.asarray(temperatures, np.float64)

    def one(run: int, entry: int) -> None:
        own, number = np.ascontiguousarray(states[run, :, :, entry]), run * len(scores) + entry
        tempering.run(layout.wiring, scores[entry], rising, sweeps, number, key, own, tops[run, entry])
        states[run, :, :, entry] = own

    side_by_side([partial(one, run, entry) for run in range(len(best)) for entry in range(len(scores))])
    return Replicas(labels, best)
