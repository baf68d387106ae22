"""Minimising a smooth function plus the sum of absolute values: L-BFGS, within an orthant where there is such a sum."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

ARMIJO = 1e-4
SMALLEST = 2.0**-20
"""The shortest step that is tried, of the direction's length."""


class Iterate(NamedTuple):
    """Where a minimisation is after an iteration: the point ``[P]``, the objective, the norm of its gradient."""

    point: Tensor
    value: float
    gradient_norm: float


def owlqn(
    smooth: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, l1: float = 0.0, memory: int = 6
) -> Iterator[Iterate]:
    """The iterates of orthant-wise L-BFGS (Andrew & Gao 2007) on ``smooth(x) + l1 · Σ|x|``; of L-BFGS where l1 is 0.

    It ends where no step along the direction lowers the objective, as at a minimum to within rounding.

    Args:
        smooth: a convex function, from ``[P]`` to its value and gradient.
        start: ``[P]``.
        l1: the weight of the absolute values.
        memory: how many steps the curvature is estimated by.
    """
    x = start.clone()
    value, gradient = smooth(x)
    total = value + l1 * float(x.abs().sum())
    history: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=memory)
    while True:
        slope = _pseudo_gradient(x, gradient, l1)
        norm = float(slope.norm())
        if norm == 0.0:
            return
        direction = _descent(slope, history)
        if l1:
            direction = torch.where(direction * slope < 0, direction, 0.0)
        if not float(direction.dot(slope)) < 0:  # curvature that rounding has spoilt
            history.clear()
            direction = -slope
        step = 1.0 if history else 1.0 / norm
        orthant = torch.where(x == 0, -slope.sign(), x.sign())
        shortest = step * SMALLEST
        while True:
            new = x + step * direction
            if l1:
                new = torch.where(new * orthant > 0, new, 0.0)
            new_value, new_gradient = smooth(new)
            new_total = new_value + l1 * float(new.abs().sum())
            drop = float(slope.dot(new - x))
            if new_total < total and new_total <= total + ARMIJO * drop:
                break
            excess = new_total - total - drop
            lowest = -drop / (2 * excess) if 0 < excess < math.inf else 0.0  # of the parabola through both
            step *= min(max(lowest, 0.1), 0.5)
            if step < shortest:
                return
        moved, changed = new - x, new_gradient - gradient
        curvature = float(moved.dot(changed))
        if curvature > 1e-10 * float(changed.dot(changed)):
            history.append((moved, changed, curvature))
        x, gradient, total = new, new_gradient, new_total
        yield Iterate(x, total, float(_pseudo_gradient(x, gradient, l1).norm()))


def _pseudo_gradient(x: Tensor, gradient: Tensor, l1: float) -> Tensor:
    """The slope of the objective towards its steepest descent, where it is 0 between two signs."""
    if not l1:
        return gradient
    at_zero = torch.nn.functional.softshrink(gradient, l1)
    return torch.where(x == 0, at_zero, gradient + l1 * x.sign())


def _descent(slope: Tensor, history: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Minus the slope, scaled by the curvature seen: the two loops of L-BFGS."""
    direction, factors = -slope, []
    for moved, changed, curvature in reversed(history):
        factors.append(float(moved.dot(direction)) / curvature)
        direction = direction.add(changed, alpha=-factors[-1])
    if history:
        _, changed, curvature = history[-1]
        direction = direction * (curvature / float(changed.dot(changed)))
    for (moved, changed, curvature), factor in zip(history, reversed(factors), strict=True):
        direction.add_(moved, alpha=factor - float(changed.dot(direction)) / curvature)
    return direction
