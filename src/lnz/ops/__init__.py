"""Tensors in, tensors out: one folder per operation, each with its reference and its kernels.

What every operation stands on:

- :mod:`lnz.ops.dispatch`: which backend computes (:func:`backend`, :func:`backends`, ``LNZ_BACKEND``).
- :mod:`lnz.ops.scaffold`: custom operators, autograd, ``vmap``, forward mode, from a description of an op.
- :mod:`lnz.ops.precision`: float32, then float64, then logarithms, per batch entry.
- :mod:`lnz.ops.jit`: compilation of CPU kernels, threads, memory.

``docs/developer/adding_an_op.md`` walks through an op on this floor.
"""

from lnz.ops.dispatch import backend, backends, is_eager

unobserved = is_eager

__all__ = ["backend", "backends", "is_eager", "unobserved"]
