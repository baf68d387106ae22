"""New images for a trained density, all of them judged."""

from __future__ import annotations

from pathlib import Path

from lnz.errors import FormatError
from lnz.tasks.density.data import read_grey, resized
from lnz.tasks.density.module import DensityModule
from lnz.tasks.digits import digits


class DensityTest:
    """Binary images. Without ``images``, scikit-learn's handwritten digits that training does not see.

    Args:
        module: the trained one.
        images: folder of images; without it, the bundled digits, where 1 is ink.
        size: height and width that images are brought to, in pixels; by default, they have that of training.
        threshold: pixels above it are 1; between 0 (black) and 1 (white).
        invert: swap 0 and 1, so that dark pixels are 1.

    Raises:
        FormatError: bad files, or images of another size than those trained on.
    """

    def __init__(
        self,
        module: DensityModule,
        images: Path | None = None,
        *,
        size: tuple[int, int] | None = None,
        threshold: float = 0.5,
        invert: bool = False,
    ) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"data.threshold: expected a number in [0, 1), got {threshold}")
        grey = resized(digits("val")[0], size) if images is None else read_grey(images, size)
        trained = [module.settings["height"], module.settings["width"]]
        if list(grey.shape[1:]) != trained:
            raise FormatError(
                f"{images or 'the bundled digits'}: expected images of height and width {trained}, as in training, got "
                f"{list(grey.shape[1:])}; --data.size brings them to it"
            )
        if module.rates is None:
            raise FormatError("the checkpoint: holds no means of the training images; train it again")
        self.test = (grey > threshold).flatten(1) != invert
        self.rates = module.rates.double()
        self.says = f"{len(self.test)} {'bundled digits' if images is None else f'images of {images}'}"
