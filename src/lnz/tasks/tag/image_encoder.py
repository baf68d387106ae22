"""Features of a string of small images, each from its own image alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ImageEncoder(nn.Module):
    """Two convolutions and a linear layer per image: a batch of strings to features ``[B, T, width]``.

    A position sees its own image and nothing of its neighbours', so that what they say about it can only come through
    the chain. Positions that are padding cost nothing, and their features are 0.

    Args:
        size: height and width of each image, at least 4.
        channels: of the first convolution; the second has twice as many.
        width: of the features.
        dropout: of features and, by channels, of what they are computed from.
    """

    def __init__(self, size: tuple[int, int], channels: int = 16, width: int = 96, dropout: float = 0.2) -> None:
        height, across = size
        if min(size) < 4:
            raise ValueError(f"size: expected at least 4 × 4 pixels, got {height} × {across}")
        for name, value in {"channels": channels, "width": width}.items():
            if value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value}")
        super().__init__()
        self.size, self.width = (height, across), width
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(dropout),
            nn.Flatten(),
            nn.Linear(2 * channels * (height // 4) * (across // 4), width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """``image`` ``[B, T, height, width]`` and ``lengths`` ``int64 [B]`` to features ``[B, T, width]``."""
        image: Tensor = batch["image"]
        if image.dim() != 4 or tuple(image.shape[2:]) != self.size:
            raise ValueError(f"image: expected shape [B, T, {self.size[0]}, {self.size[1]}], got {list(image.shape)}")
        inside = torch.arange(image.shape[1], device=image.device) < batch["lengths"][:, None]
        features = self.layers(image[inside].unsqueeze(1))
        return features.new_zeros(*inside.shape, self.width).index_put(torch.where(inside), features)
