"""What the kernels for accelerators share. Importing this package does not import Triton; its files do.

============  ==========================================================================
``launch``    how kernels are compiled and started, and on which device
``math``      logarithms of sums, rows and their padding: what kernels are written in
``ahead``     compiling for cards that are not there, and reading what the binary needs
============  ==========================================================================

An op registers its kernels by ``KERNELS.register("triton", "lnz.ops.NAME.gpu", **SERVED)``. They run wherever torch's
accelerator is one that Triton compiles for. With ``TRITON_INTERPRET=1`` in the environment Triton interprets them on
the CPU instead, at the speed of Python: for tests, and only where ``lnz.ops.backend("triton")`` asks for it.
"""

from __future__ import annotations

import os
from typing import Any

import torch


def interpreted() -> bool:
    """Whether kernels are interpreted on the CPU. Triton looks at the variable when the first of them is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


SERVED: dict[str, Any] = {
    "devices": ("cuda", "xpu"),  # torch calls AMD's cards "cuda" as well
    "dtypes": (torch.float32, torch.bfloat16, torch.float16, torch.float64),
    "requires": "triton",
    "by_name": lambda: ("cpu",) if interpreted() else (),
}
"""What ``Kernels.register`` is told about every backend "triton"."""


def accumulating(dtype: torch.dtype) -> torch.dtype:
    """The dtype that kernels compute in: float32 for anything narrower."""
    return torch.promote_types(dtype, torch.float32)


def padded(size: int) -> int:
    """The next power of two, which blocks of Triton have as their sizes."""
    return 1 << max(0, size - 1).bit_length()
