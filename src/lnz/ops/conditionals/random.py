"""Random numbers from an explicit generator, on whichever device it lives."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(shape: torch.Size | tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), of the dtype and device of ``like``; ``generator=None`` is torch's default one."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


def normal(shape: torch.Size | tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, of the dtype and device of ``like``."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)


def integers(high: int, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Uniform integers in [0, high)."""
    source = device if generator is None else generator.device
    return torch.randint(high, shape, device=source, generator=generator).to(device)


def categorical(scores: Tensor, generator: torch.Generator | None) -> Tensor:
    """A label from the softmax over the last dimension, by the Gumbel maximum; −inf is never drawn.

    Where every score is −inf there is nothing to draw from, and the answer is 0.
    """
    noise = uniform(scores.shape, scores, generator).neg_().log1p_().neg_()  # exponential; 0 where the uniform is
    tiny = torch.finfo(scores.dtype).tiny  # keeps the Gumbel noise finite, so that -inf stays below every other score
    return (scores - noise.clamp_(tiny, 1e30).log_()).argmax(-1)
