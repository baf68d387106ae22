"""Work for several threads: ranges of about equal size, and the arrays that kernels read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from lnz.ops.jit.threads import side_by_side

SHARED = 2**17  # scores from which threads share the work; waking one takes about 0.1 ms


def arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors as NumPy arrays, contiguous, without gradients."""
    return [(t.detach() if t.requires_grad else t).contiguous().numpy() for t in tensors]


def threads_for(size: int) -> int:
    """How many threads are worth it for work on so many scores."""
    return torch.get_num_threads() if size >= SHARED else 1


def partition(count: int, parts: int) -> Sequence[tuple[int, int]]:
    """``count`` tasks as ranges of about equal size, multiples of four where there are enough."""
    unit = 4 if count >= 4 * parts else 1
    units = math.ceil(count / unit)
    parts = min(parts, units)
    cuts = [min(count, unit * (units * k // parts)) for k in range(parts + 1)]
    return [*pairwise(cuts)]


def parallel(run: Callable[[int, int, int], None], ranges: Sequence[tuple[int, int]]) -> None:
    """``run(part, first, last)`` for each of the ranges, on threads."""
    side_by_side([partial(run, part, first, last) for part, (first, last) in enumerate(ranges)])
