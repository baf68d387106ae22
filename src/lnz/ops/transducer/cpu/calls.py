"""Calls into the kernels: tensors as they read them, and which thread does what.

Threads take turns: the k-th of n takes tasks k, k + n, …, for sequences of a batch differ in length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnz.ops.jit.threads import side_by_side
from lnz.ops.transducer.records import Arcs, Joint

_SHARED = 2**14  # scores from which threads share the work


def joint_arcs(given: Joint) -> tuple[Tensor, Tensor, Tensor]:
    """Arcs ``[B, T, U + 1]``, ``[B, T, U]`` and scales ``[B, T, U + 1, 2]`` of joint scores, see :mod:`.cpu.joint`."""
    from lnz.ops.transducer.cpu.joint import arcs as kernel

    x = given.logits
    B, T, W, _ = x.shape
    at_blank, at_label = torch.empty(B, T, W, dtype=torch.float64), torch.empty(B, T, W - 1, dtype=torch.float64)
    scales = x.new_empty(B, T, W, 2)
    joint, results = _joint(given), _arrays(at_blank, at_label, scales)
    _share(lambda first, step: kernel(joint, first, step, *results), B * T, x.numel())
    return at_blank, at_label, scales


def joint_slopes(to_blank: Tensor, to_label: Tensor, given: Joint, scales: Tensor) -> Tensor:
    """The gradient of joint scores ``[B, T, U + 1, C]`` from that of the arcs."""
    from lnz.ops.transducer.cpu.joint import slopes as kernel

    x = given.logits
    B, T, W, C = x.shape
    out = np.empty((B, T, W, C), np.float32 if x.dtype == torch.float32 else np.float64)
    joint, to, tiny = _joint(given), _arrays(to_blank, to_label, scales), float(np.finfo(out.dtype).tiny)
    _share(lambda first, step: kernel(joint, *to, tiny, first, step, out), B * T, x.numel())
    return torch.from_numpy(out)


def forward_backward(given: Arcs) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]`` and the probabilities of arcs, shaped as their scores, see :mod:`.cpu.solve`."""
    from lnz.ops.transducer.cpu.solve import solve as kernel

    blank, label, *_ = given
    log_z = torch.empty(len(blank), dtype=torch.float64)
    results = (log_z, torch.zeros(blank.shape, dtype=blank.dtype), torch.zeros(label.shape, dtype=label.dtype))
    arguments, outputs = (*_arrays(*given[:4]), given.of.slant()), _arrays(*results)
    _share(lambda first, step: kernel(*arguments, first, step, *outputs), len(blank), blank.numel())
    return results


def viterbi(given: Arcs) -> tuple[Tensor, Tensor]:
    """Best alignments ``int64 [B, U]`` and their scores ``[B]``; −100 and −inf where there is none."""
    from lnz.ops.transducer.cpu.viterbi import viterbi as kernel

    blank, label, *_ = given
    B, _, U = label.shape
    frames, scores = torch.empty(B, U, dtype=torch.int64), torch.empty(B, dtype=torch.float64)
    arguments, outputs = (*_arrays(*given[:4]), given.of.slant()), _arrays(frames, scores)
    _share(lambda first, step: kernel(*arguments, first, step, *outputs), B, blank.numel())
    return frames, scores


def _joint(given: Joint) -> Any:
    from lnz.ops.transducer.cpu.joint import Scores

    x, labels, lengths, sizes = _arrays(*given[:4])
    return Scores(x, labels, lengths, sizes, given.blank, given.normalise)


def _arrays(*tensors: Tensor) -> tuple[Any, ...]:
    return tuple(t.detach().contiguous().numpy() for t in tensors)


def _share(work: Callable[[int, int], None], count: int, size: int) -> None:
    threads = min(count, torch.get_num_threads()) if size >= _SHARED else 1
    side_by_side([partial(work, k, threads) for k in range(threads)])
