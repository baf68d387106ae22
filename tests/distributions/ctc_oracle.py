"""Brute force for CTC: every frame labelling, listed in plain Python."""

from __future__ import annotations

import itertools
import math

from torch import Tensor

from tests.oracles import IGNORE, Labelling, Oracle, log_sum, per_entry


def spelt(z: tuple[int, ...], blank: int | None, collapse: bool) -> tuple[int, ...]:
    if collapse:
        z = tuple(label for label, _ in itertools.groupby(z))
    return tuple(label for label in z if label != blank)


def alignments(
    scores: Tensor, targets: Tensor, sizes: Tensor, lengths: Tensor, blank: int | None, collapse: bool
) -> Oracle:
    """The alignments of targets, scores ``[*batch, T, C]``, lengths and targets of that batch shape."""
    T, C = scores.shape[-2:]
    batch = scores.shape[:-2]

    def one(index: tuple[int, ...]) -> list[Labelling]:
        x, n = scores[index].tolist(), int(lengths[index])
        y = tuple(targets[index].tolist()[: int(sizes[index])])
        found = []
        for z in itertools.product(range(C), repeat=n):
            if spelt(z, blank, collapse) == y:
                parts = tuple(enumerate(z))
                score = math.fsum(x[t][c] for t, c in parts) if n else 0.0
                found.append(Labelling((*z, *[IGNORE] * (T - n)), score, (parts,)))
        return found

    return Oracle(tuple(batch), (T,), ((T, C),), per_entry(batch, one))


def label_sequences(scores: Tensor, blank: int | None, collapse: bool) -> dict[tuple[int, ...], float]:
    """ln Σ exp of the scores ``[T, C]`` of the frame labellings that spell each sequence."""
    T, C = scores.shape
    x = scores.tolist()
    found: dict[tuple[int, ...], list[float]] = {}
    for z in itertools.product(range(C), repeat=T):
        found.setdefault(spelt(z, blank, collapse), []).append(math.fsum(x[t][c] for t, c in enumerate(z)))
    return {y: log_sum(scores) for y, scores in found.items()}
