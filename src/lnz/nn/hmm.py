"""Hidden Markov models with parameters: observations in, the posterior over hidden states out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from lnz.checks import as_integers, check_feasible, check_lengths
from lnz.distributions import HMM
from lnz.nn.gaussian_emission import GaussianEmission
from lnz.nn.hmm_emissions import (
    Emission,
    Emissions,
    dirichlet,
    draw,
    draw_logits,
    free_logits,
    set_logits,
)
from lnz.nn.hmm_estimator import EstimatesSequences


@dataclass(frozen=True, eq=False)
class HMMStatistics:
    """Expected counts given the observations: what the M step of EM needs.

    Attributes:
        initial: how often each state comes first, ``[K]``.
        transition: how often each state follows each, ``[K, K]``.
        x: the observations, ``[*batch, T, …]``.
        states: P(z_t = k | x), ``[*batch, T, K]``; 0 over padding.
    """

    initial: Tensor
    transition: Tensor
    x: Tensor
    states: Tensor


class HiddenMarkovModel(EstimatesSequences, nn.Module):
    """A Markov chain of K hidden states, each of which emits an observation.

    ``forward`` gives the :class:`~lnz.HMM` of observations. Train it by gradient, minimising
    ``-model(x).log_evidence.mean()``, alone or as part of a network; or by :func:`lnz.objectives.em`, which needs no
    step size. Both use the same expected counts. States that start equal stay equal: start from random parameters.

    Args:
        initial: logits of the first state, ``[K]``; −inf for states that never come first, which holds in training too.
        transition: logits of the next state, a row per state, ``[K, K]``; −inf for transitions that never happen.
        emissions: :class:`CategoricalEmission`, :class:`GaussianEmission`, :class:`NeuralEmission`, or any callable
            from observations ``[*batch, T, …]`` to ln p(x_t | z_t) ``[*batch, T, K]``.

    Attributes:
        initial: ``[K]``.
        transition: ``[K, K]``.
        emissions: as given.
    """

    def __init__(self, initial: Tensor, transition: Tensor, emissions: Emissions) -> None:
        super().__init__()
        if initial.dim() != 1:
            raise ValueError(f"initial: expected shape [K], got {list(initial.shape)}")
        if transition.shape != (len(initial), len(initial)):
            raise ValueError(
                f"transition: expected shape [{len(initial)}, {len(initial)}], got {list(transition.shape)}"
            )
        self.initial = nn.Parameter(initial.clone())
        self.transition = nn.Parameter(transition.clone())
        self.emissions = emissions

    @property
    def num_states(self) -> int:
        """K."""
        return len(self.initial)

    def forward(self, x: Tensor, lengths: Tensor | Sequence[int] | None = None) -> HMM:
        """The posterior over the hidden states of observations ``[*batch, T, …]``.

        Args:
            x: what the emissions take. What lies beyond ``lengths`` may hold anything.
            lengths: integers ``[*batch]`` in 0 … T; ``None`` is T everywhere.
        """
        x = _without_padding(x, lengths)
        return HMM(self.initial.log_softmax(-1), self.transition.log_softmax(-1), self.emissions(x), lengths)

    if TYPE_CHECKING:
        __call__ = forward

    @torch.no_grad()
    def sample(self, sequences: int, steps: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Observations ``[sequences, steps, …]`` and the states ``int64 [sequences, steps]`` that emitted them.

        Args:
            sequences: how many.
            steps: T.
            generator: of the random numbers; ``None`` is torch's default one.

        Raises:
            TypeError: emissions that cannot be drawn from.
        """
        if not isinstance(self.emissions, Emission):
            raise TypeError(f"emissions: expected an Emission, which can be drawn from, got {_name(self.emissions)}")
        first, following = self.initial.softmax(-1), self.transition.softmax(-1)
        states = []
        for _ in range(steps):
            states.append(draw(following[states[-1]] if states else first.expand(sequences, -1), generator))
        z = torch.stack(states, -1) if states else torch.zeros(sequences, 0, dtype=torch.int64, device=first.device)
        return self.emissions.sample(z, generator), z

    # The two steps of EM -------------------------------------------------------------------------------------------

    def e_step(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> tuple[Tensor, HMMStatistics]:
        """The summed log evidence of observations ``[*batch, T, …]``, and the expected counts (E step).

        The counts are the gradient of the log evidence by the log-probabilities (Fisher's identity).

        Raises:
            InfeasibleError: observations of probability 0, naming the batch entries.
        """
        return self.expected_statistics(data, lengths)  # which a subclass may have overridden

    def expected_statistics(
        self, data: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, HMMStatistics]:
        """:meth:`e_step`, as it was once called."""
        with torch.no_grad():
            p = self(data, lengths)
        leaves = [scores.detach().requires_grad_() for scores in p.scores]
        with torch.enable_grad():
            evidence = HMM(*leaves, lengths=lengths, validate_args=False).log_evidence
            check_feasible(evidence, "HiddenMarkovModel.e_step", "observations of probability 0")
            initial, transition, states = torch.autograd.grad(evidence.sum(), leaves)
        return evidence.detach().sum(), HMMStatistics(initial, transition, _without_padding(data, lengths), states)

    def m_step(self, statistics: HMMStatistics, pseudocount: float = 0.0) -> Self:
        """Itself, with the parameters that maximise the expected log-joint and the log prior (M step).

        Args:
            statistics: of :meth:`e_step`.
            pseudocount: added to every possible first state, transition and symbol; see the emissions for theirs.

        Raises:
            TypeError: emissions without an M step.
        """
        return self.maximised(statistics, pseudocount)  # which a subclass may have overridden

    @torch.no_grad()
    def maximised(self, statistics: HMMStatistics, pseudocount: float = 0.0) -> Self:
        """:meth:`m_step`, as it was once called."""
        if not isinstance(self.emissions, Emission):
            raise TypeError(
                f"emissions: expected an Emission, which has an M step, got {_name(self.emissions)}; NeuralEmission "
                "gives one to a network, or train by gradient: -model(x).log_evidence.mean()"
            )
        set_logits(self.initial, statistics.initial, pseudocount)
        set_logits(self.transition, statistics.transition, pseudocount)
        self.emissions.maximise(statistics.x, statistics.states, pseudocount)
        return self

    @torch.no_grad()
    def drawn(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        """Itself, with a random start for observations ``[*batch, T, …]``: what is impossible stays so.

        Raises:
            TypeError: emissions without a random start.
        """
        if not isinstance(self.emissions, Emission):
            raise TypeError(f"emissions: expected an Emission, which can be drawn anew, got {_name(self.emissions)}")
        draw_logits(self.initial, generator)
        draw_logits(self.transition, generator)
        self.emissions.draw_parameters(data, generator)
        return self

    @torch.no_grad()
    def clustered(self, data: Tensor, generator: torch.Generator | None = None) -> Self:
        """Itself, with states that are clusters of the frames ``data [R, D]``, and any state after any.

        Raises:
            TypeError: emissions that are not Gaussian.
        """
        if not isinstance(self.emissions, GaussianEmission):
            raise TypeError(
                f"init: expected a GaussianEmission for 'kmeans', got {_name(self.emissions)}; try 'random'"
            )
        self.emissions.cluster(data, generator)
        for logits in (self.initial, self.transition):
            if logits.requires_grad:
                logits.data = torch.zeros_like(logits).masked_fill(torch.isneginf(logits), -torch.inf)
        return self

    def num_parameters(self) -> int:
        """Free parameters: of first states, transitions and emissions; −inf and frozen ones are not."""
        own = free_logits(self.initial) + free_logits(self.transition)
        return own + self.emissions.num_parameters() if isinstance(self.emissions, Emission) else own

    @staticmethod
    def num_observations(data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> float:
        """The number of frames."""
        return float(torch.as_tensor(lengths).sum()) if lengths is not None else float(data.shape[:2].numel())

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""
        own = dirichlet(self.initial, pseudocount) + dirichlet(self.transition, pseudocount)
        return own + self.emissions.log_prior(pseudocount) if isinstance(self.emissions, Emission) else own

    def extra_repr(self) -> str:
        return f"{self.num_states} states" + ("" if isinstance(self.emissions, nn.Module) else f", {self.emissions}")


def _without_padding(x: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """``x`` with 0 over padding: NaN times a weight of 0 is NaN."""
    if lengths is None:
        return x
    lengths = as_integers("lengths", lengths, x.device)
    if x.shape[: lengths.dim()] != lengths.shape or x.dim() <= lengths.dim():
        raise ValueError(f"lengths: expected the batch shape of x {list(x.shape)}, got {list(lengths.shape)}")
    T = x.shape[lengths.dim()]
    check_lengths(lengths, T)
    outside = torch.arange(T, device=x.device) >= lengths.unsqueeze(-1)
    return x.masked_fill(outside.reshape(*outside.shape, *[1] * (x.dim() - outside.dim())), 0)


def _name(emissions: object) -> str:
    return getattr(emissions, "__name__", type(emissions).__name__)
