"""Generalised EM: networks whose M step raises the expected log-joint by gradient, instead of maximising it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def ascend(parameters: Iterable[nn.Parameter], objective: Callable[[], Tensor], steps: int) -> None:
    """Raise ``objective()`` by L-BFGS with a line search from where the parameters are; never lower it.

    Args:
        parameters: those with ``requires_grad=False`` stay.
        objective: see :func:`weighted`.
        steps: iterations of L-BFGS.
    """
    free = [each for each in parameters if each.requires_grad]
    if not free:
        return
    before = [each.detach().clone() for each in free]
    optimiser = torch.optim.LBFGS(free, max_iter=steps, line_search_fn="strong_wolfe")
    start: list[Tensor] = []

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -objective()
        value.backward()
        start.append(value.detach())
        return value

    optimiser.step(torch.enable_grad()(loss))
    optimiser.zero_grad()
    with torch.no_grad():
        if not -objective() <= start[0]:  # a line search that gave up; or NaN
            for each, value in zip(free, before, strict=True):
                each.copy_(value)


def weighted(counts: Tensor, log_probs: Tensor) -> Tensor:
    """Σ counts · log_probs per count; −inf where nothing was counted says nothing."""
    return (counts * log_probs.masked_fill(counts == 0, 0.0)).sum() / counts.sum().clamp(min=1.0)


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw all matrices of a network from N(0, 1 / fan-in), a random start; biases and frozen parameters stay."""
    for each in module.parameters():
        if each.requires_grad and each.dim() > 1:
            device = each.device if generator is None else generator.device
            noise = torch.randn(each.shape, dtype=each.dtype, device=device, generator=generator)
            each.copy_(noise.to(each.device) / each[0].numel() ** 0.5)
