"""The backend "cpu" of iterated conditional modes, over a model laid out flat (:mod:`lnz.ops.layout`)."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from lnz.ops.jit.cpu import kernel
from lnz.ops.jit.cpu.rows import longest
from lnz.ops.jit.threads import side_by_side
from lnz.ops.layout import Layout, batch_indices
from lnz.scores import Model


def icm(model: Model, labels: Tensor, max_sweeps: int) -> Tensor:
    """See :func:`lnz.ops.icm.reference.icm`; batch entries side by side."""
    layout, entries = Layout(model), batch_indices(model)
    moved = labels.clone(memory_format=torch.contiguous_format)
    chains = moved.reshape(len(moved), len(entries), model.graph.num_nodes).numpy()

    def entry(place: int, index: tuple[int, ...]) -> None:
        scores = layout.scores(index)
        for chain in chains[:, place]:
            improve(layout.wiring, scores, chain, max_sweeps)

    side_by_side([partial(entry, place, index) for place, index in enumerate(entries)])
    return moved


@kernel()
def improve(wiring, scores, labels, max_sweeps):
    """Move ``labels [N]`` in place, node by node, to labels that are better given all others, until none is."""
    label_at, node_at, node_slots, factor_at, slot_node, slot_factor, _, slot_table, slot_stride, weight_of = wiring
    value_of = np.empty(longest(label_at))
    for _ in range(max_sweeps):
        moved = False
        for node in range(labels.size):
            value = value_of[: label_at[node + 1] - label_at[node]]
            for x in range(value.size):
                value[x] = scores.nodes[label_at[node] + x]
            for at in range(node_at[node], node_at[node + 1]):
                slot = node_slots[at]
                factor = slot_factor[slot]
                low, high = factor_at[factor], factor_at[factor + 1]
                row, stride = slot_table[slot], slot_stride[slot]
                if high - low == 2:
                    row, stride = row + labels[slot_node[low + high - 1 - slot]] * value.size, 1
                else:
                    for s in range(low, high):
                        if s != slot:
                            row += labels[slot_node[s]] * slot_stride[s]
                weight = scores.weights[weight_of[factor]]
                for x in range(value.size):
                    value[x] += weight * scores.tables[row + x * stride]
            best = labels[node]
            for x in range(value.size):
                best = x if value[x] > value[best] else best
            moved |= best != labels[node]
            labels[node] = best
        if not moved:
            return
