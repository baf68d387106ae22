"""Strings of scikit-learn's handwritten digits, readings of a counter, where neighbours matter.

Between one reading and the next the counter moves on by 0, 1 or 2, and after 9 comes 0. What a digit is cannot always
be told from its image: noise blurs it, and some are blotted out. What its neighbours are leaves few that it can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lnz.tasks.digits import DIGIT, Split, digits
from lnz.typing import IGNORE

STEPS = (0.3, 0.5, 0.2)
"""How probable it is that the counter moves on by 0, 1 and 2."""


@dataclass(frozen=True)
class Strings:
    """How strings of handwritten digits are composed.

    Args:
        train: number of training strings.
        val: number of validation strings, of digits (and mostly writers) that no training string shows.
        shortest: digits of the shortest strings.
        longest: digits of the longest strings.
        noise: standard deviation of Gaussian noise; ink is 1, paper 0.
        blotted: share of the digits whose image is noise and nothing else.
    """

    train: int = 600
    val: int = 200
    shortest: int = 4
    longest: int = 12
    noise: float = 0.4
    blotted: float = 0.15

    def __post_init__(self) -> None:
        for name in ("train", "val", "shortest"):
            if getattr(self, name) < 1:
                raise ValueError(f"strings.{name}: expected a positive integer, got {getattr(self, name)}")
        if self.longest < self.shortest:
            raise ValueError(f"strings.longest: expected at least shortest, {self.shortest}, got {self.longest}")
        if self.noise < 0:
            raise ValueError(f"strings.noise: expected at least 0, got {self.noise}")
        if not 0 <= self.blotted < 1:
            raise ValueError(f"strings.blotted: expected a number in [0, 1), got {self.blotted}")

    @property
    def tags(self) -> list[str]:
        return [str(digit) for digit in range(10)]


def compose(strings: Strings, ink: Tensor, which: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One string: images ``[T, 8, 8]`` and digits ``int64 [T]``, from the pool of digits ``ink``, ``which``."""
    T = int(generator.integers(strings.shortest, strings.longest + 1))
    moves = generator.choice(len(STEPS), size=T - 1, p=STEPS)
    read = (generator.integers(10) + np.concatenate(([0], np.cumsum(moves)))) % 10
    drawn = [int(generator.choice(np.flatnonzero(which.numpy() == digit))) for digit in read]
    image = ink[drawn].clone()
    image[torch.from_numpy(generator.random(T) < strings.blotted)] = 0.5
    noise = torch.from_numpy(generator.standard_normal(tuple(image.shape), dtype=np.float32))
    return image + strings.noise * noise, torch.from_numpy(read)


class StringDataset(Dataset[dict[str, Tensor]]):
    """The strings of one split, each a function of (seed, split, index) alone, composed once."""

    size = (DIGIT, DIGIT)

    def __init__(self, strings: Strings, split: Split, seed: int) -> None:
        count = strings.train if split == "train" else strings.val
        ink, which = digits(split)
        streams = [np.random.default_rng([seed, split == "val", index]) for index in range(count)]
        self.strings = [compose(strings, ink, which, stream) for stream in streams]

    @property
    def lengths(self) -> list[int]:
        return [len(labels) for _, labels in self.strings]

    def __len__(self) -> int:
        return len(self.strings)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        image, tags = self.strings[key[1]]
        return {"image": image, "tags": tags, "index": torch.tensor(key[1])}


def collate(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A batch of strings: ``image`` ``[B, T, 8, 8]``, ``tags`` (−100 over padding), ``lengths``, ``index``."""
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "image": pad([example["image"] for example in examples], batch_first=True),
        "tags": pad([example["tags"] for example in examples], batch_first=True, padding_value=IGNORE),
        "lengths": torch.tensor([len(example["tags"]) for example in examples]),
        "index": torch.stack([example["index"] for example in examples]),
    }
