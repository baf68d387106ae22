"""Queries about one model: ln Z, marginals, or a best labelling, given evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lnz.errors import InfeasibleError
from lnz.inference.base import Method
from lnz.io import NamedModel, assignment_result, marginals_result, partition_result

Query = Literal["PR", "MAR", "MAP"]


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one query; what the query does not compute is ``None``.

    Attributes:
        query: ``"PR"`` computes ln Z; ``"MAR"`` ln Z and marginals; ``"MAP"`` a best labelling and its score.
        model: the model that was asked.
        exact: whether the answer is exact.
        diagnostics: what the inference method says about its own work, as plain numbers.
        log_partition: ln Z of the model with its evidence clamped (of a Bayesian network: ln of the evidence's
            probability).
        marginals: one row of probabilities per node, in the file's order; one-hot for evidence.
        labelling: one label per node, evidence included.
        log_score: s(y) of that labelling: ln of the product of all tables, evidence included, not normalised.
    """

    query: Query
    model: NamedModel
    exact: bool
    diagnostics: dict[str, Any]
    log_partition: float | None = None
    marginals: tuple[tuple[float, ...], ...] | None = None
    labelling: tuple[int, ...] | None = None
    log_score: float | None = None

    @property
    def log10_partition(self) -> float | None:
        """log10 Z."""
        return None if self.log_partition is None else self.log_partition / math.log(10)

    @property
    def named_marginals(self) -> dict[str, list[float]] | None:
        """The marginals of each variable, in the file's order of its states."""
        return None if self.marginals is None else dict(zip(self.model.names, map(list, self.marginals), strict=True))

    @property
    def assignment(self) -> dict[str, str] | None:
        """The state of each variable, by name."""
        if self.labelling is None:
            return None
        named = zip(self.model.names, self.model.states, self.labelling, strict=True)
        return {name: states[label] for name, states, label in named}

    def to_uai(self) -> str:
        """The answer in the UAI result format."""
        if self.log10_partition is not None and self.query == "PR":
            return partition_result(self.log10_partition)
        if self.marginals is not None:
            return marginals_result(self.marginals)
        assert self.labelling is not None
        return assignment_result(self.labelling)

    def to_dict(self) -> dict[str, Any]:
        """The answer as one object of plain values, with every key; what was not computed is ``None``."""
        return {
            "ln_Z": self.log_partition,
            "log10_Z": self.log10_partition,
            "marginals": self.named_marginals,
            "assignment": self.assignment,
            "log_score": self.log_score,
            "exact": self.exact,
            "diagnostics": self.diagnostics,
        }


def infer(model: NamedModel, query: Query, method: Method, evidence: Tensor | None = None) -> Answer:
    """Answer one query about ``model``, given ``evidence``.

    Args:
        model: as :func:`lnz.io.read_model` reads it.
        query: ``"PR"``, ``"MAR"`` or ``"MAP"``.
        method: the settings of an inference method.
        evidence: ``int64 [N]``, −100 where nothing is observed.

    Raises:
        InfeasibleError: every labelling that agrees with the evidence has probability 0.
        IntractableError: the method finds the model too large.
        ValueError: an unknown query, or evidence of the wrong shape or out of range.
    """
    if query not in get_args(Query):
        raise ValueError(f"query: expected one of {', '.join(get_args(Query))}, got {query!r}")
    p = model.mrf(method)
    if evidence is not None:
        p = p.condition(evidence)
    found: dict[str, Any] = {}
    with torch.no_grad():
        if query == "MAP":
            best = p.argmax()
            found = {"labelling": tuple(best.tolist()), "log_score": float(p.score(best))}
        else:
            found = {"log_partition": float(p.log_partition)}
            if found["log_partition"] == -math.inf:
                given = "" if evidence is None else " that agrees with the evidence"
                raise InfeasibleError(f"no labelling{given} has a probability above 0: Z = 0")
        if query == "MAR":
            rows = zip(p.node_marginals.tolist(), model.graph.cardinalities, strict=True)
            found["marginals"] = tuple(tuple(row[:card]) for row, card in rows)
        return Answer(query, model, p.solution.exact, _plain(p.diagnostics), **found)


def _plain(value: Any) -> Any:
    """Tensors as numbers and lists, and what JSON has no word for (NaN, infinity) as ``None``."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)
