"""What a labelling of chains holds. In NumPy, which does not start torch's threads for what takes microseconds."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lnz.typing import IGNORE


def is_full(y: Tensor, lengths: Tensor | None, labels: int) -> bool | None:
    """Whether y ``int64 [*batch, T]``, on the CPU, is observed before ``lengths``; ``None`` if it holds no label."""
    if not y.numel():
        return True
    values = y.numpy()
    if lengths is not None and lengths.numel() and int(lengths.min()) < y.shape[-1]:
        values = np.where(np.arange(y.shape[-1]) < lengths.numpy()[..., None], values, 0)
    if values.max() >= labels:
        return None
    if values.min() >= 0:
        return True
    return False if ((values >= 0) | (values == IGNORE)).all() else None
