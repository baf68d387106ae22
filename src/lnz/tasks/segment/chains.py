"""Persistent chains of training images: one labelling of each, which goes on wherever a crop of it comes again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lnz.distributions import MRF
from lnz.inference import Chains, Sampler
from lnz.typing import IGNORE


class ImageChains:
    """A labelling of each training image seen so far, kept on the CPU in small integers.

    Every image has a model of its own, so that a chain can only go on where the image does: crops and mirrored images
    read and write their own pixels of it. Where no step has been yet, a chain starts at gold, and at a random label
    where that is unknown.
    """

    def __init__(self) -> None:
        self.labels: dict[int, Tensor] = {}

    def of(
        self, p: MRF, gold: Tensor, batch: Mapping[str, Tensor], sampler: Sampler, generator: torch.Generator
    ) -> Chains:
        """The chains of a batch of images, one each.

        Args:
            p: their models, batch shape ``[B]``.
            gold: ``int64 [B, N]``, −100 where unknown.
            batch: with ``pixels`` and ``index``, see :data:`~lnz.tasks.segment.data.Example`.
            sampler: that advances them.
            generator: of the random numbers.
        """
        start = gold.clone()
        for row, (pixels, kept) in enumerate(self._kept(batch)):
            inside = pixels != IGNORE
            seen = kept[pixels[inside]].to(gold.device, torch.int64)
            start[row, inside.to(gold.device)] = torch.where(seen >= 0, seen, start[row, inside.to(gold.device)])
        return sampler.init(p.model, 1, generator, start[None])

    def keep(self, chains: Chains, batch: Mapping[str, Tensor]) -> None:
        """Take in where the chains of a batch have come to."""
        for labels, (pixels, kept) in zip(chains.labels[0].cpu(), self._kept(batch), strict=True):
            inside = pixels != IGNORE
            kept[pixels[inside]] = labels[inside].to(kept.dtype)

    def _kept(self, batch: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per image of the batch, which pixels are shown, and the chain of the whole image, −1 where none has been."""
        found = []
        for index, pixels in zip(batch["index"].tolist(), batch["pixels"].flatten(1).cpu(), strict=True):
            kept = self.labels.get(index, torch.empty(0, dtype=torch.int16))
            missing = int(pixels.max()) + 1 - len(kept)
            if missing > 0:  # a crop further down than any before
                kept = torch.nn.functional.pad(kept, (0, missing), value=-1)
                self.labels[index] = kept
            found.append((pixels, kept))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, by index of the image."""
        return {str(index): labels for index, labels in self.labels.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        self.labels = {int(index): labels.clone() for index, labels in state.items()}
