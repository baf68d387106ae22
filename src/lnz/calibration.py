"""Temperature scaling: by what to divide scores so that probabilities are right on data that training has not seen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from lnz.distributions import Softmax
from lnz.distributions.base import StructuredDistribution
from lnz.errors import ConvergenceWarning, FailedEstimateError
from lnz.objectives import nll
from lnz.typing import IGNORE

By = Literal["likelihood", "marginals"]
Pair = tuple[StructuredDistribution, Tensor]

RANGE = 0.01, 100.0
"""Temperatures that are looked at."""


class Measured(NamedTuple):
    """How probabilities fit gold labels.

    Attributes:
        nll: the mean negative log-likelihood in nats: of labellings, or of single labels by their marginals.
        ece: the expected calibration error of the marginals of single labels; NaN where a family has none.
    """

    nll: float
    ece: float


class Temperature(float):
    """A temperature, as a number, that also says what it changes: ``before`` and ``after``, :class:`Measured` each."""

    before: Measured
    after: Measured

    def __new__(cls, value: float, before: Measured, after: Measured) -> Temperature:
        self = super().__new__(cls, value)
        self.before, self.after = before, after
        return self

    def __getnewargs__(self) -> tuple[float, Measured, Measured]:
        return float(self), self.before, self.after

    def __repr__(self) -> str:
        (nll_before, ece_before), (nll_after, ece_after) = self.before, self.after
        ece = "" if math.isnan(ece_before) else f", ECE {ece_before:.4f} → {ece_after:.4f}"
        return f"{float(self):.4g} (NLL {nll_before:.4f} → {nll_after:.4f}{ece})"


@overload
def calibrate(
    model: Callable[..., Any] | None,
    data: Iterable[tuple[Any, Tensor]],
    *,
    per_part: Literal[False] = False,
    by: By = "likelihood",
) -> Temperature: ...
@overload
def calibrate(
    model: Callable[..., Any] | None,
    data: Iterable[tuple[Any, Tensor]],
    *,
    per_part: Literal[True],
    by: By = "likelihood",
) -> tuple[Temperature, ...]: ...
def calibrate(
    model: Callable[..., Any] | None,
    data: Iterable[tuple[Any, Tensor]],
    *,
    per_part: bool = False,
    by: By = "likelihood",
) -> Temperature | tuple[Temperature, ...]:
    """The temperature at which validation data are most probable; ``p.tempered(temperature)`` applies it.

    Networks are overconfident on data that they have not been trained on, and marginals inherit it. Dividing all
    scores by one number leaves the best labelling as it is. The likelihood is concave in 1/T, so the number is found by
    a bracket; one ln Z of all data for each of the 20 to 30 temperatures tried. (Guo, Pleiss, Sun & Weinberger 2017,
    for softmax; here Z sums over labellings.)

    Args:
        model: a module or function whose output is a structured distribution, called with the inputs (with several,
            where they are a tuple). A module is in evaluation mode meanwhile. ``None``: ``data`` has distributions.
        data: pairs (inputs, gold), or (distribution, gold), as batches; gold ``int64 [*batch, *event]``. Data that
            training has not seen. The scores of all are kept in memory.
        per_part: one temperature for each tensor of scores, as nodes and edges; best labellings then may change.
        by: ``"likelihood"``, of whole labellings (−100 is summed over); or ``"marginals"``, of each label by its own
            marginal: what counts under approximate beliefs, which may be off where ln Z is not.

    Returns:
        A :class:`Temperature`, which is a float; per part, a tuple of them. Each says what NLL and ECE were, and are.

    Raises:
        FailedEstimateError: no temperature in 0.01 … 100 is best: every gold labelling is a best one, or none is
            better than chance; more data are needed.
        InfeasibleError: gold labels that the model has as impossible.
        TypeError, ValueError: what gives no structured distribution, or no data; families without marginals of
            single labels under ``by="marginals"``.
    """
    from scipy.optimize import minimize, minimize_scalar

    if by not in ("likelihood", "marginals"):
        raise ValueError(f"by: expected 'likelihood' or 'marginals', got {by!r}")
    with torch.no_grad(), _evaluating(model):
        pairs = list(_pairs(model, data))
    if not pairs:
        raise ValueError("data: expected at least one pair, got none")
    loss = _negative_log_likelihood if by == "likelihood" else _marginal_loss
    parts = len(pairs[0][0].scores) if per_part and isinstance(pairs[0][0].scores, tuple) else 1
    limits = math.log(RANGE[0]), math.log(RANGE[1])

    def tempered(logs: Sequence[float]) -> Iterator[Pair]:
        each = tuple(math.exp(value) for value in logs)
        return ((p.tempered(each[0] if parts == 1 else each), y) for p, y in pairs)

    with torch.no_grad():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of temperatures that are only tried
            if parts == 1:
                tried: Any = minimize_scalar(
                    lambda value: loss(tempered([value])), bounds=limits, method="bounded", options={"xatol": 1e-7}
                )
                found = [float(tried.x)]
            else:
                tried = minimize(
                    lambda values: loss(tempered(values.tolist())),
                    [0.0] * parts,
                    method="Powell",
                    bounds=[limits] * parts,
                    options={"xtol": 1e-6, "ftol": 1e-12},
                )
                found = tried.x.tolist()
            _check_inside(lambda logs: loss(tempered(logs)), found, limits)
        before = Measured(loss(pairs), _calibration_error(pairs))
        after = Measured(loss(tempered(found)), _calibration_error(tempered(found)))
    temperatures = tuple(Temperature(math.exp(value), before, after) for value in found)
    return temperatures if per_part else temperatures[0]


def _check_inside(
    loss: Callable[[Sequence[float]], float], found: Sequence[float], limits: tuple[float, float]
) -> None:
    """Raise where the loss at a limit is no worse than at the logarithms ``found``, and falls on the way there."""
    best, start = loss(found), loss([0.0] * len(found))
    for part in range(len(found)):
        for limit in limits:
            if loss([*found[:part], limit, *found[part + 1 :]]) <= best < start:
                raise FailedEstimateError(
                    f"data: no temperature in {RANGE[0]:g} … {RANGE[1]:g} is best: gold labellings are always the best "
                    "ones under the model, or no better than chance; give more data"
                )


@contextmanager
def _evaluating(model: object) -> Iterator[None]:
    """Evaluation mode of a module; each part of it then is as it was."""
    modes = {part: part.training for part in model.modules()} if isinstance(model, nn.Module) else {}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _pairs(model: Callable[..., Any] | None, data: Iterable[tuple[Any, Tensor]]) -> Iterator[Pair]:
    for number, pair in enumerate(data):
        if isinstance(pair, Mapping) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"data: expected pairs (inputs, gold), got {type(pair).__name__} as number {number}")
        inputs, gold = pair
        given = inputs if model is None else model(*inputs) if isinstance(inputs, tuple) else model(inputs)
        if not isinstance(given, StructuredDistribution):
            what = "data: expected" if model is None else "model: expected one that returns"
            hint = "; lnz.Softmax takes logits [..., L]" if isinstance(given, Tensor) else ""
            raise TypeError(f"{what} a structured distribution of lnz, got {type(given).__name__}{hint}")
        yield given.map_scores(Tensor.detach), gold


def _negative_log_likelihood(pairs: Iterable[Pair]) -> float:
    return _mean([nll(p, y, reduction="none").double().flatten() for p, y in pairs])


def _mean(terms: Sequence[Tensor]) -> float:
    joined = torch.cat(list(terms))
    if not len(joined):
        raise ValueError("data: expected gold labels, got none")
    return joined.mean().item()


def _labels(p: StructuredDistribution, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Marginals ``[R, L]`` and gold labels ``[R]`` of observed labels, in float64; None where a family has none."""
    marginals = p.marginals if isinstance(p, Softmax) else getattr(p, "node_marginals", None)
    if marginals is None:
        return None
    gold = p.labelling(y).expand(marginals.shape[:-1])
    seen = gold != IGNORE
    return marginals[seen].double().clamp(0, 1), gold[seen]


def _marginal_loss(pairs: Iterable[Pair]) -> float:
    terms = []
    for p, y in pairs:
        labels = _labels(p, y)
        if labels is None:
            raise TypeError(f"by: {type(p).__name__} has no marginals of single labels; use by='likelihood'")
        marginals, gold = labels
        terms.append(-marginals.gather(1, gold[:, None]).clamp_min(torch.finfo(torch.float32).tiny).log().flatten())
    return _mean(terms)


def _calibration_error(pairs: Iterable[Pair], bins: int = 15) -> float:
    """Σ over bins of the largest marginal, of the bin's share times |its mean − the share of right labels|."""
    confidence, right = [], []
    for p, y in pairs:
        labels = _labels(p, y)
        if labels is None:
            return math.nan
        largest, label = labels[0].max(1)
        confidence.append(largest)
        right.append((label == labels[1]).double())
    sure, hit = torch.cat(confidence), torch.cat(right)
    which = (sure * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64, device=sure.device).index_add(0, which, sure - hit)
    return (gap.abs().sum() / max(1, len(sure))).item()
