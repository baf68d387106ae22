"""New images for a trained segmentation, all of them judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lnz.errors import FormatError
from lnz.io.masks import Coding, Legend
from lnz.tasks.segment.data import SegmentData
from lnz.tasks.segment.module import SegmentModule
from lnz.tasks.segment.scenes import Scenes


class SegmentTest(SegmentData):
    """Images and their masks. Without ``images``, validation scenes composed of handwritten digits.

    Args:
        module: the trained one; labels are its classes.
        images: folder of images. Without it, scenes are composed of scikit-learn's handwritten digits.
        masks: folder of masks, PNG files of label numbers; by default, the folder of the images.
        mask_suffix: what a mask's name has after its image's name, as _mask in park.jpg and park_mask.png.
        image_list: file that names the images to judge, one per line; by default, all in the folder.
        void_label: value of mask pixels that are left out of every measure; of colours, its number in the palette.
        label_values: value of each label's pixels in masks; by default, as in training.
        palette: file of a line per label, its red, green and blue and its name; by default, as in training.
        encoding: of the text in list and palette, as latin-1 or gbk; by default UTF-8.
        batch_size: images per batch.
        num_workers: processes that load images.
        scenes: how scenes are composed, where no images are given.
        seed: what scenes are drawn from.

    Raises:
        FormatError: bad files, or images of other channels or labels than those trained on.
    """

    def __init__(
        self,
        module: SegmentModule,
        images: Path | None = None,
        *,
        masks: Path | None = None,
        mask_suffix: str = "",
        image_list: Path | None = None,
        void_label: int | None = None,
        label_values: tuple[int, ...] | None = None,
        palette: Path | None = None,
        encoding: str | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        scenes: Scenes = Scenes(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        self.trained = module.legend
        super().__init__(
            images,
            masks=masks,
            mask_suffix=mask_suffix,
            val_images=images,  # all of them: training images are read, and not looked at
            val_masks=masks,
            val_list=image_list,
            num_classes=module.settings["num_classes"],
            void_label=void_label,
            label_values=label_values,
            palette=palette,
            encoding=encoding,
            batch_size=batch_size,
            num_workers=num_workers,
            scenes=scenes,
            seed=seed,
        )
        what = "composed scenes" if images is None else f"images of {images}"
        for name, got in {"in_channels": self.in_channels, "num_classes": self.num_classes}.items():
            if got != module.settings[name]:
                said = {"in_channels": "channels", "num_classes": "classes"}[name]
                hint = "; give --data.images, or --data.scenes.labels as in training" if images is None else ""
                raise FormatError(f"{what}: expected {module.settings[name]} {said}, as in training, got {got}{hint}")
        self.says = f"{len(self.val_sizes)} {what}"

    def coding(self, void: int | None, values: Sequence[int] | None, palette: Legend | None) -> Coding:
        if self.trained is not None:
            values = self.trained.values if values is None else values
            palette = self.trained if palette is None and self.trained.colours is not None else palette
        return super().coding(void, values, palette)
