"""Scenes composed of scikit-learn's handwritten digits, with noise and occlusion, where neighbours matter.

What a pixel is cannot be told from the pixel alone: noise blurs it, and stripes hide it. What its neighbours are says
much about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from lnz.tasks.digits import DIGIT, Split, digits


@dataclass(frozen=True)
class Scenes:
    """How scenes are composed.

    Args:
        train: number of training scenes.
        val: number of validation scenes, from digits (and mostly writers) that no training scene shows.
        size: height and width in pixels.
        digits: digits per scene; they may overlap, and leave the canvas.
        scale: pixels per pixel of the bundled 8×8 digits.
        noise: standard deviation of Gaussian noise; ink is 1, paper 0.
        stripes: occluding stripes per scene, half of them horizontal; they hide the image, not the labels.
        stripe_width: their width in pixels.
        labels: "figure" for ink against paper, "digit" for paper and ten digits.
    """

    train: int = 192
    val: int = 64
    size: int = 48
    digits: int = 4
    scale: int = 3
    noise: float = 0.7
    stripes: int = 4
    stripe_width: int = 3
    labels: Literal["figure", "digit"] = "figure"

    def __post_init__(self) -> None:
        for name in ("train", "val", "size", "digits", "scale", "stripe_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"scenes.{name}: expected a positive integer, got {getattr(self, name)}")
        for name in ("noise", "stripes"):
            if getattr(self, name) < 0:
                raise ValueError(f"scenes.{name}: expected at least 0, got {getattr(self, name)}")

    @property
    def class_names(self) -> list[str]:
        return ["paper", "ink"] if self.labels == "figure" else ["paper", *(f"digit {d}" for d in range(10))]


@lru_cache(maxsize=4)
def digit_pool(split: Split, scale: int) -> tuple[Tensor, Tensor]:
    """The enlarged digits of a split, ink in [0, 1] ``[D, 8·scale, 8·scale]``, and which digit each is ``[D]``."""
    ink, which = digits(split)
    large = F.interpolate(ink[:, None], scale_factor=scale, mode="bilinear", align_corners=False)[:, 0]
    return large, which


def compose(scenes: Scenes, split: Split, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One scene: image ``[1, size, size]`` and labels ``int64 [size, size]``."""
    ink, which = digit_pool(split, scenes.scale)
    size, side = scenes.size, DIGIT * scenes.scale
    canvas = torch.zeros(size + 2 * side, size + 2 * side)  # room for digits that leave the scene
    labels = torch.zeros_like(canvas, dtype=torch.int64)
    for d in generator.integers(len(ink), size=scenes.digits).tolist():
        top, left = (side + generator.integers(-side // 2, max(size - side // 2, 1), size=2)).tolist()
        window = (slice(top, top + side), slice(left, left + side))
        canvas[window] = torch.maximum(canvas[window], ink[d])
        label = 1 if scenes.labels == "figure" else 1 + int(which[d])
        labels[window] = labels[window].masked_fill(ink[d] > 0.5, label)
    inside = (slice(side, side + size),) * 2
    image, labels = canvas[inside].clone(), labels[inside].clone()
    for stripe, start in enumerate(generator.integers(size, size=scenes.stripes).tolist()):
        hidden = slice(start, start + scenes.stripe_width)
        (image if stripe % 2 else image.T)[hidden] = 0.5
    noise = torch.from_numpy(generator.standard_normal((size, size), dtype=np.float32))
    return (image + scenes.noise * noise)[None], labels


class SceneDataset(Dataset[dict[str, Tensor]]):
    """The scenes of one split, each a function of (seed, split, index) alone, composed once."""

    def __init__(self, scenes: Scenes, split: Split, seed: int) -> None:
        count = scenes.train if split == "train" else scenes.val
        streams = [np.random.default_rng([seed, split == "val", index]) for index in range(count)]
        self.num_classes = len(scenes.class_names)
        self.scenes = [compose(scenes, split, stream) for stream in streams]

    @property
    def class_counts(self) -> list[int]:
        """Pixels of each class."""
        labels = torch.cat([labels.flatten() for _, labels in self.scenes])
        return torch.bincount(labels, minlength=self.num_classes).tolist()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        image, labels = self.scenes[key[1]]
        pixels = torch.arange(labels.numel()).reshape(labels.shape)
        return {"image": image, "labels": labels, "pixels": pixels, "index": torch.tensor(key[1])}
