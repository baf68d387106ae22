"""Batches of training and validation sequences, as the trainer asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lnz.tasks.length_batches import LengthBatches
from lnz.tasks.streams import Keys


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
