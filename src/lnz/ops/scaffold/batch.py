"""The batch axis: which axis it is, how ``vmap`` folds into it, how entries are selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Axis(NamedTuple):
    """How a tensor is batched.

    Attributes:
        at: its batch axis; ``None`` for a tensor that has none and is the same for every entry.
        shared: whether that axis may have size 1, for all entries alike.
    """

    at: int | None = 0
    shared: bool = False


class Folded(NamedTuple):
    """Tensors with the axis of ``vmap`` folded into their batch axis.

    Attributes:
        tensors: the folded ones; ``None`` stays ``None``.
        batch: the number of entries per sample of ``vmap``.
        shared: whether the entries of a sample shared each tensor (it had batch size 1).
    """

    tensors: list[Tensor | None]
    batch: int
    shared: list[bool]


def fold(
    size: int,
    in_dims: Sequence[int | None],
    tensors: Sequence[Tensor | None],
    axes: Sequence[Axis],
) -> Folded:
    """Fold an axis of ``size``, at ``in_dims`` of each tensor, into the batch axes.

    What may be shared, and is by all entries of all samples, stays as it is. The first tensor is batched, not shared.

    Raises:
        ValueError: a tensor without a batch axis is mapped.
    """
    outer: list[Tensor | None] = []
    for x, dim, (axis, _) in zip(tensors, in_dims, axes, strict=True):
        if x is None or axis is None:
            if dim is not None:
                raise ValueError("expected a tensor that is the same for all entries, got one per sample of vmap")
            outer.append(x)
        else:
            outer.append(x.unsqueeze(axis) if dim is None else x.movedim(dim, axis))
    first, at = outer[0], axes[0].at
    assert first is not None
    assert at is not None
    batch = first.shape[at + 1]
    folded: list[Tensor | None] = []
    shared: list[bool] = []
    for x, (axis, may_be_shared) in zip(outer, axes, strict=True):
        if x is None or axis is None:
            folded.append(x)
            shared.append(True)
            continue
        shared.append(x.shape[axis + 1] == 1)
        if may_be_shared and shared[-1] and x.shape[axis] == 1:
            folded.append(x.squeeze(axis))
        else:
            shape = [*x.shape]
            shape[axis : axis + 2] = size, batch
            folded.append(x.expand(shape).flatten(axis, axis + 1))
    return Folded(folded, batch, shared)


def select(tensor: Tensor, entries: Tensor, axis: int = 0) -> Tensor:
    """The ``entries`` of a batch; what all entries share as it is."""
    return tensor if tensor.shape[axis] == 1 else tensor.index_select(axis, entries)
