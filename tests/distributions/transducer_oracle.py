"""Brute force for transducers: every path walked arc by arc, in plain Python."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles import IGNORE, Labelling, Oracle, per_entry

Node = tuple[int, int]


def paths(n: int, m: int, one: bool) -> list[list[tuple[str, Node]]]:
    """Every way to read n frames and emit m labels, as a list of arcs: their kind, and the node they leave."""

    def onward(t: int, u: int) -> list[list[tuple[str, Node]]]:
        if t == n:
            return [[]] if u == m else []
        found = [[("blank", (t, u)), *rest] for rest in onward(t + 1, u)]
        if u < m:
            found += [[("label", (t, u)), *rest] for rest in onward(t + 1 if one else t, u + 1)]
        return found

    return onward(0, 0)


def alignments(blank: Tensor, label: Tensor, lengths: Tensor, sizes: Tensor, one: bool) -> Oracle:
    """The alignments under scores of arcs ``[*batch, T, U + 1]``, ``[*batch, T, U]``; lengths of the batch shape."""
    T, U = label.shape[-2:]
    batch = torch.broadcast_shapes(blank.shape[:-2], label.shape[:-2])
    blank, label = blank.expand(*batch, T, U + 1), label.expand(*batch, T, U)

    def one_entry(index: tuple[int, ...]) -> list[Labelling]:
        scores = {"blank": blank[index].tolist(), "label": label[index].tolist()}
        m, found = int(sizes[index]), []
        for path in paths(int(lengths[index]), m, one):
            parts = tuple(tuple(node for kind, node in path if kind == wanted) for wanted in scores)
            score = sum(scores[kind][t][u] for kind, (t, u) in path)
            found.append(Labelling((*(t for t, _ in parts[1]), *[IGNORE] * (U - m)), float(score), parts))
        return found

    return Oracle(tuple(batch), (U,), ((T, U + 1), (T, U)), per_entry(batch, one_entry))


def log_prob(logits: Tensor, target: list[int], blank: int, one: bool) -> Tensor:
    """ln P(y) of one target under joint scores ``[T, U + 1, C]``, through autograd over the list of all paths."""
    x = logits.log_softmax(-1)
    totals = []
    for path in paths(x.shape[0], len(target), one):
        classes = [blank if kind == "blank" else target[u] for kind, (_, u) in path]
        totals.append(sum((x[t, u, c] for (_, (t, u)), c in zip(path, classes, strict=True)), x.new_zeros(())))
    return torch.stack(totals).logsumexp(0) if totals else x.new_full((), -math.inf)
