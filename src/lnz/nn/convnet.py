"""A small convolutional network that keeps the image's height and width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Residual 3×3 convolutions of one width: image ``[B, in_channels, H, W]`` to features ``[B, width, H, W]``.

    Batch normalisation is the only kind that leaves the receptive field alone (layer and group normalisation average
    over the image), and the receptive field is what decides how much a structured output layer can add.

    Args:
        in_channels: channels of the image.
        width: channels of the features.
        dilations: one convolution per entry, with that dilation.
    """

    def __init__(self, in_channels: int, width: int = 16, dilations: Sequence[int] = (1, 1)) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width: expected a positive integer, got {width}")
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations: expected positive integers, at least one, got {list(dilations)}")
        self.in_channels = in_channels
        self.width = width
        self.dilations = tuple(dilations)
        channels = [in_channels] + [width] * len(self.dilations)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after, dilation in zip(channels, channels[1:], self.dilations, strict=False)
        )

    @property
    def receptive_field(self) -> int:
        """The side, in pixels, of the square of the image that one feature sees."""
        return 1 + 2 * sum(self.dilations)

    def forward(self, image: Tensor) -> Tensor:
        """Features ``[B, width, H, W]`` of images ``[B, in_channels, H, W]``, of any size."""
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise ValueError(f"image: expected shape [B, {self.in_channels}, H, W], got {list(image.shape)}")
        first, *rest = self.layers
        features = first(image)
        for layer in rest:
            features = features + layer(features)
        return features

    if TYPE_CHECKING:
        __call__ = forward
