"""Tensors that follow from a module's settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class Derived:
    """An array that a module derives from its settings, as a tensor on whichever device it is needed.

    Not a buffer: a buffer that no checkpoint holds is lost where a module is made on the meta device, emptied
    (``to_empty``) or loaded by a library that does both, and what is in its memory then is taken for its values. Nor a
    constant of one device: it is kept for every device and dtype that asked for it.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self._kept: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """The array on the device of ``tensor`` and in its dtype."""
        kept = self._kept.get((tensor.device, tensor.dtype))
        if kept is not None and not _is_fake(tensor):
            return kept
        with torch.inference_mode(False):  # what is kept serves training too
            made = torch.tensor(self.values.tolist(), dtype=tensor.dtype, device=tensor.device)
        if type(made) is Tensor and not made.is_meta and not torch.compiler.is_compiling():
            self._kept[tensor.device, tensor.dtype] = made.reshape(self.values.shape)
        return made.reshape(self.values.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {"values": self.values, "_kept": {}}


def _is_fake(tensor: Tensor) -> bool:
    return getattr(tensor, "fake_mode", None) is not None
