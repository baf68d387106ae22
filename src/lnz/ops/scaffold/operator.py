"""Operators of ``torch.library`` over named tuples: schema, fake, ``vmap``, and the way past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

import torch
from torch import Tensor

from lnz.ops.dispatch import is_eager
from lnz.ops.scaffold.batch import Axis, fold

In = TypeVar("In", bound=tuple[Any, ...])
Out = TypeVar("Out", bound=tuple[Any, ...])
"""Named tuples: what an op takes and what it gives."""

_SCHEMA = {Tensor: "Tensor", int: "int", bool: "bool", float: "float", str: "str"}


class Fields:
    """What the annotations of a named tuple say: its tensors come first, then its settings.

    A field may be a named tuple itself. Its tensors are then among the tensors, its settings among the settings.

    Attributes:
        names: of all that is not a tuple, tensors first.
        schema: ``"Tensor node, …, int blank"``.
        tensors: how many of them are tensors.
        axes: how each tensor is batched.
    """

    def __init__(self, record: type[Any], axes: Mapping[str, Axis]) -> None:
        self.record: Callable[..., Any] = record
        kinds, self._parts = get_type_hints(record), dict[int, Callable[..., Any]]()
        found: list[tuple[str, Any, tuple[int, ...]]] = []  # name, kind and place
        for i, (name, kind) in enumerate(kinds.items()):
            if hasattr(kind, "_fields"):
                self._parts[i] = kind
                found += [(part, own, (i, j)) for j, (part, own) in enumerate(get_type_hints(kind).items())]
            else:
                found.append((name, kind, (i,)))
        tensors = [entry for entry in found if entry[1] is Tensor]
        ordered = tensors + [entry for entry in found if entry[1] is not Tensor]
        if not self._parts and ordered != found:
            raise TypeError(
                f"{record.__name__}: expected fields that are tensors before all others, got {tuple(kinds)}"
            )
        self.names = tuple(name for name, _, _ in ordered)
        self.schema = ", ".join(f"{_SCHEMA[kind]} {name}" for name, kind, _ in ordered)
        self.tensors = len(tensors)
        self.axes = tuple(axes.get(name, Axis()) for name in self.names[: self.tensors])
        self._places = [place for _, _, place in ordered]
        at = {place: k for k, place in enumerate(self._places)}
        self._slots: list[tuple[Callable[..., Any] | None, Any]] = [
            (part, [at[i, j] for j in range(len(get_type_hints(part)))])
            if (part := self._parts.get(i))
            else (None, at[(i,)])
            for i in range(len(kinds))
        ]

    def flatten(self, record: Any) -> Sequence[Any]:
        """Tensors, then settings."""
        if not self._parts:
            return record
        return [record[place[0]] if len(place) == 1 else record[place[0]][place[1]] for place in self._places]

    def unflatten(self, flat: Sequence[Any]) -> Any:
        """The inverse of :meth:`flatten`."""
        if not self._parts:
            return self.record(*flat)
        return self.record(*[flat[at] if part is None else part(*[flat[i] for i in at]) for part, at in self._slots])


class Operator(Generic[In, Out]):
    """``lnz::name``, from one named tuple to another, both batched; no derivatives.

    Args:
        name: of the operator.
        compute: the function. It is given constants, and its results share no memory with them.
        fake: as ``compute``, but only shapes and dtypes of the results count.
        inputs: the type of what it takes: tensors, then settings; or see :class:`Fields`.
        outputs: the type of what it returns: tensors.
        axes: how fields are batched whose entries do not lie, each its own, along the first axis.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[In], Out],
        fake: Callable[[In], Out],
        inputs: type[In],
        outputs: type[Out],
        axes: Mapping[str, Axis] | None = None,
    ) -> None:
        self.name, self.compute = name, compute
        self.outputs: Callable[..., Out] = outputs
        self.given, self.made = Fields(inputs, axes or {}), Fields(outputs, axes or {})
        self.op = operator(
            name,
            self.given.schema,
            self.made.tensors,
            lambda *flat: tuple(compute(self.given.unflatten(flat))),
            lambda *flat: tuple(fake(self.given.unflatten(flat))),
        )
        self.op.register_vmap(self._vmap)

    def __call__(self, inputs: In) -> Out:
        """The results, as constants."""
        flat, count = self.given.flatten(inputs), self.given.tensors
        tensors = flat[:count]
        if is_eager(*tensors):
            return self.compute(self.given.unflatten([*(x.detach() for x in tensors), *flat[count:]]))
        results = self.op(*(x.detach() for x in tensors), *flat[count:])
        return self.outputs(*((results,) if self.made.tensors == 1 else results))

    def _vmap(self, info: Any, in_dims: tuple[int | None, ...], *flat: Any) -> tuple[Any, Any]:
        count = self.given.tensors
        folded, batch, _ = fold(info.batch_size, in_dims[:count], flat[:count], self.given.axes)
        results = self.op(*folded, *flat[count:])
        one, dims = self.made.tensors == 1, tuple(axis.at for axis in self.made.axes)
        each = [
            x.unflatten(at, (info.batch_size, batch)) for x, at in zip([results] if one else results, dims, strict=True)
        ]
        return (each[0], dims[0]) if one else (tuple(each), dims)


def operator(
    name: str,
    arguments: str,
    results: int,
    compute: Callable[..., tuple[Tensor, ...]],
    fake: Callable[..., tuple[Tensor, ...]],
) -> Any:
    """The custom operator ``lnz::name`` with this schema; of one result, it returns that, not a tuple."""
    one = results == 1
    returns = "Tensor" if one else f"({', '.join(['Tensor'] * results)})"

    def unwrapped(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
        return (lambda *flat: function(*flat)[0]) if one else function

    schema = f"({arguments}) -> {returns}"
    op = torch.library.custom_op(f"lnz::{name}", unwrapped(compute), mutates_args=(), schema=schema)
    op.register_fake(unwrapped(fake))
    return op
