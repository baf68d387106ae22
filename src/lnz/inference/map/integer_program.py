"""Exact best labellings of small models by integer programming, through the HiGHS solver in SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lnz.checks import check_integer, check_number
from lnz.errors import IntractableError
from lnz.inference.base import Method
from lnz.inference.map.mode import Found, ModeSolution
from lnz.ops.icm.op import icm
from lnz.ops.layout import Floats, Ints, Layout
from lnz.scores import Model
from lnz.typing import IGNORE

if TYPE_CHECKING:
    from scipy.sparse import csr_array

GAP = 1e-6  # HiGHS calls two values equal that differ by no more, as a fraction


@dataclass(frozen=True)
class IntegerProgram(Method):
    """A best labelling as the integer program over the local polytope (Wainwright and Jordan 2008, section 8).

    One 0/1 variable per label of each node, one fraction per joint label of each factor, tied together by the
    marginals of the fractions; solved by branch and cut. ``diagnostics`` tells ``score``, ``bound`` (HiGHS's dual
    bound), ``optimal`` (to HiGHS's tolerances: a relative gap of 1e-6) and ``status``. Batch entries are solved one
    after the other; exponential time in the worst case.

    Args:
        time_limit: seconds per batch entry; ``None`` is no limit. Where it ends before any labelling is found, the
            answer is a local optimum of iterated conditional modes, and ``status`` says so.
        max_variables: the most variables that a program may have.

    Raises:
        IntractableError: on ``solve``, where there are more.
    """

    time_limit: float | None = 60.0
    max_variables: int = 500_000
    exact: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.time_limit is not None:
            check_number("time_limit", self.time_limit, "None or a positive number of seconds", lambda t: t > 0)
        check_integer("max_variables", self.max_variables, 1)

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
    """The solver's best labelling and dual bound."""

    method = "IntegerProgram"

    def __init__(self, model: Model, settings: IntegerProgram) -> None:
        super().__init__(model)
        self.settings = settings

    def _find(self) -> Found:
        model, batch = self.model, self.model.batch_shape
        constraints = _constraints(model)
        layout = Layout(model)
        answers = [self._one(layout, constraints, index) for index in itertools.product(*map(range, batch))]
        empty = torch.zeros(0, model.graph.num_nodes, dtype=torch.int64)
        labels = torch.stack([labels for labels, _, _ in answers]) if answers else empty
        bounds = torch.tensor([bound for _, bound, _ in answers], dtype=torch.float64).reshape(batch)
        labels = labels.reshape(*batch, model.graph.num_nodes).to(model.device)
        return Found(labels, bounds.to(model.device), {"status": [status for *_, status in answers]})

    def _one(self, layout: Layout, constraints: csr_array, index: Sequence[int]) -> tuple[Tensor, float, str]:
        from scipy.optimize import Bounds, LinearConstraint, milp

        scores = layout.scores(index)
        value = np.concatenate([scores.nodes, *_joint_scores(self.model, index)])
        possible = np.isfinite(value)
        nodes, label_at = self.model.graph.num_nodes, layout.wiring.label_at
        right = np.zeros(constraints.indptr.size - 1)
        right[:nodes] = 1
        options: dict[str, Any] = {"mip_rel_gap": 0.0}
        if self.settings.time_limit is not None:
            options["time_limit"] = self.settings.time_limit
        if not nodes:
            return torch.zeros(0, dtype=torch.int64), scores.constant, "optimal"
        answer = milp(
            -np.where(possible, value, 0.0),
            integrality=np.arange(len(value)) < label_at[-1],
            bounds=Bounds(np.zeros(len(value)), possible.astype(float)),  # type: ignore[arg-type]
            constraints=LinearConstraint(constraints, right, right),  # type: ignore[arg-type]
            options=options,
        )
        if answer.x is None:
            local = icm(self.model, self._start()[None])[0][tuple(index)].cpu()
            infeasible = answer.status == 2
            dual = getattr(answer, "mip_dual_bound", None)
            bound = -math.inf if infeasible else math.inf if dual is None else scores.constant - dual
            return local, bound, "infeasible" if infeasible else "time limit, no labelling found"
        chosen = np.maximum.reduceat(answer.x[: label_at[-1]], label_at[:-1])
        labels = torch.from_numpy(_first_equal(answer.x[: label_at[-1]], chosen, label_at))
        score, bound = scores.constant - answer.fun, scores.constant - answer.mip_dual_bound
        near = abs(bound - score) <= GAP * (1 + abs(score))
        return labels, score if near else bound, "optimal" if near else "time limit"

    def _start(self) -> Tensor:
        model = self.model
        labels = torch.zeros(*model.batch_shape, model.graph.num_nodes, dtype=torch.int64, device=model.device)
        return labels if model.observed is None else torch.where(model.observed == IGNORE, labels, model.observed)


def _first_equal(values: Floats, chosen: Floats, label_at: Ints) -> Ints:
    """Per node, the first label whose value is the one ``chosen``."""
    owner = np.repeat(np.arange(len(chosen)), np.diff(label_at))
    hits = np.flatnonzero(values == chosen[owner])
    _, first = np.unique(owner[hits], return_index=True)
    return hits[first] - label_at[:-1]


def _joint_scores(model: Model, index: Sequence[int]) -> list[Floats]:
    """Per group of two nodes or more, the scores of its joint labels, flat."""
    return [
        model.expanded(g)[tuple(index)].detach().to("cpu", torch.float64).reshape(-1).numpy()
        for g, labels in enumerate(model.graph.labels)
        if len(labels) > 1
    ]


def _constraints(model: Model) -> csr_array:
    """One label per node; and per factor, node and label, the fractions with that label sum to its variable."""
    from scipy.sparse import coo_array

    graph = model.graph
    cards = np.array(graph.cardinalities, dtype=np.int64)
    label_at = np.concatenate((np.zeros(1, dtype=np.int64), cards.cumsum()))
    rows, columns, values = (
        [np.repeat(np.arange(len(cards)), cards)],
        [np.arange(label_at[-1])],
        [np.ones(label_at[-1])],
    )
    row, column = len(cards), int(label_at[-1])
    for scope, labels in zip(graph.scopes, graph.labels, strict=True):
        factors, size = len(scope), math.prod(labels)
        if len(labels) < 2:
            continue
        fractions = column + np.arange(factors * size).reshape(factors, *labels)
        for position, card in enumerate(labels):
            ties = row + np.arange(factors * card).reshape(factors, card)
            shape = [factors, *(card if axis == position else 1 for axis in range(len(labels)))]
            rows += [np.broadcast_to(ties.reshape(shape), fractions.shape).ravel(), ties.ravel()]
            columns += [fractions.ravel(), (label_at[scope[:, position].numpy()][:, None] + np.arange(card)).ravel()]
            values += [np.ones(factors * size), -np.ones(factors * card)]
            row += factors * card
        column += factors * size
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return coo_array(entries, shape=(row, column)).tocsr()
