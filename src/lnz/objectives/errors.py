"""What an objective may ask of a task error. :mod:`lnz.metrics` has the common ones; any function will do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


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
