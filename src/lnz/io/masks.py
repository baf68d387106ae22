"""Masks: which pixel has which label, and what labels are called and drawn in."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.files import Source, read_text
from lnz.io.images import IMAGE_MODES, Pair, opened
from lnz.typing import IGNORE

Colour = tuple[int, int, int]
GREY_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L"})
LOSSLESS = frozenset({"PNG", "GIF", "BMP", "DIB", "PPM", "TIFF"})
_LINE = re.compile(r"([0-9]{1,3})[\s,]+([0-9]{1,3})[\s,]+([0-9]{1,3})[\s,]+(\S.*)")


@dataclass(frozen=True)
class Legend:
    """What labels are called, which colours they are drawn in, and which value of a mask each is.

    Attributes:
        names: one for each label.
        colours: red, green and blue of each, 0 to 255; ``None`` where masks say nothing of colours.
        values: of pixels, one for each label; ``None`` where they are the labels.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] | None = None
    values: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Coding:
    """How the pixels of masks stand for labels.

    Attributes:
        void: the value of void pixels; of colours, its number in the palette.
        values: the value of each label's pixels; by default, values are labels.
        palette: the colour and the name of each label, for masks of colours; masks of numbers are drawn in them.
    """

    void: int | None = None
    values: tuple[int, ...] | None = None
    palette: Legend | None = None

    def __post_init__(self) -> None:
        for name, given in (("label_values", self.values), ("palette", self.palette and self.palette.colours)):
            if given is not None and (not given or len(set(given)) < len(given)):
                raise FormatError(f"{name}: expected at least one entry, each once, got {list(given)}")
        if self.values is not None and (min(self.values) < 0 or self.void in self.values):
            raise FormatError(f"label_values: expected values from 0, without {self.void} for void, got {self.values}")
        if self.values and self.palette and len(self.values) != len(self.palette.names):
            both = f"{len(self.values)} and {len(self.palette.names)}"
            raise FormatError(f"label_values: expected as many values as the palette has colours, got {both}")

    @property
    def num_classes(self) -> int | None:
        """The number of labels, where values or palette tell it; a void colour that comes last is none."""
        if self.values is not None:
            return len(self.values)
        return self.palette and len(self.palette.names) - (self.void == len(self.palette.names) - 1)


def read_palette(path: Source, encoding: str | None = None) -> Legend:
    """Read colours and names of labels: one per line, red, green, blue (0 to 255) and the name; label 0 first.

    Empty lines and lines with # are passed over.

    Raises:
        FormatError: the file cannot be read, or a line is something else; names the line.
    """
    names, colours = [], []
    for number, line in enumerate(read_text(path, encoding).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        colour = tuple(int(match[k]) for k in (1, 2, 3)) if match else ()
        if match is None:
            raise FormatError(f"{path}, line {number}: expected red, green, blue and a name, got {line.strip()[:80]!r}")
        if max(colour) > 255 or colour in colours:
            raise FormatError(f"{path}, line {number}: expected a new colour of numbers to 255, got {colour}")
        names.append(match[4].strip())
        colours.append(colour)
    if not names:
        raise FormatError(f"{path}: expected a colour and a name on each line, found none")
    return Legend(tuple(names), tuple(colours))


def read_mask(path: Path, coding: Coding = Coding()) -> Tensor:
    """A mask as ``int64 [H, W]``: the label of each pixel, −100 where it is void.

    Raises:
        FormatError: the mask cannot be read, is in a lossy format, is coloured where no palette is given, or has a
            value or colour that the coding lacks.
    """
    return _labels(path, _open_mask(path), coding)


def _open_mask(path: Path) -> Image.Image:
    image = opened(path, GREY_MODES | {"RGB", "RGBA"}, "a mask of label numbers or colours")
    if image.format not in LOSSLESS or image.info.get("compression") in ("jpeg", "webp", "tiff_jpeg"):
        raise FormatError(
            f"{path}: expected a mask in a lossless format, such as PNG, got {image.format}, which changes labels"
        )
    return image


def _labels(path: Path, image: Image.Image, coding: Coding) -> Tensor:
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    if image.mode in ("RGB", "RGBA"):
        if image.mode == "RGBA" or coding.palette is None or coding.palette.colours is None:
            raise FormatError(
                f"{path}: expected a mask of label numbers of mode {', '.join(sorted(GREY_MODES))}, got mode "
                f"{image.mode}; of opaque colours, data.palette names a file that says which label each is"
            )
        packed = np.array(image).astype(np.int64) @ np.array([65536, 256, 1])
        keys = [65536 * red + 256 * green + blue for red, green, blue in coding.palette.colours]
        labels = _looked_up(packed, keys)
        if (labels < 0).any():
            unknown = int(packed[labels < 0][0])
            colour = (unknown >> 16, unknown >> 8 & 255, unknown & 255)
            raise FormatError(f"{path}: expected colours of the palette, got {colour}")
        values = labels
    else:
        values = np.array(image).astype(np.int64)
        labels = values if coding.values is None else _looked_up(values, coding.values)
        unknown = (labels < 0) & (values != coding.void)
        if unknown.any():
            known = "" if coding.void is None else f", or {coding.void} for void"
            shown = ", ".join(map(str, (coding.values or ())[:16]))
            found = np.unique(values[unknown])[:8].tolist()
            raise FormatError(f"{path}: expected the values of data.label_values, {shown}{known}, got {found}")
    return torch.from_numpy(labels if coding.void is None else np.where(values == coding.void, IGNORE, labels))


def _looked_up(values: np.ndarray, keys: Sequence[int]) -> np.ndarray:
    """Where each value is among ``keys``; −1 where it is not."""
    order = np.argsort(np.array(keys))
    known = np.array(keys)[order]
    at = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[at] == values, order[at], -1)


@dataclass(frozen=True)
class Checked:
    """What a look at every file has shown."""

    num_classes: int
    sizes: tuple[tuple[int, int], ...]
    """Height and width of each pair, in order."""
    void: bool
    """Whether some pixel is void."""
    legend: Legend
    counts: tuple[int, ...]
    """Pixels of each label, void ones apart."""


def check_pairs(
    pairs: Sequence[Pair],
    num_classes: int | None = None,
    coding: Coding = Coding(),
    progress: Callable[[int], None] = lambda done: None,
) -> Checked:
    """Read every image and mask once, so that a bad file shows before training does.

    Raises:
        FormatError: naming the first file that is unreadable, of a wrong mode, of another size than its image, or holds
            a label out of range, or a label in another colour than the masks before.
    """
    sizes, counts, void = [], Counter[int](), False
    wanted, colours = num_classes or coding.num_classes, {}
    for done, pair in enumerate(pairs):
        with opened(pair.image, IMAGE_MODES, "an image") as image:
            width, height = image.size
        with _open_mask(pair.mask) as image:
            mask = _labels(pair.mask, image, coding)
            drawn = image.getpalette("RGB") if image.mode == "P" and coding.palette is None else None
        if tuple(mask.shape) != (height, width):
            raise FormatError(
                f"{pair.mask}: expected the size of its image {pair.image.name}, {width}×{height} (width × height), "
                f"got {mask.shape[1]}×{mask.shape[0]}"
            )
        values, pixels = (found.tolist() for found in mask.unique(return_counts=True))
        labels = set(values)
        void |= IGNORE in labels
        labels.discard(IGNORE)
        _check_range(pair.mask, labels, wanted, coding)
        for label in labels if drawn else ():
            value = label if coding.values is None else coding.values[label]
            colour = tuple((drawn or [])[3 * value : 3 * value + 3])
            if len(colour) == 3 and colours.setdefault(label, colour) != colour:
                raise FormatError(
                    f"{pair.mask}: expected label {label} in the colour of the masks before, {colours[label]}, got "
                    f"{colour}; data.palette says what numbers mean"
                )
        counts.update({label: n for label, n in zip(values, pixels, strict=True) if label != IGNORE})
        sizes.append((height, width))
        progress(done + 1)
    if not counts:
        raise FormatError(f"{pairs[0].mask.parent if pairs else 'masks'}: every pixel of every mask is void")
    count = wanted or max(counts) + 1
    return Checked(
        count, tuple(sizes), void, _legend(count, coding, colours), tuple(counts[label] for label in range(count))
    )


def _check_range(path: Path, labels: set[int], num_classes: int | None, coding: Coding) -> None:
    """Raise where a mask holds a label past the last, or one that is hardly a label."""
    if num_classes is not None:
        bad = sorted(label for label in labels if label >= num_classes)
        if bad:
            known = "" if coding.void is None else f", or {coding.void} for void"
            raise FormatError(f"{path}: expected labels in [0, {num_classes}){known}, got {bad[:8]}")
    elif labels in ({0, 255}, {255}):
        raise FormatError(
            f"{path}: holds 0 and 255: two labels are --data.label_values '[0,255]'; where 255 marks void pixels, "
            "--data.void_label 255"
        )
    elif labels and max(labels) >= 255:
        raise FormatError(
            f"{path}: holds label {max(labels)}; --data.void_label {max(labels)} marks void pixels, "
            "--data.label_values lists the values that are labels, in order"
        )


def _legend(count: int, coding: Coding, colours: dict[int, Colour]) -> Legend:
    values = coding.values and coding.values[:count]
    if coding.palette is not None and len(coding.palette.names) >= count:
        return Legend(coding.palette.names[:count], (coding.palette.colours or ())[:count] or None, values)
    names = tuple(map(str, values or range(count)))
    drawn = tuple(colours.get(label, (0, 0, 0)) for label in range(count)) if colours else None
    return Legend(names, drawn, values)


def write_mask(path: Path, labels: Tensor, legend: Legend | None = None) -> None:
    """Write labels ``int64 [H, W]`` as a PNG, in the values and colours of a legend: mode P, L or 16 bits."""
    with atomic_write(path, "wb") as file:
        file.write(mask_png(labels, legend))


def mask_png(labels: Tensor, legend: Legend | None = None) -> bytes:
    """What :func:`write_mask` writes."""
    values = labels.cpu().numpy()
    if legend is not None and legend.values is not None:
        values = np.array(legend.values)[values]
    largest = max(legend.values or [0]) if legend is not None else 0
    wide = max(int(values.max(initial=0)), largest) > 255
    image = Image.fromarray(values.astype(np.uint16 if wide else np.uint8))
    if legend is not None and legend.colours is not None and not wide:
        drawn = [(value, value, value) for value in range(256)]
        for value, colour in zip(legend.values or range(len(legend.colours)), legend.colours, strict=True):
            drawn[value] = colour
        image = Image.fromarray(values.astype(np.uint8), mode="P")
        image.putpalette([part for colour in drawn for part in colour])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
