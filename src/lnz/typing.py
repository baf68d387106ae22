"""Aliases and small containers that signatures share.

Shape words, used in every docstring: ``*batch`` leading dimensions, ``N`` nodes, ``L`` labels, ``E`` edges,
``F`` factors of one group, ``T`` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, SupportsIndex, overload

from torch import Tensor

IGNORE = -100
"""The label that stands for *unobserved* on input and *padding* on output (torch's ``ignore_index``)."""

SampleShape = Sequence[int]


class LazyTuple(tuple[Tensor, ...]):
    """A tuple whose items are computed when first asked for, and kept.

    Marginals of the large parts of a model (the edges of a chain of a million steps) may not fit in memory even
    when those of its nodes do; ``p.marginals[0]`` must not pay for ``p.marginals[1]``.
    """

    _thunks: tuple[Callable[[], Tensor], ...]
    _items: list[Tensor | None]

    def __new__(cls, thunks: Sequence[Callable[[], Tensor]]) -> LazyTuple:
        self = super().__new__(cls, (None,) * len(thunks))  # type: ignore[arg-type]  # placeholders, never shown
        self._thunks = tuple(thunks)
        self._items = [None] * len(thunks)
        return self

    def _item(self, index: int) -> Tensor:
        item = self._items[index]
        if item is None:
            item = self._items[index] = self._thunks[index]()
        return item

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[Tensor, ...]: ...
    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            return tuple(self._item(i) for i in range(*index.indices(len(self))))
        i = index.__index__()
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range for {len(self)} items")
        return self._item(i)

    def __iter__(self) -> Iterator[Tensor]:
        return (self._item(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)
