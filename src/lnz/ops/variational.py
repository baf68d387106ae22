"""What the ops of variational methods share: models as arguments, and warnings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lnz.errors import ConvergenceWarning, warn
from lnz.graphs import FactorGraph, graph_of
from lnz.scores import Model, Weighted

Spec = tuple[str, list[bool], list[int]]
"""A model but for its tensors: the graph's handle, which entries are ``Weighted``, the batch shape."""


def flatten(model: Model) -> Spec:
    """What an operator of torch needs to know of a model beside ``model.tensors`` and ``model.observed``."""
    return model.graph.handle, [isinstance(entry, Weighted) for entry in model.entries], list(model.batch_shape)


def unflatten(
    tensors: Sequence[Tensor], observed: Tensor | None, graph: str, weighted: Sequence[bool], batch: Sequence[int]
) -> Model:
    """The inverse of :func:`flatten`."""
    return model_of(tensors, observed, graph_of(graph), weighted, batch)


def model_of(
    tensors: Sequence[Tensor],
    observed: Tensor | None,
    graph: FactorGraph,
    weighted: Sequence[bool],
    batch: Sequence[int],
) -> Model:
    """A model with these tensors."""
    rest = iter(tensors)
    entries = tuple(Weighted(next(rest), next(rest)) if pair else next(rest) for pair in weighted)
    model = Model(graph, entries, observed)
    object.__setattr__(model, "batch_shape", torch.Size(batch))  # may be larger than that of the scores
    return model


def advice(damping: float, *others: str) -> str:
    """What to try where an iteration does not converge: more damping than there is, ``others``, more iterations."""
    damped = () if damping >= 0.9 else ("damping=0.5",) if damping < 0.5 else ("damping=0.9",)
    *first, last = (*damped, *others, "more max_iterations")
    return f"{', '.join(first)}{',' if len(first) > 1 else ''} or {last}" if first else last


def warn_unless_converged(
    converged: Tensor, iterations: Tensor, residual: Tensor, tolerance: float, what: str, advice: str
) -> None:
    """Warn, by count and worst residual, of batch entries that have not converged; never at tolerance 0."""
    if not tolerance or converged.all():
        return
    failed = ~converged
    worst = residual[failed].max().item()
    why = f"worst residual {worst:.3g}, tolerance {tolerance:.3g}"
    if worst <= tolerance:
        why = "messages did, as probabilities, but ln Z and beliefs are not at rest"
    warn(
        f"{what}: {int(failed.sum())} of {failed.numel()} models did not converge in {int(iterations.max())} "
        f"iterations ({why}); try {advice}",
        ConvergenceWarning,
    )
