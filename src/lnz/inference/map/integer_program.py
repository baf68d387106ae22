"""Exact best labellings of small models by integer programming, through the HiGHS solver in SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lnz.checks import check_integer, check_number
from lnz.errors import IntractableError
from lnz.inference.base import Method
from lnz.inference.map.linear_program import Program, program
from lnz.inference.map.mode import Found, ModeSolution
from lnz.inference.map.simulated_annealing import SimulatedAnnealing
from lnz.ops.layout import Floats, Ints, Layout
from lnz.scores import Model

GAP = 1e-6  # HiGHS calls two values equal that differ by no more, as a fraction


@dataclass(frozen=True)
class IntegerProgram(Method):
    """A best labelling as the integer program over the local polytope (Wainwright and Jordan 2008, section 8).

    One 0/1 variable per label of each node, one fraction per joint label of each factor, tied together by the
    marginals of the fractions; factors that only forbid, or charge one fee, take none. Solved by branch and cut.
    ``diagnostics`` tells ``score``, ``bound`` (HiGHS's dual bound), ``optimal`` (to HiGHS's tolerances: a relative gap
    of 1e-6) and ``status``. Batch entries are solved one after the other; exponential time in the worst case.

    Args:
        time_limit: seconds per batch entry; ``None`` is no limit. Where it ends before a better labelling is found
            than that of ``start``, the answer is that one, and ``status`` says so.
        max_variables: the most variables that a program may have, fractions of all factors counted.
        start: a method whose labelling competes. What cannot be part of a better one is left out of the program: the
            better the start, the smaller that is. ``None`` is ``SimulatedAnnealing()``.

    Raises:
        IntractableError: on ``solve``, where there are more.
    """

    time_limit: float | None = 60.0
    max_variables: int = 500_000
    start: Method | None = None
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, "None or a positive number of seconds", lambda t: t > 0)
        check_integer("max_variables", self.max_variables, 1)
        if self.start is not None and not isinstance(self.start, Method):
            raise TypeError(f"start: expected a method of lnz.inference or None, got {self.start!r}")

    def solve(self, model: Model) -> IntegerProgramSolution:
        graph = model.graph
        joint = sum(f * math.prod(ls) for f, ls in zip(graph.num_factors, graph.labels, strict=True) if len(ls) > 1)
        variables = sum(graph.cardinalities) + joint
        if variables > self.max_variables:
            raise IntractableError(
                f"IntegerProgram: {variables} variables are more than max_variables={self.max_variables}; pass "
                "inference=lnz.inference.TRWS() for a labelling with a bound, or a larger max_variables",
                treewidth=graph.num_nodes - 1,
                table_bytes=8 * variables,
                alternatives=("TRWS", "Exact"),
            )
        return IntegerProgramSolution(model, self)


class IntegerProgramSolution(ModeSolution):
    """The solver's best labelling, or that of the start, and the dual bound."""

    method = "IntegerProgram"

    def __init__(self, model: Model, settings: IntegerProgram) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        model, batch = self.model, self.model.batch_shape
        if not model.graph.num_nodes:
            labels = torch.zeros(*batch, 0, dtype=torch.int64, device=model.device)
            return Found(labels, model.precise_score(labels), {"status": ["optimal"] * batch.numel()})
        start = (self.settings.start or SimulatedAnnealing()).solve(model).argmax()
        layout, known = Layout(model), model.precise_score(start)
        answers = [
            self._one(layout, index, start[index].cpu(), float(known[index]))
            for index in itertools.product(*map(range, batch))
        ]
        labels = torch.stack([labels for labels, _, _ in answers]) if answers else start
        bounds = torch.tensor([bound for _, bound, _ in answers], dtype=torch.float64).reshape(batch)
        labels = labels.reshape(*batch, model.graph.num_nodes).to(model.device)
        return Found(labels, bounds.to(model.device), {"status": [status for *_, status in answers]})

    def _one(self, layout: Layout, index: tuple[int, ...], start: Tensor, known: float) -> tuple[Tensor, float, str]:
        from scipy.optimize import Bounds, LinearConstraint, milp

        scores = layout.scores(index)
        if scores.constant == -math.inf:
            return start, -math.inf, "infeasible"
        made = program(self.model.graph, scores.nodes, _tables(self.model, index), scores.constant, known)
        options: dict[str, Any] = {"mip_rel_gap": 0.0}
        if self.settings.time_limit is not None:
            options["time_limit"] = self.settings.time_limit
        answer = milp(
            -made.value,
            integrality=made.whole,
            bounds=Bounds(np.zeros(len(made.value)), made.upper),  # type: ignore[arg-type]
            constraints=LinearConstraint(made.rows, made.low, made.high),  # type: ignore[arg-type]
            options=options,
        )
        if answer.x is None:
            if answer.status == 2:  # nothing is as good as what is known
                return start, known, "optimal" if math.isfinite(known) else "infeasible"
            dual = getattr(answer, "mip_dual_bound", None)
            bound = math.inf if dual is None else max(known, made.constant - dual)
            return start, bound, "time limit, no better labelling found than that of the start"
        labels = self._chosen(made, answer.x, layout.wiring.label_at)
        score, bound = made.constant - answer.fun, max(known, made.constant - answer.mip_dual_bound)
        if known > score:
            labels, score = start, known
        near = abs(bound - score) <= GAP * (1 + abs(score))
        return labels, score if near else bound, "optimal" if near else "time limit"

    def _chosen(self, made: Program, x: Floats, label_at: Ints) -> Tensor:
        chosen = np.maximum.reduceat(x[: made.labels], label_at[:-1])
        return torch.from_numpy(_first_equal(x[: made.labels], chosen, label_at))


def _first_equal(values: Floats, chosen: Floats, label_at: Ints) -> Ints:
    """Per node, the first label whose value is the one ``chosen``."""
    owner = np.repeat(np.arange(len(chosen)), np.diff(label_at))
    hits = np.flatnonzero(values == chosen[owner])
    _, first = np.unique(owner[hits], return_index=True)
    return hits[first] - label_at[:-1]


def _tables(model: Model, index: Sequence[int]) -> list[Floats | None]:
    """Per group of two nodes or more, the scores of its joint labels ``[F, L1, …, Lk]``."""
    return [
        model.expanded(g)[tuple(index)].detach().to("cpu", torch.float64).numpy() if len(labels) > 1 else None
        for g, labels in enumerate(model.graph.labels)
    ]
