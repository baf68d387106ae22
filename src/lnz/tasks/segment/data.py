"""The data of the segmentation task: a folder of images and masks, or composed scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lnz.io.images import Pair, pair_images, read_image, select
from lnz.io.masks import Coding, Legend, check_pairs, read_mask, read_palette
from lnz.tasks.segment.scenes import SceneDataset, Scenes
from lnz.tasks.streams import Keys, generator
from lnz.typing import IGNORE

Example = dict[str, Tensor]
"""``image`` ``[C, H, W]``, its ``labels`` ``int64 [H, W]``, which ``pixels`` of the whole image they are (row-major,
``int64 [H, W]``), and the ``index`` of that image in its split."""


class SegmentData(pl.LightningDataModule):
    """Images and their masks. Without ``images``, scenes composed of handwritten digits.

    Everything is read and checked on construction, before training starts.

    Args:
        images: folder of images. Without it, scenes are composed of scikit-learn's handwritten digits.
        masks: folder of masks, PNG files of label numbers or of colours; by default, the folder of the images.
        mask_suffix: what a mask's name has after its image's name, as _mask in park.jpg and park_mask.png.
        val_images: folder of validation images; without it, part of the images is held out.
        val_masks: folder of validation masks; by default, the folder of the validation images.
        train_list: file that names the training images, one per line.
        val_list: file that names the validation images, one per line.
        val_fraction: share of the images held out where neither val_images nor val_list is given.
        num_classes: number of classes; by default, the largest label of any training mask, plus one.
        void_label: value of mask pixels that are left out of training and of every measure; of colours, its number in
            the palette, from 0.
        label_values: value of each label's pixels in masks, as [0,255]; by default, values are labels. Predicted masks
            have these values, too.
        palette: file of a line per label, its red, green and blue (0 to 255) and its name; for masks of colours, and
            to draw and name the labels of others. By default, colours are those of the masks, if they have any.
        encoding: of the text in lists and palette, as latin-1 or gbk; by default UTF-8.
        batch_size: images per batch (and per process).
        flip: mirror training images, and their masks with them, left to right at random.
        crop: side of the square cut out of training images and their masks at random, in pixels, at most the image; by
            default, none is cut.
        num_workers: processes that load images.
        scenes: how scenes are composed, where no images are given.
        seed: what splits, order, augmentation and scenes are drawn from.
    """

    def __init__(
        self,
        images: Path | None = None,
        *,
        masks: Path | None = None,
        mask_suffix: str = "",
        val_images: Path | None = None,
        val_masks: Path | None = None,
        train_list: Path | None = None,
        val_list: Path | None = None,
        val_fraction: float = 0.2,
        num_classes: int | None = None,
        void_label: int | None = None,
        label_values: tuple[int, ...] | None = None,
        palette: Path | None = None,
        encoding: str | None = None,
        batch_size: int = 8,
        flip: bool = False,
        crop: int | None = None,
        num_workers: int = 0,
        scenes: Scenes = Scenes(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size: expected a positive integer, got {batch_size}")
        if crop is not None and crop < 1:
            raise ValueError(f"data.crop: expected a positive integer, got {crop}")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        if images is None:
            given = {"masks": masks, "val_images": val_images, "train_list": train_list, "val_list": val_list}
            given |= {"label_values": label_values, "palette": palette}
            extra = [name for name, value in given.items() if value is not None]
            if extra:
                raise ValueError(f"data.{extra[0]}: needs data.images, the folder of the training images")
            self.in_channels, self.legend = 1, Legend(tuple(scenes.class_names))
            shown = SceneDataset(scenes, "train", seed)
            self.class_counts = shown.class_counts
            self.train: Dataset[Example] = Augmented(shown, seed, flip, crop)
            self.val: Dataset[Example] = SceneDataset(scenes, "val", seed)
            self.val_sizes = [(scenes.size, scenes.size)] * scenes.val
        else:
            pairs = pair_images(images, masks, mask_suffix)
            val_pairs = pair_images(val_images, val_masks, mask_suffix) if val_images else None
            train_pairs, val_pairs = split_pairs(
                pairs,
                val_pairs=val_pairs,
                train_list=train_list,
                val_list=val_list,
                val_fraction=val_fraction,
                seed=seed,
                encoding=encoding,
            )
            for part, of in ((train_pairs, "training"), (val_pairs, "validation")):
                if not part:
                    raise ValueError(f"data: no image is left for {of}")
            coding = self.coding(void_label, label_values, None if palette is None else read_palette(palette, encoding))
            checked = check_pairs(train_pairs, num_classes, coding)
            self.in_channels, self.legend, self.class_counts = 3, checked.legend, list(checked.counts)
            self.val_sizes = list(check_pairs(val_pairs, checked.num_classes, coding).sizes)
            self.train = Augmented(FolderDataset(train_pairs, coding), seed, flip, crop)
            self.val = FolderDataset(val_pairs, coding)
        self.class_names = list(self.legend.names)
        self.num_classes = len(self.class_names)

    def coding(self, void: int | None, values: Sequence[int] | None, palette: Legend | None) -> Coding:
        """What the pixels of masks mean, by the options."""
        return Coding(void, None if values is None else tuple(values), palette)

    def train_dataloader(self) -> DataLoader[Example]:
        rank, world = self._rank_and_world()
        sampler = Keys(len(self.train), self.seed, rank, world, shuffle=True)  # type: ignore[arg-type]
        return self._loader(self.train, self.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[Example]:
        rank, world = self._rank_and_world()
        batch_size = self.batch_size if len(set(self.val_sizes)) == 1 else 1  # images are never padded when judged
        return self._loader(self.val, batch_size, Keys(len(self.val_sizes), self.seed, rank, world))

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: Dataset[Example], batch_size: int, sampler: Keys) -> DataLoader[Example]:
        return DataLoader(
            dataset,
            batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            persistent_workers=self.num_workers > 0,
        )


class FolderDataset(Dataset[Example]):
    """Pairs of files."""

    def __init__(self, pairs: Sequence[Pair], coding: Coding) -> None:
        self.pairs, self.coding = list(pairs), coding

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> Example:
        pair = self.pairs[key[1]]
        image, labels = read_image(pair.image), read_mask(pair.mask, self.coding)
        pixels = torch.arange(labels.numel()).reshape(labels.shape)
        return {"image": image, "labels": labels, "pixels": pixels, "index": torch.tensor(key[1])}


class Augmented(Dataset[Example]):
    """Examples mirrored and cut at random, by a stream that is a function of (seed, epoch, index) alone."""

    def __init__(self, examples: Dataset[Example], seed: int, flip: bool = False, crop: int | None = None) -> None:
        self.examples, self.seed, self.flip, self.crop = examples, seed, flip, crop

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> Example:
        example, stream = self.examples[key], generator(self.seed, *key)  # type: ignore[index]
        shown = {name: example[name] for name in ("image", "labels", "pixels")}
        if self.flip and torch.rand((), generator=stream) < 0.5:
            shown = {name: values.flip(-1) for name, values in shown.items()}
        if self.crop:
            sizes = shown["labels"].shape
            top, left = (int(torch.randint(size - min(self.crop, size) + 1, (), generator=stream)) for size in sizes)
            window = (..., slice(top, top + self.crop), slice(left, left + self.crop))
            shown = {name: values[window] for name, values in shown.items()}
        return {**shown, "index": example["index"]}


def split_pairs(
    pairs: list[Pair],
    *,
    val_pairs: list[Pair] | None,
    train_list: Path | None,
    val_list: Path | None,
    val_fraction: float,
    seed: int,
    encoding: str | None = None,
) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs: by folder, else by list, else by a draw from ``seed``."""
    train = select(pairs, train_list, encoding) if train_list else pairs
    if val_pairs is not None:
        return train, select(val_pairs, val_list, encoding) if val_list else val_pairs
    if val_list:
        val = select(pairs, val_list, encoding)
        names = {pair.name for pair in val}
        if train_list and any(pair.name in names for pair in train):
            twice = next(pair.name for pair in train if pair.name in names)
            raise ValueError(f"data.val_list: {twice!r} is in the training list too")
        return [pair for pair in train if pair.name not in names], val
    if train_list:
        names = {pair.name for pair in train}
        return train, [pair for pair in pairs if pair.name not in names]
    if not 0 < val_fraction < 1:
        raise ValueError(f"data.val_fraction: expected a number in (0, 1), got {val_fraction}")
    order = torch.randperm(len(pairs), generator=generator(seed)).tolist()
    held_out = max(1, round(val_fraction * len(pairs)))
    if held_out >= len(pairs):
        raise ValueError(f"data.images: expected at least 2 images to split, got {len(pairs)}; or give data.val_images")
    return [pairs[i] for i in sorted(order[held_out:])], [pairs[i] for i in sorted(order[:held_out])]


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """Stack examples; where sizes differ, smaller ones are padded at the right and bottom with unobserved pixels."""
    height = max(example["labels"].shape[0] for example in examples)
    width = max(example["labels"].shape[1] for example in examples)

    def stack(name: str, value: float) -> Tensor:
        padded = []
        for example in examples:
            h, w = example["labels"].shape
            padded.append(F.pad(example[name], (0, width - w, 0, height - h), value=value))
        return torch.stack(padded)

    return {
        "image": stack("image", 0.0),
        "labels": stack("labels", IGNORE),
        "pixels": stack("pixels", IGNORE),
        "index": torch.stack([example["index"] for example in examples]),
    }
