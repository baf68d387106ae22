"""Folders of images: listing, pairing with masks, reading, with errors that name the file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.files import normalized
from lnz.io.limits import limits
from lnz.io.lists import read_list

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""What is read, whatever a name says: Pillow would also start other programs (Ghostscript, for EPS)."""
IMAGE_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})


@dataclass(frozen=True)
class Pair:
    """An image and the mask of its labels."""

    image: Path
    mask: Path

    @property
    def name(self) -> str:
        return self.image.stem


def list_images(folder: Path, *, skip_suffix: str = "") -> list[Path]:
    """The image files of a folder in order of name, without hidden ones and those whose stem ends in ``skip_suffix``.

    Raises:
        FormatError: the folder is missing, holds no image, or two images whose stems are the same.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}")
    skip_suffix = normalized(skip_suffix)
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not (skip_suffix and normalized(path.stem).endswith(skip_suffix))
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
    """An image as ``float32 [3, H, W]`` in [0, 1], upright as its EXIF data says; what is transparent lies on white.

    Raises:
        FormatError: the image cannot be read, is of another mode, has more pixels than
            :class:`~lnz.io.limits.Limits` allow, or shows nothing but white once it lies on white.
    """
    with opened(path, IMAGE_MODES, "an image") as image:
        pixels = np.array(_on_white(path, image))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _on_white(path: Path, image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA") and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    low, high = image.getchannel("A").getextrema()
    if low != high and all(low == 255 for low, _ in flat.convert("RGB").getextrema()):  # type: ignore[misc]
        raise FormatError(f"{path}: expected an image that shows on white, got one that is white and transparent")
    return flat.convert("RGB")


def opened(path: Path, modes: Iterable[str], what: str) -> Image.Image:
    """An image file, decoded and upright.

    Raises:
        FormatError: it cannot be read, is of another mode, or has too many pixels.
    """
    try:
        image = Image.open(path, formats=FORMATS)
        limits().check(path, "pixels", image.width * image.height, path.stat().st_size)
        image.load()  # Pillow reads lazily; a truncated file shows only here
        kind = image.format
        image = ImageOps.exif_transpose(image)
        image.format = kind
    except FormatError:
        raise
    except Exception as error:  # whatever its decoders trip over: an OSError, a SyntaxError, a struct.error
        raise FormatError(f"{path}: cannot be read as {what} ({error})") from error
    if image.mode not in modes:
        raise FormatError(f"{path}: expected {what} of mode {', '.join(sorted(modes))}, got mode {image.mode}")
    return image


def write_confidence(path: Path, confidence: Tensor) -> None:
    """Write probabilities ``[H, W]`` as a 16-bit PNG, where 65535 is 1."""
    with atomic_write(path, "wb") as file:
        file.write(confidence_png(confidence))


def confidence_png(confidence: Tensor) -> bytes:
    """What :func:`write_confidence` writes."""
    levels = (confidence.clamp(0, 1) * 65535).round().to(torch.int32).cpu().numpy().astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()
