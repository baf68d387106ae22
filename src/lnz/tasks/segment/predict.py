"""Labels and confidence of new images, by a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.images import read_image, write_confidence
from lnz.io.masks import write_mask
from lnz.tasks.failures import Failed, attempted
from lnz.tasks.segment.module import SegmentModule

Confidence = Literal["png", "npy", "none"]


def predict(
    checkpoint: Mapping[str, Any],
    source: str,
    images: Iterable[Path],
    output: Path,
    confidence: Confidence = "png",
    *,
    strict: bool = False,
) -> Iterator[Path | Failed]:
    """Write ``<stem>_mask.png`` and ``<stem>_confidence.png`` (or .npy) for each image; yields each image when done.

    A mask holds the label of the largest marginal of each pixel, the confidence is that marginal. Images may differ
    in size. Masks have the values, and the colours, of those that the model was trained on. An image that cannot be
    read, or has other channels, is yielded as a failure.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        images: files to label.
        output: an existing folder.
        confidence: 16-bit PNG files where 65535 is 1, float32 arrays, or none.
        strict: raise at the first failure instead.

    Raises:
        FormatError: a checkpoint of another task or version.
        OSError: the output cannot be written.
    """
    module = SegmentModule.from_checkpoint(checkpoint, source)
    channels = module.settings["in_channels"]

    def work(path: Path) -> Path:
        image = read_image(path)
        if channels == 1:  # trained on grey scenes
            image = image.mean(0, keepdim=True)
        if image.shape[0] != channels:
            raise FormatError(f"{source}: trained on images of {channels} channels, {path} has {image.shape[0]}")
        with torch.inference_mode():
            labels, certainty = module.predict_step({"image": image[None]}, 0)
        write_mask(output / f"{path.stem}_mask.png", labels[0], module.legend)
        if confidence == "png":
            write_confidence(output / f"{path.stem}_confidence.png", certainty[0])
        elif confidence == "npy":
            with atomic_write(output / f"{path.stem}_confidence.npy", "wb") as file:
                np.save(file, certainty[0].float().cpu().numpy())
        return path

    yield from attempted(images, work, strict)
