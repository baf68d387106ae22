"""Tensors in, tensors out: one folder per operation, each with its reference and its kernels.

Kernels serve the tensors they are written for, ``reference.py`` every other device and dtype. The environment variable
``LNZ_BACKEND=reference`` forces the reference everywhere, :func:`backend` for the duration of a ``with`` block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

from lnz.checks import plain

Backend = Literal["auto", "reference"]

_BACKENDS = get_args(Backend)
_KERNEL_DTYPES = (torch.float32, torch.float64)
_chosen: ContextVar[str | None] = ContextVar("lnz_backend", default=None)  # per thread and per asyncio task


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Choose how ops are computed inside a ``with`` block: ``"auto"`` or ``"reference"``.

    Stronger than ``LNZ_BACKEND``; nests, and concerns only the current thread or asyncio task.
    """
    token = _chosen.set(_checked("backend", name))
    try:
        yield
    finally:
        _chosen.reset(token)


def use_kernels(*tensors: Tensor) -> bool:
    """Whether kernels may serve these tensors: all float32 or float64 on the CPU, and the reference not forced."""
    name = _chosen.get() or _checked("LNZ_BACKEND", os.environ.get("LNZ_BACKEND", "auto"))
    return name == "auto" and all(t.is_cpu and t.dtype in _KERNEL_DTYPES for t in tensors)


def unobserved(*tensors: Tensor) -> bool:
    """Whether no tracer, transform or mode looks on, so that an operation need not go through torch's dispatcher.

    That takes as long as a small operation itself.
    """
    if not all(map(plain, tensors)):  # first: the compiler cannot trace what follows
        return False
    return torch._C._len_torch_dispatch_stack() == 0  # pyright: ignore[reportAttributeAccessIssue]


def _checked(source: str, name: str) -> str:
    if name not in _BACKENDS:
        raise ValueError(f"{source}: expected one of {', '.join(map(repr, _BACKENDS))}, got {name!r}")
    return name
