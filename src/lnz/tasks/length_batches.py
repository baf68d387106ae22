"""Batches of sequences of similar length, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from lnz.tasks.streams import Keys, generator

POOL = 32
"""Batches that are sorted by length together."""


class LengthBatches(Sampler[list[tuple[int, int]]]):
    """Batches of the keys of ``sampler``: pools of them, each sorted by length and cut into batches.

    Where the keys are shuffled, so are the batches, as a function of (seed, epoch) alone; else short ones come first.

    Args:
        sampler: of one process's keys; the trainer tells it the epoch.
        lengths: of all sequences, by index.
        batch_size: sequences per batch; the last batch of a pool may be smaller.
    """

    def __init__(self, sampler: Keys, lengths: Sequence[int], batch_size: int) -> None:
        self.sampler, self.lengths, self.batch_size = sampler, lengths, batch_size

    def __len__(self) -> int:
        return (len(self.sampler) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = list(self.sampler)
        batches: list[list[tuple[int, int]]] = []
        for start in range(0, len(keys), POOL * self.batch_size):
            pool = sorted(keys[start : start + POOL * self.batch_size], key=lambda key: self.lengths[key[1]])
            batches += [pool[at : at + self.batch_size] for at in range(0, len(pool), self.batch_size)]
        if self.sampler.shuffle:
            stream = generator(self.sampler.seed, self.sampler.epoch, 1)
            batches = [batches[k] for k in torch.randperm(len(batches), generator=stream).tolist()]
        yield from batches
