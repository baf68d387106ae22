"""Calls into the kernels: tensors as they read them, and which thread does what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnz.ops.ctc.lattice import Lattice
from lnz.ops.jit.threads import side_by_side

_SHARED = 2**14  # scores of frames from which threads share the work


def rows(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Scores ``[B, T, C]`` as rows ``[R, C]`` in the order of memory, and the strides, in rows, of sequence and frame.

    Those that lie in memory as ``[T, B, C]`` are not copied.
    """
    B, T, C = x.shape
    if x.transpose(0, 1).is_contiguous() and not x.is_contiguous():
        return x.transpose(0, 1).reshape(T * B, C), (1, B)
    return x.contiguous().view(B * T, C), (T, 1)


def solve(x: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, occupancies ``[B, T, S + 1]`` and frames ``[B, T, 2]``, see :func:`lnz.ops.ctc.cpu.solve.solve`."""
    from lnz.ops.ctc.cpu.lattice import columns
    from lnz.ops.ctc.cpu.solve import solve as kernel

    flat, strides = rows(x)
    B, T, _ = x.shape
    S = of.labels.shape[1]
    log_z, frames = torch.empty(B, dtype=torch.float64), x.new_zeros(B, T, 2)
    occupancy = np.empty((B, T, S + 1), flat.numpy().dtype)
    arguments = (flat.numpy(), strides, prior.contiguous().numpy(), *_arrays(of), of.blank, of.stays, normalise)

    def worker() -> Callable[[int, int], None]:
        room = np.empty((T + 1, 4, columns(S))), np.empty((T, 2, columns(S)))
        return lambda first, last: kernel(*arguments, first, last, *room, log_z.numpy(), occupancy, frames.numpy())

    _share(worker, B, x.numel(), 4)
    return log_z.to(x.dtype), torch.from_numpy(occupancy), frames


def gradient(
    factor: Tensor, x: Tensor, of: Lattice, normalise: bool, log_z: Tensor, occupancy: Tensor, frames: Tensor
) -> Tensor:
    """``factor`` ``[B]`` times the derivative of ln Z to x, ``[B, T, C]``, laid out in memory as x."""
    from lnz.ops.ctc.cpu.gradient import gradient as kernel

    flat, strides = rows(x)
    B, T, C = x.shape
    out = np.empty(flat.shape, flat.numpy().dtype)  # NumPy asks for large pages, which are quicker to come by
    labels, _, lengths, sizes = _arrays(of)
    arguments = (flat.numpy(), strides, labels, lengths, sizes, of.blank, normalise)
    arguments += tuple(t.to(x.dtype).contiguous().numpy() for t in (factor, log_z, occupancy, frames))
    _share(lambda: lambda first, last: kernel(*arguments, first, last, out), len(out), x.numel(), 1)
    result = torch.from_numpy(out)
    return result.view(B, T, C) if strides[1] == 1 else result.view(T, B, C).transpose(0, 1)


def viterbi(x: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """Best alignments ``int64 [B, T]`` and their scores ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.ctc.cpu.viterbi import viterbi as kernel

    flat, strides = rows(x)
    B, T, _ = x.shape
    best, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=x.dtype)
    arguments = (flat.numpy(), strides, *_arrays(of), of.blank, of.stays)
    results = (best.numpy(), scores.numpy())
    _share(lambda: lambda first, last: kernel(*arguments, first, last, *results), B, x.numel(), 4)
    return best, scores


def _arrays(of: Lattice) -> tuple[Any, ...]:
    return tuple(t.contiguous().numpy() for t in (of.labels, of.direct, of.lengths, of.target_lengths))


def _share(worker: Callable[[], Callable[[int, int], None]], count: int, size: int, parts: int) -> None:
    """Workers, one per thread, on ranges of ``count`` tasks; several ranges for each, where tasks differ in length."""
    threads = min(count, torch.get_num_threads()) if size >= _SHARED else 1
    parts = min(count, parts * threads) if threads > 1 else 1
    ahead = iter([(count * k // parts, count * (k + 1) // parts) for k in range(parts)])

    def run() -> None:
        work = worker()
        for task in ahead:  # each is handed out once: the iterator is advanced under the interpreter's lock
            work(*task)

    side_by_side([run] * threads)
