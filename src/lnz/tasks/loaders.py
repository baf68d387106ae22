"""Batches of training and validation sequences, as the trainer asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from lnz.tasks.length_batches import LengthBatches
from lnz.tasks.streams import Keys, generator

T = TypeVar("T")


class Sequences(Protocol):
    """A dataset whose keys are those of :class:`~lnz.tasks.streams.Keys`."""

    @property
    def lengths(self) -> list[int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]: ...


class SequenceLoaders(pl.LightningDataModule):
    """Batches of the sequences ``train`` and ``val``, which a subclass sets with all that is declared here."""

    train: Sequences
    val: Sequences
    collate: Callable[[Any], dict[str, Any]]
    batch_size: int
    num_workers: int
    seed: int
    says: str
    """What the data are, in words."""

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        return self._loader(self.val, shuffle=False)

    def _loader(self, dataset: Sequences, shuffle: bool) -> DataLoader[dict[str, Any]]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        keys = Keys(len(dataset), self.seed, rank, world, shuffle=shuffle)
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=LengthBatches(keys, dataset.lengths, self.batch_size),
            num_workers=self.num_workers,
            collate_fn=self.collate,
            persistent_workers=self.num_workers > 0,
        )


def split(sentences: Sequence[T], val_fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Training and validation sentences, drawn from ``seed``; each in the order of the file."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"data.val_fraction: expected a number in (0, 1), got {val_fraction}")
    order = torch.randperm(len(sentences), generator=generator(seed)).tolist()
    count = max(1, round(val_fraction * len(sentences)))
    if count >= len(sentences):
        raise ValueError(f"data.train: expected at least 2 sentences to split, got {len(sentences)}; or give data.val")
    return [sentences[k] for k in sorted(order[count:])], [sentences[k] for k in sorted(order[:count])]
