"""The rule of ``torch.vmap`` for functions that have a batch axis already."""

from __future__ import annotations

from torch import Tensor


def folded(size: int, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Each input with the vmapped axis folded into its batch axis, which may be 1 in all but the first."""
    outer = [x.expand(size, *x.shape) if d is None else x.movedim(d, 0) for x, d in zip(inputs, in_dims, strict=True)]
    batch = outer[0].shape[1]
    return [x.expand(size, batch, *x.shape[2:]).flatten(0, 1) for x in outer]
