"""Iterated conditional modes: by the kernel where it serves, else by the reference."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from lnz.ops import use_kernels
from lnz.ops.icm import reference
from lnz.ops.layout import Layout
from lnz.scores import Model


def icm(model: Model, labels: Tensor, max_sweeps: int = 2**31) -> Tensor:
    """See :func:`lnz.ops.icm.reference.icm`; batch entries side by side."""
    if not use_kernels(*model.tensors):
        return reference.icm(model, labels, max_sweeps)
    from lnz.ops.icm import cpu

    layout = Layout(model)
    moved = labels.clone(memory_format=torch.contiguous_format)
    chains = moved.reshape(len(moved), model.batch_shape.numel(), model.graph.num_nodes).numpy()

    def entry(place: int, index: tuple[int, ...]) -> None:
        scores = layout.scores(index)
        for chain in chains[:, place]:
            cpu.icm(layout.wiring, scores, chain, max_sweeps)

    entries = list(itertools.product(*map(range, model.batch_shape)))
    with ThreadPoolExecutor(min(torch.get_num_threads(), len(entries)) or 1) as pool:
        list(pool.map(entry, range(len(entries)), entries))
    return moved
