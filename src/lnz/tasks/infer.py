"""Queries about one model: ln Z, marginals, or a best labelling of all or some variables, given evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lnz.distributions import MRF
from lnz.errors import FailedEstimateError, InfeasibleError
from lnz.inference.base import Method
from lnz.inference.exact.marginal_map import marginal_map
from lnz.inference.sampling.sampler import Sampler
from lnz.io import NamedModel, assignment_result, marginals_result, partial_assignment_result, partition_result
from lnz.typing import IGNORE

Query = Literal["PR", "MAR", "MAP", "MMAP"]


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one query; what the query does not compute is ``None``.

    Attributes:
        query: ``"PR"`` computes ln Z; ``"MAR"`` ln Z and marginals; ``"MAP"`` a best labelling and its score;
            ``"MMAP"`` the best labels of some variables, with the others summed out.
        model: the model that was asked.
        exact: whether the answer is exact: by the method, or since a bound has proved it.
        diagnostics: what the inference method says about its own work, as plain numbers. Of a best labelling that is at
            least its ``score``, the ``bound`` that no score exceeds (``None`` where there is none), and whether it is
            proved ``optimal``.
        log_partition: ln Z of the model with its evidence clamped (of a Bayesian network: ln of the evidence's
            probability); ``None`` of samplers, which have none.
        marginals: one row of probabilities per node, in the file's order; one-hot for evidence.
        labelling: one label per node, evidence included; of ``"MMAP"`` per variable asked for.
        log_score: s(y) of that labelling: ln of the product of all tables, evidence included, not normalised; of
            ``"MMAP"`` ln of the sum of those products over all other variables.
        variables: the nodes that ``labelling`` is of; ``None`` for all.
    """

    query: Query
    model: NamedModel
    exact: bool
    diagnostics: dict[str, Any]
    log_partition: float | None = None
    marginals: tuple[tuple[float, ...], ...] | None = None
    labelling: tuple[int, ...] | None = None
    log_score: float | None = None
    variables: tuple[int, ...] | None = None

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
        nodes = range(self.model.graph.num_nodes) if self.variables is None else self.variables
        labels = zip(nodes, self.labelling, strict=True)
        return {self.model.names[node]: self.model.states[node][label] for node, label in labels}

    def to_uai(self) -> str:
        """The answer in the UAI result format."""
        if self.log10_partition is not None and self.query == "PR":
            return partition_result(self.log10_partition)
        if self.marginals is not None:
            return marginals_result(self.marginals)
        assert self.labelling is not None
        if self.variables is not None:
            return partial_assignment_result(self.variables, self.labelling)
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


def infer(
    model: NamedModel,
    query: Query,
    method: Method,
    evidence: Tensor | None = None,
    variables: Sequence[int] | None = None,
) -> Answer:
    """Answer one query about ``model``, given ``evidence``.

    Args:
        model: as :func:`lnz.io.read_model` reads it.
        query: ``"PR"``, ``"MAR"``, ``"MAP"`` or ``"MMAP"``.
        method: the settings of an inference method; for ``"MMAP"`` ``Exact`` or ``Enumeration``.
        evidence: ``int64 [N]``, −100 where nothing is observed.
        variables: of ``"MMAP"``, the nodes to label; all others are summed out.

    Raises:
        FailedEstimateError: an approximate method found no estimate of ln Z.
        InfeasibleError: every labelling that agrees with the evidence has probability 0.
        IntractableError: the method finds the model too large.
        TypeError: the method has no such answer; names those that do.
        ValueError: an unknown query, evidence or variables of the wrong shape or out of range, or a model that the
            method does not serve.
    """
    if query not in get_args(Query):
        raise ValueError(f"query: expected one of {', '.join(get_args(Query))}, got {query!r}")
    if (variables is not None) != (query == "MMAP"):
        raise ValueError(f"variables: expected those of an MMAP query, and only there, got {variables} for {query}")
    p = model.mrf(method)
    if evidence is not None:
        p = p.condition(evidence)
    with torch.no_grad():
        if variables is not None:
            return _best_of_some(model, p, method, variables)
        return _best(model, p) if query == "MAP" else _summed(model, p, query)


def draw(model: NamedModel, count: int, method: Method, evidence: Tensor | None = None, seed: int = 0) -> Tensor:
    """Independent samples of ``model`` given ``evidence``, labels ``int64 [count, N]``.

    Of a Bayesian network without evidence they are ancestral, each variable given its parents, which no treewidth
    stops; otherwise ``method`` draws them: ``Exact`` and ``Enumeration`` from the posterior, samplers approximately.

    Raises:
        InfeasibleError: every labelling that agrees with the evidence has probability 0.
        IntractableError: the method finds the model too large.
        TypeError: the method draws no samples; names those that do.
        ValueError: a model that the method does not serve, or tables of a network that are no distributions.
    """
    stream = torch.Generator().manual_seed(seed)
    seen = evidence is not None and bool((evidence != IGNORE).any())
    if model.kind == "BAYES" and not seen:
        return model.bayes_net().sample((count,), generator=stream)
    p = model.mrf(method)
    return (p if evidence is None else p.condition(evidence)).sample((count,), generator=stream)


def _summed(model: NamedModel, p: MRF, query: Query) -> Answer:
    """ln Z, where the method has it or PR asks for it, and marginals."""
    log_partition = marginals = None
    if query == "PR" or not isinstance(p.inference, Sampler):
        log_partition = float(p.log_partition)
        given = "" if p.model.observed is None else " that agrees with the evidence"
        if p.solution.centred_log_partition.isnan():
            raise FailedEstimateError(
                f"{type(p.inference).__name__}: no estimate of ln Z: only labellings{given} of probability 0 were "
                "found, which does not show that there are no others; try another method, such as Exact or "
                "BeliefPropagation"
            )
        if log_partition == -math.inf:
            raise InfeasibleError(f"no labelling{given} has a probability above 0: Z = 0")
    if query == "MAR":
        rows = zip(p.node_marginals.tolist(), model.graph.cardinalities, strict=True)
        marginals = tuple(tuple(row[:card]) for row, card in rows)
    return Answer(query, model, p.solution.exact, _plain(p.diagnostics), log_partition, marginals)


def _best(model: NamedModel, p: MRF) -> Answer:
    best = p.argmax()
    said = p.diagnostics
    return Answer(
        "MAP",
        model,
        bool(said["optimal"]),
        _plain(said),
        labelling=tuple(best.tolist()),
        log_score=float(p.score(best)),
    )


def _best_of_some(model: NamedModel, p: MRF, method: Method, variables: Sequence[int]) -> Answer:
    nodes = tuple(variables)
    labels, value = marginal_map(p.model, nodes, method)
    known = {"score": value, "bound": value, "optimal": True}
    return Answer("MMAP", model, True, known, labelling=labels, log_score=value, variables=nodes)


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
