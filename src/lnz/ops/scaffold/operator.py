"""Operators of ``torch.library`` over named tuples: schema, fake, ``vmap``, and the way past the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    Attributes:
        names: of all fields.
        schema: ``"Tensor node, …, int blank"``.
        tensors: how many of them are tensors.
        axes: how each tensor is batched.
    """

    def __init__(self, record: type[Any], axes: Mapping[str, Axis]) -> None:
        kinds = get_type_hints(record)
        self.names = tuple(kinds)
        self.schema = ", ".join(f"{_SCHEMA[kind]} {name}" for name, kind in kinds.items())
        self.tensors = sum(kind is Tensor for kind in kinds.values())
        if any(kind is Tensor for kind in [*kinds.values()][self.tensors :]):
            raise TypeError(f"{record.__name__}: expected fields that are tensors before all others, got {self.names}")
        self.axes = tuple(axes.get(name, Axis()) for name in self.names[: self.tensors])


class Operator(Generic[In, Out]):
    """``lnz::name``, from one named tuple to another, both batched; no derivatives.

    Args:
        name: of the operator.
        compute: the function. It is given constants, and its results share no memory with them.
        fake: as ``compute``, but only shapes and dtypes of the results count.
        inputs: the type of what it takes: tensors, then settings.
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
        self.inputs: Callable[..., In] = inputs
        self.outputs: Callable[..., Out] = outputs
        self.given, self.made = Fields(inputs, axes or {}), Fields(outputs, axes or {})
        self.op = operator(
            name,
            self.given.schema,
            self.made.tensors,
            lambda *flat: tuple(compute(self.inputs(*flat))),
            lambda *flat: tuple(fake(self.inputs(*flat))),
        )
        self.op.register_vmap(self._vmap)

    def __call__(self, inputs: In) -> Out:
        """The results, as constants."""
        tensors = inputs[: self.given.tensors]
        if is_eager(*tensors):
            return self.compute(self.inputs(*(x.detach() for x in tensors), *inputs[self.given.tensors :]))
        results = self.op(*(x.detach() for x in tensors), *inputs[self.given.tensors :])
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
