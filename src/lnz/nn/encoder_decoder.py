"""A convolutional encoder and decoder with skip connections, for images of any size."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

MOST = 8
"""The channels of a level are at most so many times the width."""


class EncoderDecoder(nn.Module):
    """Image ``[B, in_channels, H, W]`` to scores ``[B, num_labels, H, W]``: a U-Net whose skip connections are added.

    The encoder halves height and width ``depth`` times and doubles the channels from ``width`` to at most 8 · width;
    the decoder doubles them again, bilinearly, and adds what the encoder had at that size (Ronneberger, Fischer & Brox
    2015 concatenate; Lin et al. 2017 add, at half the cost). Sizes are rounded up, so that every image serves, down to
    one pixel. Group normalisation (Wu & He 2018) makes an image's scores independent of its batch.

    The default has 1.8 million parameters and takes 4.9 · 10⁴ multiplications per pixel.

    Args:
        in_channels: channels of the image.
        num_labels: channels of the scores.
        width: channels at full size.
        depth: halvings.

    Raises:
        ValueError: a number that is not positive.
    """

    def __init__(self, in_channels: int, num_labels: int, width: int = 24, depth: int = 4) -> None:
        super().__init__()
        given = {"in_channels": in_channels, "num_labels": num_labels, "width": width, "depth": depth}
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value}")
        self.in_channels = in_channels
        channels = [width * min(2**level, MOST) for level in range(depth + 1)]
        steps = list(pairwise(channels))
        self.stem = _convolution(in_channels, width)
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(fine, coarse, stride=2), _Residual(coarse)) for fine, coarse in steps
        )
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in steps)
        self.up = nn.ModuleList(_Residual(fine) for fine, _ in steps)
        self.scores = nn.Conv2d(width, num_labels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores ``[B, num_labels, H, W]`` of images ``[B, in_channels, H, W]``, of any size."""
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise ValueError(f"image: expected shape [B, {self.in_channels}, H, W], got {list(image.shape)}")
        features = [self.stem(image)]
        for down in self.down:
            features.append(down(features[-1]))
        x = features.pop()
        for narrow, up in zip(reversed(self.narrow), reversed(self.up), strict=True):
            fine = features.pop()
            x = F.interpolate(narrow(x), size=fine.shape[-2:], mode="bilinear", align_corners=False)
            x = up(fine + x)
        return self.scores(x)

    if TYPE_CHECKING:
        __call__ = forward


class _Residual(nn.Module):
    """A 3×3 convolution whose result is added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = _convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolution(x)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A 3×3 convolution, normalised over groups of channels, 8 where they divide the channels."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(math.gcd(8, after), after),
        nn.ReLU(),
    )
