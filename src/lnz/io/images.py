"""Folders of images and masks: pairing, checking, reading and writing, with errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.files import normalized
from lnz.io.lists import read_list
from lnz.typing import IGNORE

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
IMAGE_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
MASK_MODES = frozenset({"1", "L", "P"})


@dataclass(frozen=True)
class Pair:
    """An image and the mask of its labels."""

    image: Path
    mask: Path

    @property
    def name(self) -> str:
        return self.image.stem


def list_images(folder: Path, *, skip_suffix: str = "") -> list[Path]:
    """The image files of a folder in order of name, without those whose stem ends in ``skip_suffix``.

    Raises:
        FormatError: the folder is missing, holds no image, or two images whose stems are the same.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}")
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not (skip_suffix and path.stem.endswith(skip_suffix))
    )
    if not images:
        raise FormatError(f"{folder}: expected images ({', '.join(sorted(IMAGE_SUFFIXES))}), found none")
    stems: dict[str, Path] = {}
    for path in images:
        other = stems.setdefault(normalized(path.stem), path)
        if other is not path:
            raise FormatError(f"{path}: {other.name} in the same folder has the same name")
    return images


def pair_images(images: Path, masks: Path | None = None, mask_suffix: str = "") -> list[Pair]:
    """Match each image of a folder with the mask ``<stem><mask_suffix>.*`` in ``masks`` (by default, the same folder).

    Raises:
        FormatError: an image without mask (named), or no way to tell masks from images.
    """
    folder = masks or images
    if not mask_suffix and folder.resolve() == images.resolve():
        raise FormatError(
            f"{images}: images and masks in one folder need a mask suffix to be told apart, such as _mask"
        )
    found = {normalized(path.stem): path for path in list_images(folder)}
    pairs = []
    for path in list_images(images, skip_suffix=mask_suffix if folder.resolve() == images.resolve() else ""):
        mask = found.get(normalized(path.stem + mask_suffix))
        if mask is None:
            raise FormatError(f"{path}: no mask {path.stem}{mask_suffix}.* in {folder}")
        pairs.append(Pair(path, mask))
    return pairs


def select(pairs: Sequence[Pair], list_file: Path, encoding: str | None = None) -> list[Pair]:
    """The pairs that a list file names (:func:`lnz.io.lists.read_list`).

    Raises:
        FormatError: the list cannot be read, is empty, or names an image that is not there.
    """
    by_name = {pair.name: pair for pair in pairs} | {pair.image.name: pair for pair in pairs}
    return read_list(list_file, by_name, "image", encoding)


def read_image(path: Path) -> Tensor:
    """An image as ``float32 [3, H, W]`` in [0, 1]."""
    with _opened(path, IMAGE_MODES, "an image") as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def read_mask(path: Path) -> Tensor:
    """A mask of label numbers as ``int64 [H, W]``; a palette image gives its indices."""
    with _opened(path, MASK_MODES, "a mask of label numbers") as image:
        return torch.from_numpy(np.array(image).astype(np.int64))


def _opened(path: Path, modes: Iterable[str], what: str) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()  # Pillow reads lazily; a truncated file shows only here
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: cannot be read as {what} ({error})") from error
    if image.mode not in modes:
        raise FormatError(f"{path}: expected {what} of mode {', '.join(sorted(modes))}, got mode {image.mode}")
    return image


@dataclass(frozen=True)
class Checked:
    """What a look at every file has shown."""

    num_classes: int
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each pair, in order."""
    void: bool
    """Whether some pixel is void."""


def check_pairs(
    pairs: Sequence[Pair],
    num_classes: int | None = None,
    void_label: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Checked:
    """Read every image and mask once, so that a bad file shows before training does.

    Raises:
        FormatError: naming the first file that is unreadable, of a wrong mode, of another size than its image, or holds
            a label out of range.
    """
    sizes, largest, seen, void = [], -1, set(), False
    for done, pair in enumerate(pairs):
        with _opened(pair.image, IMAGE_MODES, "an image") as image:
            width, height = image.size
        mask = read_mask(pair.mask)
        if tuple(mask.shape) != (height, width):
            raise FormatError(
                f"{pair.mask}: expected the size of its image {pair.image.name}, {width}×{height} (width × height), "
                f"got {mask.shape[1]}×{mask.shape[0]}"
            )
        labels = set(mask.unique().tolist())
        void |= void_label in labels
        labels.discard(void_label)
        if num_classes is not None and labels and max(labels) >= num_classes:
            bad = sorted(label for label in labels if label >= num_classes)
            known = "" if void_label is None else f", or {void_label} for void"
            raise FormatError(f"{pair.mask}: expected labels in [0, {num_classes}){known}, got {bad[:8]}")
        if labels and max(labels) > largest:
            largest = max(labels)
            if num_classes is None and largest == 255:
                raise FormatError(
                    f"{pair.mask}: holds label 255, often the mark of void pixels; "
                    "say which it is by --data.void_label 255 or --data.num_classes 256"
                )
        seen |= labels
        sizes.append((height, width))
        progress(done + 1)
    if not seen:
        raise FormatError(f"{pairs[0].mask.parent if pairs else 'masks'}: every pixel of every mask is void")
    return Checked(num_classes or largest + 1, tuple(sizes), void)


def remap_void(mask: Tensor, void_label: int | None) -> Tensor:
    """The mask with void pixels as −100, *unobserved*."""
    return mask if void_label is None else mask.masked_fill(mask == void_label, IGNORE)


def write_mask(path: Path, labels: Tensor) -> None:
    """Write labels ``int64 [H, W]`` below 256 as a PNG of mode L."""
    with atomic_write(path, "wb") as file:
        Image.fromarray(labels.to(torch.uint8).cpu().numpy()).save(file, format="PNG")


def write_confidence(path: Path, confidence: Tensor) -> None:
    """Write probabilities ``[H, W]`` as a 16-bit PNG, where 65535 is 1."""
    levels = (confidence.clamp(0, 1) * 65535).round().to(torch.int32).cpu().numpy().astype(np.uint16)
    with atomic_write(path, "wb") as file:
        Image.fromarray(levels).save(file, format="PNG")
