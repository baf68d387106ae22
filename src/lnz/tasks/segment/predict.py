"""Labels and confidence of new images, by a trained model."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lnz.errors import FormatError
from lnz.io.atomic import atomic_write
from lnz.io.images import confidence_png, read_image
from lnz.io.masks import mask_png
from lnz.io.shards import Kind
from lnz.tasks.failures import Failed, attempted
from lnz.tasks.segment.module import SegmentModule

Confidence = Literal["png", "npy", "none"]


class Labeller:
    """Labels images, one by one.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        confidence: 16-bit PNG files where 65535 is 1, float32 arrays, or none.

    Raises:
        FormatError: a checkpoint of another task or version.
    """

    columns: ClassVar[Mapping[str, Kind]] = {"mask": "bytes", "confidence": "bytes"}

    def __init__(self, checkpoint: Mapping[str, Any], source: str, confidence: Confidence = "png") -> None:
        self.module, self.source = SegmentModule.from_checkpoint(checkpoint, source), source
        self.confidence: Confidence = confidence

    def __call__(self, path: Path) -> dict[str, bytes | None]:
        """The files ``mask`` and ``confidence`` of an image.

        Raises:
            FormatError: it cannot be read, or has other channels than those trained on.
        """
        image, channels = read_image(path), self.module.settings["in_channels"]
        if channels == 1:  # trained on grey scenes
            image = image.mean(0, keepdim=True)
        if image.shape[0] != channels:
            raise FormatError(f"{self.source}: trained on images of {channels} channels, {path} has {image.shape[0]}")
        with torch.inference_mode():
            labels, certainty = self.module.predict_step({"image": image[None].to(self.module.device)}, 0)
        return {"mask": mask_png(labels[0], self.module.legend), "confidence": self._written(certainty[0])}

    def _written(self, certainty: Tensor) -> bytes | None:
        if self.confidence == "none":
            return None
        if self.confidence == "png":
            return confidence_png(certainty)
        buffer = io.BytesIO()
        np.save(buffer, certainty.float().cpu().numpy())
        return buffer.getvalue()

    def rows(self, items: Sequence[Path]) -> Iterator[dict[str, bytes | None] | Failed]:
        return attempted(items, self)


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
    labeller = Labeller(checkpoint, source, confidence)

    def work(path: Path) -> Path:
        for name, content in labeller(path).items():
            if content is not None:
                ending = "npy" if name == "confidence" and confidence == "npy" else "png"
                with atomic_write(output / f"{path.stem}_{name}.{ending}", "wb") as file:
                    file.write(content)
        return path

    yield from attempted(images, work, strict)
