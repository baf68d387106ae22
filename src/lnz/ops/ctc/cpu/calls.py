"""Calls into the kernels: tensors as they read them, and which thread does what."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lnz.ops.ctc.lattice import Lattice
from lnz.ops.ctc.words import WordPosteriors
from lnz.ops.jit.threads import side_by_side

if TYPE_CHECKING:
    from lnz.ops.ctc.cpu.frames import Frames, Targets
    from lnz.ops.ctc.words import Words

_SHARED = 2**14  # scores of frames from which threads share the work


def rows(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Scores ``[B, T, C]`` as rows ``[R, C]`` in the order of memory, and the strides, in rows, of sequence and frame.

    Those that lie in memory as ``[T, B, C]`` are not copied.
    """
    B, T, C = x.shape
    if x.transpose(0, 1).is_contiguous() and not x.is_contiguous():
        return x.transpose(0, 1).reshape(T * B, C), (1, B)
    return x.contiguous().view(B * T, C), (T, 1)


def value(x: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Tensor, Tensor]:
    """ln Z ``[B]`` and frames ``[B, T, 2]``, in O(S) memory beside them, see :func:`lnz.ops.ctc.cpu.solve.value`."""
    from lnz.ops.ctc.cpu.solve import value as kernel

    log_z, scales = torch.empty(len(x), dtype=torch.float64), x.new_zeros(*x.shape[:2], 2)
    arguments, results = _arguments(x, prior, of, normalise), (log_z.numpy(), scales.numpy())
    _share(lambda: lambda first, last: kernel(*arguments, first, last, *results), len(x), x.numel(), 4)
    return log_z, scales


def solve(x: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, occupancies ``[B, T, S + 1]`` and frames ``[B, T, 2]``, see :func:`lnz.ops.ctc.cpu.solve.solve`."""
    from lnz.ops.ctc.cpu.lattice import columns
    from lnz.ops.ctc.cpu.solve import solve as kernel

    B, T, _ = x.shape
    S = of.labels.shape[1]
    log_z, scales = torch.empty(B, dtype=torch.float64), x.new_zeros(B, T, 2)
    arguments = _arguments(x, prior, of, normalise)
    occupancy = np.empty((B, T, S + 1), arguments[0].x.dtype)

    def worker() -> Callable[[int, int], None]:
        states = np.empty((T + 1, 4, columns(S)))
        return lambda first, last: kernel(*arguments, first, last, states, log_z.numpy(), occupancy, scales.numpy())

    _share(worker, B, x.numel(), 4)
    return log_z, torch.from_numpy(occupancy), scales


def gradient(
    factor: Tensor, x: Tensor, of: Lattice, normalise: bool, log_z: Tensor, occupancy: Tensor, scales: Tensor
) -> Tensor:
    """``factor`` ``[B]`` times the derivative of ln Z to x, ``[B, T, C]``, laid out in memory as x."""
    from lnz.ops.ctc.cpu.gradient import gradient as kernel

    frames, targets = _arguments(x, x.new_zeros(x.shape[2]), of, normalise)
    out = np.empty(frames.x.shape, frames.x.dtype)  # NumPy asks for large pages, which are quicker to come by
    given = tuple(t.contiguous().numpy() for t in (factor.double(), log_z, occupancy, scales))
    _share(lambda: lambda first, last: kernel(frames, targets, *given, first, last, out), len(out), x.numel(), 1)
    return _laid_out(out, x)


def slopes(
    factor: Tensor, x: Tensor, prior: Tensor, of: Lattice, normalise: bool, log_z: Tensor, scales: Tensor
) -> Tensor:
    """As :func:`gradient`, without occupancies: O(S √T) memory, for as much arithmetic again as ln Z takes."""
    from lnz.ops.ctc.cpu.lattice import columns
    from lnz.ops.ctc.cpu.solve import slopes as kernel

    T, wide = x.shape[1], columns(of.labels.shape[1])
    every = math.isqrt(T) + 1
    arguments = _arguments(x, prior, of, normalise)
    out = np.empty(arguments[0].x.shape, arguments[0].x.dtype)
    given = tuple(t.contiguous().numpy() for t in (factor.double(), log_z, scales))

    def worker() -> Callable[[int, int], None]:
        room = np.empty((T // every + 3, 4, wide)), np.empty((every, 4, wide))
        return lambda first, last: kernel(*arguments, *given, first, last, *room, out)

    _share(worker, len(x), x.numel(), 4)
    return _laid_out(out, x)


def viterbi(x: Tensor, of: Lattice) -> tuple[Tensor, Tensor]:
    """Best alignments ``int64 [B, T]`` and their scores ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.ctc.cpu.viterbi import viterbi as kernel

    flat, strides = rows(x)
    B, T, _ = x.shape
    best, scores = torch.empty(B, T, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    arguments, results = (flat.numpy(), strides, of.blank, _targets(of)), (best.numpy(), scores.numpy())
    _share(lambda: lambda first, last: kernel(*arguments, first, last, *results), B, x.numel(), 4)
    return best, scores


def search(
    log_probs: Tensor, lengths: Tensor, beam: int, blank: int | None, collapse_repeats: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Prefixes ``int64 [B, K, T]``, their sizes and scores ``[B, K]``, best first, see :mod:`.cpu.beam`."""
    from lnz.ops.ctc.cpu.beam import search as kernel

    B, T, _ = log_probs.shape
    labels, sizes = torch.empty(B, beam, T, dtype=torch.int64), torch.empty(B, beam, dtype=torch.int64)
    scores = torch.empty(B, beam, dtype=torch.float64)
    arguments = (log_probs.double().contiguous().numpy(), lengths.contiguous().numpy(), beam)
    arguments += (-1 if blank is None else blank, collapse_repeats)
    results = (labels.numpy(), sizes.numpy(), scores.numpy())
    _share(lambda: lambda first, last: kernel(*arguments, first, last, *results), B, log_probs.numel(), 4)
    return labels, sizes, scores.to(log_probs.dtype)


def best_states(x: Tensor, of: Lattice, words: Words) -> tuple[Tensor, Tensor]:
    """See :func:`lnz.ops.ctc.words.best_states`."""
    from lnz.ops.ctc.cpu.words import best_states as kernel

    (_, T, _), S = x.shape, of.labels.shape[1]
    every, best = math.isqrt(T) + 1, torch.empty(T, dtype=torch.int64)
    room = np.empty((T // every + 3, 2, S + 1)), np.empty((every, 2, S + 1))
    begins, costs = words.begins.contiguous().numpy(), words.costs.contiguous().numpy()
    score = kernel(rows(x)[0].numpy(), _targets(of), of.blank, begins, costs, *room, best.numpy())
    return best, torch.tensor(score, dtype=torch.float64)


def word_posteriors(x: Tensor, of: Lattice, words: Words, asked: Tensor) -> WordPosteriors:
    """See :func:`lnz.ops.ctc.words.word_posteriors`."""
    from lnz.ops.ctc.cpu.lattice import columns
    from lnz.ops.ctc.cpu.words import word_posteriors as kernel

    T, wide = x.shape[1], columns(of.labels.shape[1])
    every, posteriors = math.isqrt(T) + 1, (np.zeros(T), np.zeros(len(words.costs)))
    room = np.empty((T // every + 3, 4, wide)), np.empty((every, 4, wide))
    arguments = _arguments(x, x.new_zeros(x.shape[2]), of, False)
    prices = -words.costs.contiguous().numpy() if words.costs.isfinite().any() else np.empty(0)
    bounds = words.begins.contiguous().numpy(), words.ends.contiguous().numpy()
    kernel(*arguments, *bounds, prices, asked.contiguous().numpy(), *room, *posteriors)
    return WordPosteriors(*map(torch.from_numpy, posteriors))


def _arguments(x: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Frames, Targets]:
    """Scores and targets as the kernels take them."""
    from lnz.ops.ctc.cpu.frames import Frames

    flat, strides = rows(x)
    frames = Frames(flat.numpy(), strides, prior.to(x.dtype).contiguous().numpy(), of.blank, normalise)
    return frames, _targets(of)


def _targets(of: Lattice) -> Targets:
    from lnz.ops.ctc.cpu.frames import Targets

    labels, direct, lengths, sizes = _arrays(of)
    return Targets(labels, direct, lengths, sizes, 0.0 if of.stays else -math.inf)


def _laid_out(out: np.ndarray, x: Tensor) -> Tensor:
    """Rows of a gradient as a tensor ``[B, T, C]``."""
    (B, T, C), (_, strides) = x.shape, rows(x)
    result = torch.from_numpy(out)
    return result.view(B, T, C) if strides[1] == 1 else result.view(T, B, C).transpose(0, 1)


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
