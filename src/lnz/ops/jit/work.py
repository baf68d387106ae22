"""Work of kernels that need to know which share they do, or that several of them make up one pass.

Others are run by :func:`lnz.ops.jit.threads.parallel`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lnz.ops.jit.threads import partition, side_by_side

SHARED = 2**17  # scores from which threads share the work; waking one takes about 0.1 ms


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors as NumPy arrays, contiguous, without gradients."""
    return [(t.detach() if t.requires_grad else t).contiguous().numpy() for t in tensors]


def threads_for(size: int) -> int:
    """How many threads are worth it for work on so many scores."""
    return torch.get_num_threads() if size >= SHARED else 1


def shares_of(count: int, parts: int) -> Sequence[tuple[int, int]]:
    """First and last (which is no longer part of it) of ``parts`` shares, of multiples of four where that is fair."""
    return partition(count, parts, 4).shares() if count else []


def on_threads(run: Callable[[int, int, int], None], shares: Sequence[tuple[int, int]]) -> None:
    """``run(part, first, last)`` for each of the shares, at the same time."""
    side_by_side([partial(run, part, first, last) for part, (first, last) in enumerate(shares)])
