"""What the ops of belief propagation share: models as arguments, graphs as long as tapes, vmap and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lnz.errors import ConvergenceWarning, warn
from lnz.graphs import graph_of
from lnz.scores import Model, Weighted

Spec = tuple[str, list[bool], list[int]]
"""A model but for its tensors: the graph's handle, which entries are ``Weighted``, the batch shape."""


def taken_apart(model: Model) -> Spec:
    return model.graph.handle, [isinstance(entry, Weighted) for entry in model.entries], list(model.batch_shape)


def put_together(
    tensors: Sequence[Tensor], observed: Tensor | None, graph: str, weighted: Sequence[bool], batch: Sequence[int]
) -> Model:
    rest = iter(tensors)
    entries = tuple(Weighted(next(rest), next(rest)) if pair else next(rest) for pair in weighted)
    model = Model(graph_of(graph), entries, observed)
    object.__setattr__(model, "batch_shape", torch.Size(batch))  # may be larger than that of the scores
    return model


def hold_graph(ctx: Any) -> None:
    """Keep the graph alive as long as the tape: a handle does not, and the caller may have dropped it by then."""
    if not torch.compiler.is_compiling():
        ctx.graph = graph_of(ctx.spec[0])


def one_by_one(function: Any, size: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
    """The vmap rule: stopping is a matter of each model."""
    results = [
        function.apply(*(x.select(d, i) if isinstance(d, int) else x for x, d in zip(inputs, in_dims, strict=True)))
        for i in range(size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    columns = tuple(torch.stack(column) for column in zip(*results, strict=True))
    return columns, (0,) * len(columns)


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
