"""A small network from features by frames to hidden states by fewer frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lnz.checks import as_integers, as_lengths


class SpeechEncoder(nn.Module):
    """Convolutions that halve the number of frames, residual ones that see further, and a recurrent layer if wanted.

    Features ``[B, T, M]`` to hidden states ``[B, ⌈T / stride⌉, num_hidden]``; state j is centred at frame j · stride.
    Layers are normalised frame by frame and see zeros beyond the end of a recording, so that neither padding nor the
    other recordings of a batch change anything.

    Args:
        num_features: M.
        width: channels of the convolutions, whose kernels have 5 frames.
        stride: frames per hidden state, a power of 2.
        dilations: one residual convolution per entry, with that dilation.
        recurrent: channels of a recurrent layer (GRU) in each direction, on top; 0 for none.
    """

    def __init__(
        self,
        num_features: int,
        width: int = 96,
        stride: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 8),
        recurrent: int = 0,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width: expected a positive integer, got {width}")
        if stride < 1 or stride & (stride - 1):
            raise ValueError(f"stride: expected a power of 2, got {stride}")
        if any(dilation < 1 for dilation in dilations):
            raise ValueError(f"dilations: expected positive integers, got {list(dilations)}")
        if recurrent < 0:
            raise ValueError(f"recurrent: expected at least 0, got {recurrent}")
        self.num_features, self.stride = num_features, stride
        steps = [1] + [2] * int(math.log2(stride))
        channels = [num_features] + [width] * len(steps)
        self.shrinking = nn.ModuleList(
            nn.Conv1d(before, after, 5, step, padding=2)
            for before, after, step in zip(channels, channels[1:], steps, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in steps)
        self.residual = nn.ModuleList(
            nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation) for dilation in dilations
        )
        self.residual_norms = nn.ModuleList(nn.LayerNorm(width) for _ in dilations)
        self.recurrent = nn.ModuleList(nn.GRU(width, recurrent, batch_first=True) for _ in range(2 * (recurrent > 0)))
        self.num_hidden = 2 * recurrent or width

    def frames(self, lengths: Tensor | Sequence[int]) -> Tensor:
        """How many hidden states so many frames have: ⌈lengths / stride⌉."""
        lengths = as_integers("lengths", lengths)
        return -(-lengths // self.stride)

    def forward(self, features: Tensor, lengths: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
        """Hidden states, 0 beyond the end, and how many ``int64 [B]``.

        Args:
            features: ``[B, T, M]``; what lies beyond the end is ignored.
            lengths: ``[B]`` frames, integers.
        """
        if features.dim() != 3 or features.shape[2] != self.num_features:
            raise ValueError(f"features: expected shape [B, T, {self.num_features}], got {list(features.shape)}")
        lengths = as_lengths(lengths, features.shape[1], of="the frames of features", device=features.device)
        x = _cut(features, lengths)
        for convolution, norm in zip(self.shrinking, self.norms, strict=True):
            lengths = -(-lengths // convolution.stride[0])  # type: ignore[index, operator]
            x = _cut(norm(_over_time(convolution, x)).relu(), lengths)
        for convolution, norm in zip(self.residual, self.residual_norms, strict=True):
            x = x + _cut(_over_time(convolution, _cut(norm(x), lengths)).relu(), lengths)
        if self.recurrent:
            forth, back = self.recurrent
            # each backward recording begins at its own end, so that padding comes last in both directions
            x = torch.cat((forth(x)[0], _reversed(back(_reversed(x, lengths))[0], lengths)), -1)
        return _cut(x, lengths), lengths

    if TYPE_CHECKING:
        __call__ = forward


def _over_time(convolution: nn.Module, x: Tensor) -> Tensor:
    return convolution(x.transpose(1, 2)).transpose(1, 2)


def _cut(x: Tensor, lengths: Tensor) -> Tensor:
    """``x`` ``[B, T, …]`` with zeros beyond the end."""
    return x.masked_fill((torch.arange(x.shape[1], device=x.device) >= lengths[:, None])[..., None], 0.0)


def _reversed(x: Tensor, lengths: Tensor) -> Tensor:
    """``x`` ``[B, T, H]`` with the frames of each recording in reverse order; padding stays where it is."""
    at = torch.arange(x.shape[1], device=x.device)
    source = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)
    return x.gather(1, source[..., None].expand_as(x))
