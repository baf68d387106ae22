"""Orders and streams of random numbers that are functions of a seed, so that a run can be repeated and resumed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler


class Keys(Sampler[tuple[int, int]]):
    """The keys (epoch, index) of one process's share of an epoch.

    The order is a function of (seed, epoch) alone, so that a resumed run sees what an uninterrupted one would have.
    Shuffled shares are made equal by repeating a few keys, since processes train in step; unshuffled ones are not,
    so that each image is judged once.
    """

    def __init__(self, count: int, seed: int, rank: int = 0, world: int = 1, *, shuffle: bool = False) -> None:
        self.count, self.seed, self.rank, self.world, self.shuffle = count, seed, rank, world, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._indices())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in self._indices())

    def _indices(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.rank, self.count, self.world))
        order = torch.randperm(self.count, generator=generator(self.seed, self.epoch)).tolist()
        order += order[: -self.count % self.world]
        return order[self.rank :: self.world]


def generator(*key: int) -> torch.Generator:
    """A stream of random numbers that is a function of ``key`` alone."""
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))
