"""What an objective may ask of a task error. :mod:`lnz.metrics` has the common ones; any function will do."""

from __future__ import annotations

import inspect
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from lnz.checks import check_tensor, concrete


class TaskError(Protocol):
    """A callable that judges predictions: the smaller, the better."""

    def __call__(self, gold: Tensor, predicted: Tensor) -> Tensor:
        """The error of each batch entry, ``[*batch]``, of labellings ``int64 [*batch, N]``.

        −100 in gold is unobserved or padding, and the prediction is −100 there too.
        """
        ...


@runtime_checkable
class NodeError(Protocol):
    """A task error that is a sum over labels: then loss-augmented argmax is as exact as argmax."""

    def node_costs(self, gold: Tensor, num_labels: int) -> Tensor:
        """What each label of each node costs, ``[*batch, N, L]``; 0 where gold is −100."""
        ...


@runtime_checkable
class ChangeError(Protocol):
    """A task error that knows what single changes do to it: that spares the search one call per change."""

    def change_costs(self, gold: Tensor, predicted: Tensor, num_labels: int) -> Tensor:
        """The error after relabelling one node and no other, for every node and label: ``[*batch, N, L]``."""
        ...


def check_error(error: object) -> None:
    """Raise unless ``error`` can be called as a task error."""
    wanted = "error: expected a task error of lnz.metrics, or a function of gold and predicted labels"
    if not callable(error):
        raise TypeError(f"{wanted}, got {error!r}")
    try:
        signature = inspect.signature(error)
    except ValueError:  # some functions of C cannot tell
        return
    try:
        signature.bind("gold", "predicted")
    except TypeError as reason:
        name = getattr(error, "__name__", type(error).__name__)
        call = f"{name}({', '.join(signature.parameters)})"
        hint = ": call it first, to make one" if len(signature.parameters) == 1 else ""
        raise TypeError(f"{wanted}, got {call}{hint}") from reason


def checked_values(values: Tensor, shape: torch.Size, what: str = "error") -> Tensor:
    """``values``, what ``error`` gave; raises unless it is a tensor of this ``shape`` and all of it is finite."""
    check_tensor(what, values)
    if values.shape != shape:
        raise ValueError(f"{what}: expected values of shape {list(shape)}, got {list(values.shape)}")
    if concrete(values) and not torch.isfinite(values).all():
        where = (~torch.isfinite(values)).nonzero()[0].tolist()
        raise ValueError(f"{what}: expected finite values, got {values[tuple(where)].item()} at {where}")
    return values
