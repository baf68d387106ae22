"""Boltzmann machines: binary units, some of them hidden, with a weight per pair of joined units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from lnz.checks import check_event_shape, check_tensor
from lnz.distributions import MRF
from lnz.graphs import FactorGraph
from lnz.inference import Chains, Sampler
from lnz.inference.base import Method
from lnz.nn.block_gibbs import BlockGibbs
from lnz.objectives import contrastive_divergence, nll, pseudolikelihood
from lnz.objectives.reduction import Reduction
from lnz.scores import Weighted
from lnz.typing import IGNORE

Objective = Literal["cd", "pcd", "pseudolikelihood", "nll"]


class BoltzmannMachine(nn.Module):
    """P(v, h) ∝ exp(Σ_n b_n y_n + Σ_{(n, m)} w_nm y_n y_m) over the units y = (v, h), each 0 or 1.

    The units are nodes of an :class:`~lnz.MRF`, first the V visible ones, then the H hidden ones. Hidden units are
    latent: nobody observes them, and the likelihood of a v sums over them (Ackley, Hinton & Sejnowski 1985).

    Args:
        num_visible: V.
        num_hidden: H; 0 for a fully visible machine.
        edges: ``int64 [E, 2]``, a tensor or an array, the pairs of units that have a weight; ``"full"``, all of them.

    Attributes:
        visible_bias: ``[V]``.
        hidden_bias: ``[H]``.
        weight: ``[E]``, drawn with standard deviation 1 / √(V + H) at first; biases start at 0.
        graph: the wiring: V + H binary nodes, one factor per node and one per edge.
    """

    def __init__(
        self, num_visible: int, num_hidden: int = 0, edges: Tensor | np.ndarray | Literal["full"] = "full"
    ) -> None:
        super().__init__()
        if num_visible < 1:
            raise ValueError(f"num_visible: expected a positive integer, got {num_visible}")
        if num_hidden < 0:
            raise ValueError(f"num_hidden: expected an integer of at least 0, got {num_hidden}")
        units = num_visible + num_hidden
        if isinstance(edges, str):
            if edges != "full":
                raise ValueError(f"edges: expected an int64 tensor of shape [E, 2] or 'full', got {edges!r}")
            edges = np.stack(np.triu_indices(units, 1), -1)
        self.num_visible, self.num_hidden = num_visible, num_hidden
        with _disable_current_modes():  # the wiring is real where parameters are fake
            self.graph = FactorGraph.pairwise(
                units, 2, torch.from_numpy(edges) if isinstance(edges, np.ndarray) else edges
            )
        self.visible_bias = nn.Parameter(torch.empty(num_visible))
        self.hidden_bias = nn.Parameter(torch.empty(num_hidden))
        self.weight = nn.Parameter(torch.empty(len(edges)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Biases of 0, and weights with standard deviation 1 / √(V + H): fields start of order 1 at most."""
        nn.init.zeros_(self.visible_bias)
        nn.init.zeros_(self.hidden_bias)
        nn.init.normal_(self.weight, std=(self.num_visible + self.num_hidden) ** -0.5)

    def mrf(self, inference: Method | None = None) -> MRF:
        """The distribution of visible and hidden units ``[V + H]``, without batch, in compact scores.

        Args:
            inference: how it is computed; ``None`` is :class:`~lnz.inference.Exact`.
        """
        bias = torch.cat((self.visible_bias, self.hidden_bias))
        on = bias.new_tensor([0.0, 1.0])
        return MRF(self.graph, (Weighted(bias, on), Weighted(self.weight.flatten(), on[:, None] * on)), inference)

    def forward(self) -> MRF:
        """The distribution over all units, as :meth:`mrf` gives it."""
        return self.mrf()

    if TYPE_CHECKING:
        __call__ = forward

    def labelling(self, v: Tensor) -> Tensor:
        """``v`` ``[*batch, V]`` of zeros and ones, as labels ``int64 [*batch, V + H]`` with the hidden units latent.

        Raises:
            ValueError: a wrong shape, or values other than 0 and 1.
        """
        self._check_visible(v)
        return torch.cat((v.long(), v.new_full((*v.shape[:-1], self.num_hidden), IGNORE, dtype=torch.int64)), -1)

    def init_chains(self, n: int, v: Tensor | None = None, generator: torch.Generator | None = None) -> Chains:
        """n persistent chains, for ``loss(…, "pcd", chains=…)``.

        Args:
            n: chains.
            v: where the visible units start, ``[n, V]``; ``None``, at random.
            generator: of the random numbers; ``None`` is torch's default one.
        """
        labels = None if v is None else self.labelling(self._starts(n, v))
        return BlockGibbs().init(self.mrf().model, n, generator, labels)

    def loss(
        self,
        v: Tensor,
        objective: Objective = "cd",
        *,
        steps: int = 1,
        chains: Chains | None = None,
        sampler: Sampler | None = None,
        inference: Method | None = None,
        generator: torch.Generator | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """What to minimise, from data ``v`` ``[B, V]`` of zeros and ones.

        Args:
            v: a batch of observations.
            objective: ``"cd"``, :func:`~lnz.objectives.contrastive_divergence` with chains that start at the data;
                ``"pcd"``, with persistent ``chains``; ``"pseudolikelihood"``,
                :func:`~lnz.objectives.pseudolikelihood`, where no two hidden units are joined; ``"nll"``,
                :func:`~lnz.objectives.nll` by ``inference``. The value means something under the last two only.
            steps: sweeps of the chains, at least 1.
            chains: of ``"pcd"`` and :meth:`init_chains`, advanced in place.
            sampler: of ``"cd"`` and ``"pcd"``; ``None`` is :class:`BlockGibbs`.
            inference: of ``"nll"``; ``None`` is :class:`~lnz.inference.Exact`.
            generator: of the random numbers; ``None`` is torch's default one.
            reduction: ``"none"`` keeps ``[B]``; ``"mean"`` and ``"sum"`` are over the batch.

        Raises:
            TypeError: a ``v`` that is no tensor, a sampler that is none.
            ValueError: an unknown objective, ``"pcd"`` without chains; chains, a sampler or an inference method where
                the objective has no use for it; wrong or no rows in ``v``; joined hidden units under
                ``"pseudolikelihood"``.
            IntractableError: ``"nll"`` where exact inference would be too large.
        """
        check_objective(objective, chains, sampler, inference)
        self._check_data(v)
        y = self.labelling(v)
        if objective == "nll":
            return nll(self.mrf(inference), y, reduction, generator=generator)
        if objective == "pseudolikelihood":
            return pseudolikelihood(self.mrf(), y, reduction)
        sampler = BlockGibbs() if sampler is None else sampler
        return contrastive_divergence(self.mrf(), y, steps, sampler, chains, generator, reduction)

    @torch.no_grad()
    def set_base_rates(self, v: Tensor) -> Self:
        """Let the visible biases be those of independent units with the mean of data ``v`` ``[R, V]``: a good start."""
        self._check_visible(v)
        self.visible_bias.copy_(base_rates(v).logit())
        return self

    def _starts(self, n: int, v: Tensor) -> Tensor:
        """``v`` as the start of n chains, ``[n, V]``; one row serves all."""
        self._check_visible(v)
        if v.dim() > 2 or (v.dim() == 2 and len(v) not in (1, n)):
            raise ValueError(f"v: expected one row per chain, shape [{n}, {self.num_visible}], got {list(v.shape)}")
        return v.expand(n, -1)

    def _check_data(self, v: Tensor) -> None:
        """Raise unless ``v`` is something to learn from."""
        self._check_visible(v)
        if not v.numel():
            raise ValueError(f"v: expected observations, one or more, got shape {list(v.shape)}")

    def _check_visible(self, v: Tensor) -> None:
        check_tensor("v", v)
        check_event_shape("v", v.shape, (self.num_visible,))
        if not ((v == 0) | (v == 1)).all():
            raise ValueError(f"v: expected zeros and ones, got values in [{v.min()}, {v.max()}]")

    def extra_repr(self) -> str:
        return f"num_visible={self.num_visible}, num_hidden={self.num_hidden}, edges={self.graph.num_factors[1]}"


def base_rates(v: Tensor) -> Tensor:
    """How often each unit is 1 in data ``v`` ``[R, V]`` and two more rows, of zeros and of ones: never 0, never 1."""
    return (v.sum(0) + 1.0) / (len(v) + 2.0)


def check_objective(
    objective: str, chains: Chains | None, sampler: Sampler | None = None, inference: Method | None = None
) -> None:
    """Raise unless the objective is known, comes with chains if it needs them, and with nothing it has no use for."""
    known = ("cd", "pcd", "pseudolikelihood", "nll")
    if objective not in known:
        raise ValueError(f"objective: expected one of {', '.join(map(repr, known))}, got {objective!r}")
    if objective == "pcd" and chains is None:
        raise ValueError("chains: expected those of init_chains, which 'pcd' advances, got None")
    if objective != "pcd" and chains is not None:
        raise ValueError(f"chains: expected None under {objective!r}; persistent chains are for 'pcd'")
    if sampler is not None and objective not in ("cd", "pcd"):
        raise ValueError(f"sampler: expected None under {objective!r}; samplers are for 'cd' and 'pcd'")
    if inference is not None and objective != "nll":
        raise ValueError(f"inference: expected None under {objective!r}; inference methods are for 'nll'")
