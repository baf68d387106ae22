"""What a sampler is: a Markov chain over labellings, run from a state and back into one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lnz.checks import check_generator, check_integer, check_number
from lnz.inference.base import Method, Solution
from lnz.inference.sampling.resumed import check_model, resumed
from lnz.inference.sampling.sampler_solution import SamplerSolution
from lnz.inference.sampling.starts import starts
from lnz.scores import Model


@dataclass(eq=False)
class Chains:
    """The state of n Markov chains per model: plain tensors, so that it can be saved and gone on from.

    To draw after that what would have been drawn without it, save the generator's ``get_state()`` too, and make the
    same calls of ``step`` in the same order: how many sweeps are in each call matters to which numbers are drawn.

    Attributes:
        labels: ``int64 [n, *batch, N]``, the labelling of each chain.
        carried: what else a sampler carries from step to step, by name.
        sweeps: how many sweeps have been made since the start.
    """

    labels: Tensor
    carried: dict[str, Tensor] = field(default_factory=dict)
    sweeps: int = 0

    def become(self, other: Chains) -> None:
        """Take over the state of ``other``: how persistent chains advance in place."""
        self.labels, self.carried, self.sweeps = other.labels, dict(other.carried), other.sweeps

    def state_dict(self) -> dict[str, Any]:
        """Tensors and an integer, for ``torch.save``; see :meth:`from_state_dict`."""
        return {"labels": self.labels, "carried": dict(self.carried), "sweeps": self.sweeps}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Chains:
        """The chains that :meth:`state_dict` described."""
        return cls(state["labels"], dict(state["carried"]), int(state["sweeps"]))


Transition = Callable[[Chains, int, torch.Generator | None], Chains]
"""Advances chains by a number of sweeps under one model; leaves the chains it is given as they are.

The chains are taken to fit the model, observed labels included, as those that ``init`` makes and ``step`` lets in do.
"""


@dataclass(frozen=True, kw_only=True)
class Sampler(Method):
    """A Markov chain whose stationary distribution is P; settings, batched over models and chains.

    As an inference method it estimates ``marginals``, with their error in ``diagnostics``, and ``sample`` runs chains
    from new starts for ``warmup`` sweeps. ln Z it has none: that is what
    :class:`~lnz.inference.AnnealedImportance` estimates.

    Args:
        chains: chains per model that ``marginals`` and diagnostics use.
        warmup: sweeps of each chain before anything is kept.
        sweeps: sweeps after that, each of whose states is kept for ``marginals``; at least 4.
        seed: of the random numbers behind ``marginals`` and diagnostics, which thus are the same each time. ``init``,
            ``step`` and ``sample`` take a ``generator``, where ``None`` is torch's default one.
        max_r_hat: above this R-hat, ``marginals``, ``sample`` and diagnostics warn that the chains have not mixed.

    Warns:
        ConvergenceWarning: where chains have not mixed, or nobody can tell.
    """

    chains: int = 16
    warmup: int = 100
    sweeps: int = 100
    seed: int = 0
    max_r_hat: float = 1.05
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_integer("chains", self.chains, 1)
        check_integer("warmup", self.warmup, 0)
        check_integer("sweeps", self.sweeps, 4)
        check_integer("seed", self.seed, None)
        check_number("max_r_hat", self.max_r_hat, "a number of at least 1", lambda least: least >= 1)

    @abstractmethod
    def transition(self, model: Model) -> Transition:
        """Plan for ``model``: what advances chains under it.

        Raises:
            TypeError, ValueError: the model is not of the kind that the sampler serves.
        """

    def init(
        self, model: Model, n: int, generator: torch.Generator | None = None, labels: Tensor | None = None
    ) -> Chains:
        """n chains per model, started at ``labels`` or at random labellings of finite score.

        Args:
            model: its observed nodes start, and stay, at their observed labels.
            n: chains per model.
            generator: of the random numbers.
            labels: ``int64``, broadcasting to ``[n, *batch, N]``; where they are −100, random.

        Raises:
            InfeasibleError: no labelling is possible, or the given one is not; names the batch entries.
            FailedEstimateError: no start of finite score was found, which is no proof; names the batch entries.
            TypeError: a distribution in place of its ``model``, or an argument of another wrong kind.
            ValueError: n below 1, or labels of a wrong shape or out of range.
        """
        check_model(model)
        check_integer("n", n, None)
        check_generator(generator)
        with torch.no_grad():
            return Chains(starts(model.centred()[0], n, generator, labels))

    def step(self, model: Model, chains: Chains, sweeps: int = 1, generator: torch.Generator | None = None) -> Chains:
        """The chains after ``sweeps`` more sweeps; ``chains`` itself is left as it is.

        Args:
            model: the one that the chains have come from, or one with other scores or observations over the same
                graph: what it has observed is put in before the first sweep.
            chains: of this sampler's ``init`` or ``step``, or of another sampler's.
            sweeps: how many; 0 is allowed.
            generator: of the random numbers.

        Raises:
            InfeasibleError: what is observed now leaves a chain score −inf; names the batch entries.
            TypeError: a distribution in place of its ``model``, or an argument of another wrong kind.
            ValueError: chains of another graph, batch or device, with labels out of range or missing (−100), or a
                negative number of sweeps.
        """
        check_model(model)
        check_integer("sweeps", sweeps, 0)
        check_generator(generator)
        if not isinstance(chains, Chains):
            raise TypeError(f"chains: expected Chains, which init makes, got {type(chains).__name__}")
        with torch.no_grad():
            return self.plan(model)(self._resumed(model, chains), sweeps, generator)

    def plan(self, model: Model) -> Transition:
        """:meth:`transition` of the centred model; for a graph without nodes, where there is nothing to move, too."""
        if not model.graph.num_nodes:
            return _stay
        with torch.no_grad():
            return self.transition(model.centred()[0])

    def _resumed(self, model: Model, chains: Chains) -> Chains:
        """The chains as they go on under ``model``; a sampler that carries labellings of its own has more to do."""
        return Chains(resumed("chains", model, chains.labels), chains.carried, chains.sweeps)

    def solve(self, model: Model) -> Solution:
        return SamplerSolution(model, self)

    def report(self, chains: Chains) -> dict[str, Any]:
        """What the sampler itself adds to the diagnostics, by name: acceptance rates and the like."""
        return {}


def _stay(chains: Chains, sweeps: int, generator: torch.Generator | None) -> Chains:
    return Chains(chains.labels.clone(), dict(chains.carried), chains.sweeps + sweeps)
