"""What an inference method is: settings that turn a :class:`~lnz.scores.Model` into a :class:`Solution`.

A method is a frozen dataclass of settings with one function, ``solve``. A solution answers questions about one model
and computes each answer when it is asked for; what a method cannot answer raises and names the methods that can.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from lnz.caching import cached_property
from lnz.checks import check_feasible, check_no_tangent
from lnz.scores import Model
from lnz.typing import IGNORE

SUMMING = ", and approximately BeliefPropagation(), MeanField() or TreeReweighted()"
DECODING = (
    ", IntegerProgram() on small ones, and approximately TRWS(), GraphCuts(), BeliefPropagation() or "
    "IteratedConditionalModes()"
)
SAMPLING = ", and approximately Gibbs() and the other samplers"


def check_reverse_mode(method: str, model: Model) -> None:
    """Raise where forward mode (``torch.func.jvp``, dual numbers) asks for tangents, which ``method`` would drop."""
    instead = "reverse mode (torch.func.grad, torch.func.vjp), or Enumeration() on models small enough to list"
    for tensor in model.tensors:
        check_no_tangent(method, tensor, instead)


class Solution:
    """The answers of one method about one model. Shapes: N nodes, L the largest cardinality, F factors of a group.

    A method answers what it can; what it leaves out raises a ``TypeError`` that names methods which do.
    """

    method: str
    """The name of the method, for error messages."""
    exact: bool
    """Whether every answer given is exact."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @cached_property
    def centred(self) -> tuple[Model, Tensor]:
        """The model without what the scores of all labellings have in common, and how much; :meth:`Model.centred`."""
        with torch.enable_grad():  # kept for answers with gradients, whatever is asked first
            return self.model.centred()

    @property
    def log_partition(self) -> Tensor:
        """ln Z, or the method's approximation, ``[*batch]``; −inf where no labelling is possible."""
        self._cannot("ln Z", SUMMING)

    @property
    def centred_log_partition(self) -> Tensor:
        """ln Z of the :attr:`centred` model: what log-probabilities and entropies are made of, in float32 or wider.

        NaN where the method has no estimate of it.
        A method whose own sums are those of the centred model keeps digits here that :attr:`log_partition` loses.
        """
        return self.log_partition - self.centred[1]

    @property
    def marginals(self) -> tuple[Tensor, ...]:
        """Per group, the probability of each joint label of each factor, ``[*batch, F, L1, …, Lk]``."""
        self._cannot("marginals", SUMMING)

    @property
    def node_marginals(self) -> Tensor:
        """The probability of each label of each node, ``[*batch, N, L]``; 0 beyond a node's own cardinality."""
        self._cannot("node marginals", SUMMING)

    def summed_marginals(self, weights: Tensor | None = None) -> tuple[Tensor, ...]:
        """:attr:`marginals` summed over the last batch axis, which remains with size 1, in float64.

        Args:
            weights: ``[R]``, how often each entry of this axis counts; ``None``, once.
        """
        axis, found = len(self.model.batch_shape) - 1, []
        for marginal in self.marginals:
            if weights is None:
                found.append(marginal.sum(axis, keepdim=True, dtype=torch.float64))
            else:
                each = weights.to(marginal.device).double().reshape(-1, *[1] * (marginal.dim() - axis - 1))
                found.append((each * marginal.double()).sum(axis, keepdim=True))
        return tuple(found)

    def cross_entropy(self, other: Solution) -> Tensor:
        """−Σ_y P(y) ln Q(y), Q of ``other``, which has the same factors; the entropy where it is this solution.

        ``[*batch]`` float64; +∞ where Q(y) = 0 < P(y). By ln Z and expectations of scores, as the methods have them; a
        method that has probabilities to make it of keeps digits where scores are huge.
        """
        z = other.centred_log_partition.double()
        return z - self._expected_score(other.centred[0], torch.zeros_like(z))

    def _expected_score(self, model: Model, total: Tensor) -> Tensor:
        """E[s(y)] of the scores of ``model`` on top of ``total``; −∞ where it rules out what is possible here."""
        batch = len(self.model.batch_shape)
        for group, marginal in enumerate(self.marginals):
            scores = model.expanded(group)
            impossible = torch.isneginf(scores)
            product = marginal.double() * scores.masked_fill(impossible, 0.0)
            product = product.masked_fill(impossible & (marginal > 0), -torch.inf)
            total = total + product.flatten(batch).sum(-1)
        if model.observed is None or model.observed is self.model.observed:
            return total
        labels = torch.arange(model.graph.max_cardinality, device=model.observed.device)
        ruled_out = (model.observed[..., None] != IGNORE) & (model.observed[..., None] != labels)
        lost = (ruled_out & (self.node_marginals > 0)).flatten(-2).any(-1)
        return total.masked_fill(lost, -torch.inf)

    def require_feasible(self, what: str) -> None:
        """Raise :class:`~lnz.InfeasibleError` where no labelling is possible, as far as the method can tell."""
        check_feasible(self.centred_log_partition, what)  # in range wherever it is finite

    def argmax(self) -> Tensor:
        """A best labelling, ``int64 [*batch, N]``."""
        self._cannot("argmax", DECODING)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """The k best labellings ``int64 [k, *batch, N]`` and their scores ``[k, *batch]``, best first.

        Where fewer than k labellings are possible the rest are −100 with score −inf.
        """
        self._cannot("topk")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent labellings, ``int64 [n, *batch, N]``."""
        self._cannot("sample", SAMPLING)

    @property
    def diagnostics(self) -> dict[str, Any]:
        """What the method has to say about its own work (iterations, residual, treewidth …)."""
        return {}

    def _cannot(self, what: str, alternatives: str = "") -> NoReturn:
        raise TypeError(
            f"{self.method} has no {what}; methods that do: Exact() wherever its tables fit, "
            f"Enumeration() on models small enough to list{alternatives}"
        )


class Method(ABC):
    """Settings of an inference method; each is a frozen dataclass."""

    exact: ClassVar[bool]

    @abstractmethod
    def solve(self, model: Model) -> Solution:
        """Plan for ``model``; cheap, and raises at once where the method cannot serve it."""
