"""Starting kernels: on the device of their tensors, with what depends on shapes chosen beforehand, not by timing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor


def kernel(function: Any) -> Any:
    """Compile a function by Triton, for :func:`launch` or for other kernels to call."""
    return triton.jit(function)


class Launch(NamedTuple):
    """One start of a kernel; see :func:`launch`."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    warps: int
    constants: dict[str, Any]


_recorded: ContextVar[list[Launch] | None] = ContextVar("lnz_recorded_launches", default=None)


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Run ``kernel`` once per program of the grid; nothing where there is none.

    Args:
        kernel: a function of ``triton.jit``.
        grid: the numbers of programs along up to three axes.
        arguments: tensors and numbers, in its order; one of the tensors says on which device.
        warps: how many warps one program has.
        constants: its arguments that are compiled in.
    """
    if 0 in grid:
        return
    constants = {name: getattr(value, "value", value) for name, value in constants.items()}
    recorded = _recorded.get()
    if recorded is not None:
        recorded.append(Launch(kernel, tuple(grid), arguments, warps, constants))
        return
    device = next(x.device for x in arguments if isinstance(x, Tensor))
    with nullcontext() if device.type == "cpu" else torch.accelerator.device_index(device.index):
        kernel[tuple(grid)](*arguments, **constants, num_warps=warps)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """What would be launched inside the block, in place of launching it: results are then not written."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)
