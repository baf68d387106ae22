"""Uninitialised tensors for results of kernels, whose memory is used again once nothing refers to it any more.

The C library gives freed arrays of a few megabytes back to the system, and having them anew costs a page fault per four
kilobytes: more than the arithmetic of a chain. What is kept here is limited, and very large arrays are not kept.
"""

from __future__ import annotations

import weakref
from collections import defaultdict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SMALLEST, _LARGEST = 2**17, 2**25  # bytes of what is kept
_KEPT = 2**27  # bytes in all
_LINE = 64  # bytes to start at a multiple of

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
_free: defaultdict[int, deque[np.ndarray]] = defaultdict(deque)  # whose operations are atomic


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU."""
    count = 1
    for size in shape:
        count *= size
    size = count * dtype.itemsize
    if size < _SMALLEST or dtype not in _NUMPY:
        return torch.empty(shape, dtype=dtype)
    if size > _LARGEST:
        return torch.from_numpy(np.empty(shape, _NUMPY[dtype]))  # NumPy asks for huge pages, of which few are faulted
    room = _rounded(size)
    try:
        memory = _free[room].pop()
    except IndexError:
        memory = np.empty(room + _LINE, np.uint8)
        skipped = -memory.ctypes.data % _LINE
        memory = memory[skipped : skipped + room]
    view: Any = memory[:size].view(_NUMPY[dtype]).reshape(shape)
    weakref.finalize(view, _give_back, memory).atexit = False
    return torch.from_numpy(view)


def _rounded(size: int) -> int:
    """Up to the next of four sizes per power of two, so that batches of different lengths share what is kept."""
    step = 1 << (size - 1).bit_length() - 3
    return -(-size // step) * step


def _give_back(memory: np.ndarray) -> None:
    if sum(room * len(arrays) for room, arrays in list(_free.items())) + len(memory) <= _KEPT:
        _free[len(memory)].append(memory)
    else:  # of sizes that are no longer asked for, perhaps
        _free.clear()
