"""The handwritten digits that come with scikit-learn: nothing to download."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Split = Literal["train", "val"]
DIGIT = 8
"""The side of a digit in pixels."""


def digits(split: Split) -> tuple[Tensor, Tensor]:
    """The digits of a split, ink in [0, 1] ``[D, 8, 8]``, and which digit each is ``int64 [D]``.

    The set is ordered by writer; training takes the first 1,200 digits, validation the other 597.
    """
    from sklearn.datasets import load_digits

    bundle: Any = load_digits()
    part = slice(None, 1200) if split == "train" else slice(1200, None)
    return torch.from_numpy(bundle.images[part]).float() / 16, torch.from_numpy(bundle.target[part]).long()
