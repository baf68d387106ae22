"""SpecAugment (Park et al. 2019): training features with stripes of time and of frequency hidden."""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    features: Tensor,
    lengths: Tensor,
    generator: torch.Generator,
    time_masks: int,
    mel_masks: int,
    longest: int = 10,
    widest: int = 6,
) -> Tensor:
    """Features ``[B, T, M]`` with stripes set to 0, their mean.

    Args:
        features: normalised.
        lengths: ``int64 [B]`` frames.
        generator: of the random numbers, on the CPU.
        time_masks: stripes of time per recording, each of 0 to ``longest`` frames, at most a tenth of the recording.
        mel_masks: stripes of frequency per recording, each of 0 to ``widest`` bands.
        longest: see there.
        widest: see there.
    """
    B, T, M = features.shape
    hidden = torch.zeros(B, T, M, dtype=torch.bool)
    sizes = lengths.cpu()
    for _ in range(time_masks):
        hidden |= _stripe(T, sizes, (sizes // 10).clamp(max=longest), generator)[:, :, None]
    for _ in range(mel_masks):
        hidden |= _stripe(M, torch.full((B,), M), torch.full((B,), min(widest, M)), generator)[:, None, :]
    return features.masked_fill(hidden.to(features.device), 0.0)


def _stripe(size: int, lengths: Tensor, most: Tensor, generator: torch.Generator) -> Tensor:
    """Per recording, a stripe of 0 … ``most`` in ``lengths``, ``bool [B, size]``."""
    width = (torch.rand(len(lengths), generator=generator) * (most + 1)).long()
    start = (torch.rand(len(lengths), generator=generator) * (lengths - width + 1)).long()
    at = torch.arange(size)
    return (at >= start[:, None]) & (at < (start + width)[:, None])
