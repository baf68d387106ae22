"""Weights of classes: what is rare counts more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

ClassWeights = Literal["balanced"] | Sequence[float]


def resolved(weights: ClassWeights | None, counts: Sequence[int] | None, num_classes: int) -> list[float] | None:
    """A positive weight per class; ``None`` where there are none.

    ``"balanced"`` is Σ counts / (L · count of the class), 1 for a class that no training pixel has.

    Raises:
        ValueError: another number of weights than classes, weights that are not positive, or no counts to balance by.
    """
    if weights is None:
        return None
    if weights == "balanced":
        if counts is None or len(counts) != num_classes:
            raise ValueError("model.class_weights: 'balanced' needs the pixels of each class, as class_counts")
        return [sum(counts) / (num_classes * count) if count else 1.0 for count in counts]
    found = [float(weight) for weight in weights]
    if len(found) != num_classes or not all(0 < weight < math.inf for weight in found):
        raise ValueError(
            f"model.class_weights: expected 'balanced' or {num_classes} positive numbers, one per class, got {weights}"
        )
    return found
