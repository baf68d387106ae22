"""The data of the density task: binary images, of a folder or of the bundled handwritten digits."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lnz.errors import FormatError
from lnz.io.images import list_images, read_image
from lnz.tasks.digits import digits
from lnz.tasks.streams import Keys, generator


class DensityData(pl.LightningDataModule):
    """Binary images. Without ``images``, scikit-learn's handwritten digits, 8 × 8 pixels.

    Everything is read and checked on construction, before training starts. Images are turned grey, in [0, 1], brought
    to one size, and cut at a threshold: brighter pixels are 1.

    Args:
        images: folder of images; without it, the bundled digits, where 1 is ink.
        test_images: folder of test images; without it, part of the images is held out.
        test_fraction: share of the images held out where test_images is not given.
        size: height and width that images are brought to, in pixels; by default, all have one size and keep it.
        threshold: pixels above it are 1; between 0 (black) and 1 (white).
        invert: swap 0 and 1, so that dark pixels are 1.
        batch_size: images per step.
        seed: what splits, order and every other random number of the run are drawn from.
    """

    def __init__(
        self,
        images: Path | None = None,
        *,
        test_images: Path | None = None,
        test_fraction: float = 0.2,
        size: tuple[int, int] | None = None,
        threshold: float = 0.5,
        invert: bool = False,
        batch_size: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size: expected a positive integer, got {batch_size}")
        if size is not None and min(size) < 1:
            raise ValueError(f"data.size: expected a positive height and width, got {list(size)}")
        if not 0 <= threshold < 1:
            raise ValueError(f"data.threshold: expected a number in [0, 1), got {threshold}")
        if images is None:
            if test_images is not None:
                raise ValueError("data.test_images: needs data.images, the folder of the training images")
            train, test = resized(digits("train")[0], size), resized(digits("val")[0], size)
        elif test_images is not None:
            train, test = read_grey(images, size), read_grey(test_images, size)
            if train.shape[1:] != test.shape[1:]:
                raise ValueError(
                    f"data.test_images: expected the size of the training images, {list(train.shape[1:])}, got "
                    f"{list(test.shape[1:])}; data.size brings both to one"
                )
        else:
            train, test = split(read_grey(images, size), test_fraction, seed)
        self.batch_size, self.seed = batch_size, seed
        self.height, self.width = train.shape[1:]
        self.train, self.test = ((part > threshold).flatten(1) != invert for part in (train, test))
        """``bool [R, height · width]`` each."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        order = Keys(len(self.train), self.seed, shuffle=True)
        return DataLoader(Rows(self.train), self.batch_size, sampler=order, collate_fn=torch.stack)

    def val_dataloader(self) -> DataLoader[Tensor]:
        order = Keys(len(self.test), self.seed)
        return DataLoader(Rows(self.test), len(self.test), sampler=order, collate_fn=torch.stack)


class Rows(Dataset[Tensor]):
    """Rows of a tensor by the keys of :class:`~lnz.tasks.streams.Keys`, as float."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows.float()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return self.rows[key[1]]


def read_grey(folder: Path, size: tuple[int, int] | None) -> Tensor:
    """The images of a folder, the mean of their channels, ``[R, height, width]`` in [0, 1].

    Raises:
        FormatError: no such folder, an unreadable image, or images of several sizes where none is asked for.
    """
    found: list[Tensor] = []
    for path in list_images(folder):
        image = resized(read_image(path).mean(0, keepdim=True), size)[0]
        if found and image.shape != found[0].shape:
            raise FormatError(
                f"{path}: expected the size of the others, {found[0].shape[1]}×{found[0].shape[0]} (width × height), "
                f"got {image.shape[1]}×{image.shape[0]}; data.size brings them to one"
            )
        found.append(image)
    return torch.stack(found)


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """``[R, H, W]`` at another height and width, averaged where that is smaller."""
    if size is None or tuple(images.shape[1:]) == tuple(size):
        return images
    return F.interpolate(images[:, None], tuple(size), mode="bilinear", align_corners=False, antialias=True)[:, 0]


def split(images: Tensor, test_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Training and test images, drawn from ``seed``."""
    if not 0 < test_fraction < 1:
        raise ValueError(f"data.test_fraction: expected a number in (0, 1), got {test_fraction}")
    held_out = max(1, round(test_fraction * len(images)))
    if held_out >= len(images):
        raise ValueError(
            f"data.images: expected at least 2 images to split, got {len(images)}; or give data.test_images"
        )
    order = torch.randperm(len(images), generator=generator(seed))
    return images[order[held_out:]], images[order[:held_out]]
