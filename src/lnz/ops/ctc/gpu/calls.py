"""What :mod:`lnz.ops.ctc` calls: ln Q, occupancies, gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.ctc.gpu.frames import frames_kernel, slopes_kernel
from lnz.ops.ctc.gpu.lattice import backward_kernel, forward_kernel
from lnz.ops.ctc.lattice import Lattice
from lnz.ops.jit.triton import accumulating, padded
from lnz.ops.jit.triton.launch import launch

CLASSES = 4096  # that are looked at at once
STATES = 512  # likewise, of blanks and of labels
HELD = 2**30  # bytes of states, where they are made again for the gradient


def block(S: int) -> int:
    """Lanes for the states of targets of S labels."""
    return min(STATES, max(32, padded(S + 1)))


def warps_for(S: int, states: Tensor) -> int:
    """Two blanks and two labels for each thread, one in float64."""
    return max(1, min(8, block(S) * states.element_size() // 256))


def arranged(x: Tensor, of: Lattice) -> tuple[Tensor, tuple[int, int], tuple[Tensor, ...]]:
    """Scores as they lie, ``[B, T, C]`` or ``[T, B, C]``, the strides of entries and frames, and the lattice."""
    x = x if x.transpose(0, 1).is_contiguous() else x.contiguous()
    tensors = of.labels, of.direct.to(torch.uint8), of.lengths, of.target_lengths
    return x, (x.stride(0), x.stride(1)), tuple(tensor.contiguous() for tensor in tensors)


def value(x: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Tensor, Tensor]:
    """ln Z ``[B]`` and frames ``[B, T, 2]``, in O(S) memory beside them."""
    log_z, frames, _ = _forward(x, prior, of, normalise, keep=False)
    return log_z, frames


def solve(x: Tensor, prior: Tensor, of: Lattice, normalise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """ln Z ``[B]``, occupancies ``[B, T, S + 1]`` and frames ``[B, T, 2]``."""
    log_z, frames, states = _forward(x, prior, of, normalise, keep=True)
    (B, T, _), S = x.shape, of.labels.shape[1]
    _, _, (_, direct, lengths, counts) = arranged(x, of)
    occupancy = torch.zeros(B, T, S + 1, dtype=frames.dtype, device=x.device)
    flows = frames.new_empty(B, 2, 5, S + 1)
    launch(
        backward_kernel, (B,), direct, lengths, counts, states, flows, occupancy, T, S, STAYS=of.stays, BLOCK=block(S),
        warps=warps_for(S, frames),
    )  # fmt: skip
    return log_z, occupancy, frames


def _forward(x: Tensor, prior: Tensor, of: Lattice, normalise: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    (B, T, C), S = x.shape, of.labels.shape[1]
    x, strides, lattice = arranged(x, of)
    frames = torch.empty(B, T, 2, dtype=accumulating(x.dtype), device=x.device)
    lanes = min(CLASSES, max(32, padded(C)))
    launch(
        frames_kernel, (T, B), x, lattice[2], frames, T, C, *strides, BLOCK=lanes, warps=max(1, min(8, lanes // 256))
    )
    rows = T + 1 if keep else 2
    states, log_z = frames.new_empty(B, rows, 2, S + 1), frames.new_empty(B, dtype=torch.float64)
    launch(
        forward_kernel, (B,), x, prior.contiguous(), *lattice, frames, states, log_z, T, S, *strides, rows,
        max(0, of.blank), STAYS=of.stays, NORMALISE=normalise, KEEP=keep, BLANK=of.blank >= 0, BLOCK=block(S),
        warps=warps_for(S, frames),
    )  # fmt: skip
    return log_z, frames, states


class Places(NamedTuple):
    """Where the classes of targets and, last, the blank occur in them; see :func:`.frames.slopes_kernel`."""

    classes: Tensor
    following: Tensor
    is_first: Tensor
    most: Tensor

    @classmethod
    def of(cls, lattice: Lattice) -> Places:
        B, S = lattice.labels.shape
        blank = lattice.labels.new_full((B, 1), lattice.blank if lattice.blank >= 0 else -1)
        classes = torch.cat((lattice.labels, blank), 1)
        ordered, order = classes.sort(dim=1, stable=True)
        same = torch.nn.functional.pad(ordered[:, 1:] == ordered[:, :-1], (0, 1))
        following = torch.where(same, order.roll(-1, 1), -1)
        continued = same.roll(1, 1)  # whose last is never the same as a next one
        place = torch.arange(S + 1, device=classes.device)
        starts = torch.where(continued, 0, place).cummax(1).values
        unordered = [torch.empty_like(order).scatter_(1, order, x) for x in (following, (~continued).long())]
        return cls(classes, unordered[0], unordered[1], (place - starts).amax(1) + 1)


def gradient(
    weight: Tensor, x: Tensor, of: Lattice, normalise: bool, log_z: Tensor, occupancy: Tensor, frames: Tensor
) -> Tensor:
    """``weight [B]`` times the derivative of ln Z to x, ``[B, T, C]``, laid out in memory as x."""
    (B, T, C), S = x.shape, of.labels.shape[1]
    x, strides, lattice = arranged(x, of)
    out = torch.empty_like(x)
    weight = weight.double().masked_fill(torch.isneginf(log_z), 0.0)
    lanes = min(CLASSES, max(32, padded(C)))
    launch(
        slopes_kernel, (T, B), x, frames.contiguous(), occupancy.contiguous(), *Places.of(of), weight, lattice[2], out,
        T, C, S, *strides, NORMALISE=normalise, BLOCK=lanes, LABELS=block(S),
        warps=max(1, min(8, max(lanes // 256, block(S) // 64))),
    )  # fmt: skip
    return out


def slopes(
    weight: Tensor, x: Tensor, prior: Tensor, of: Lattice, normalise: bool, log_z: Tensor, frames: Tensor
) -> Tensor:
    """As :func:`gradient`, without occupancies: these are made again, of a few targets at a time."""
    (B, T, _), S = x.shape, of.labels.shape[1]
    out = torch.empty_like(arranged(x, of)[0])
    every = max(1, HELD // (2 * frames.element_size() * (T + 1) * (S + 1)))
    for first in range(0, B, every):
        part = slice(first, first + every)
        some = of._make(field[part] if isinstance(field, Tensor) else field for field in of)
        _, occupancy, _ = solve(x[part], prior, some, normalise)
        out[part] = gradient(weight[part], x[part], some, normalise, log_z[part], occupancy, frames[part])
    return out
