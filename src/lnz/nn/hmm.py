"""Hidden Markov models with parameters: observations in, the posterior over hidden states out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from lnz.checks import as_labels, check_feasible, check_labels
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
from lnz.nn.hmm_inputs import InputTransition
from lnz.nn.sequences import without_padding


@dataclass(frozen=True, eq=False)
class HMMStatistics:
    """Expected counts given the observations: what the M step of EM needs.

    Attributes:
        initial: how often each state comes first, ``[K]``.
        transition: how often each state follows each, ``[K, K]``.
            Of transitions that are computed from inputs, at each step, ``[*batch, T-1, K, K]``.
        x: the observations, ``[*batch, T, …]``.
        states: P(z_t = k | x), ``[*batch, T, K]``; 0 over padding.
        inputs: ``[*batch, T, U]``, where the model takes any.
    """

    initial: Tensor
    transition: Tensor
    x: Tensor
    states: Tensor
    inputs: Tensor | None = None

    def together(self, summed: Callable[..., list[Tensor]], gathered: Callable[[Tensor], Tensor]) -> HMMStatistics:
        """Those of all processes: counts are sums, frames are put below each other."""
        if self.inputs is not None:
            raise TypeError("em: models with inputs learn in one process")
        initial, transition = summed(self.initial, self.transition)
        frames = self.states.dim() - 1
        x, states = self.x.flatten(0, frames - 1), self.states.flatten(0, frames - 1)
        return HMMStatistics(initial, transition, gathered(x), gathered(states))


class HiddenMarkovModel(EstimatesSequences, nn.Module):
    """A Markov chain of K hidden states, each of which emits an observation.

    ``forward`` gives the :class:`~lnz.HMM` of observations. Train it by gradient, minimising
    ``-model(x).log_evidence.mean()``, alone or as part of a network; or by :func:`lnz.objectives.em`, which needs no
    step size. Both use the same expected counts. States that start equal stay equal: start from random parameters.

    Args:
        initial: logits of the first state, ``[K]``; −inf for states that never come first, which holds in training too.
        transition: logits of the next state, a row per state, ``[K, K]``; −inf for transitions that never happen. Or
            a module that computes them from inputs, see :class:`InputTransition`.
        emissions: :class:`CategoricalEmission`, :class:`GaussianEmission`, :class:`InputCategoricalEmission`,
            :class:`NeuralEmission`, or any callable from observations ``[*batch, T, …]`` to ln p(x_t | z_t)
            ``[*batch, T, K]``.

    Attributes:
        initial: ``[K]``.
        transition: ``[K, K]``, or the module.
        emissions: as given.
    """

    def __init__(self, initial: Tensor, transition: Tensor | nn.Module, emissions: Emissions) -> None:
        super().__init__()
        if initial.dim() != 1:
            raise ValueError(f"initial: expected shape [K], got {list(initial.shape)}")
        if not isinstance(transition, Tensor | nn.Module):
            raise TypeError(f"transition: expected a tensor or a module, got {type(transition).__name__}")
        if isinstance(transition, Tensor) and transition.shape != (len(initial), len(initial)):
            raise ValueError(
                f"transition: expected shape [{len(initial)}, {len(initial)}], got {list(transition.shape)}"
            )
        self.initial = nn.Parameter(initial.clone())
        if isinstance(transition, Tensor):
            self.transition = nn.Parameter(transition.clone())
        else:
            self.transition = transition if isinstance(transition, InputTransition) else InputTransition(transition)
        self.emissions = emissions

    @property
    def num_states(self) -> int:
        """K."""
        return len(self.initial)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        inputs: Tensor | None = None,
        states: Tensor | None = None,
    ) -> HMM:
        """The posterior over the hidden states of observations ``[*batch, T, …]``.

        Args:
            x: what the emissions take. What lies beyond ``lengths`` may hold anything.
            lengths: integers ``[*batch]`` in 0 … T; ``None`` is T everywhere.
            inputs: ``[*batch, T, U]``, what transitions or emissions are computed from.
            states: ``[*batch, T]``, those that are known, −100 elsewhere: the posterior given them too, and
                ``log_evidence`` is ln p(x, those states).
        """
        x, inputs = without_padding(x, lengths), self._checked_inputs(inputs, lengths)
        emissions: Any = self.emissions
        emission = emissions(x, inputs=inputs) if self._emissions_take_inputs else emissions(x)
        p = HMM(self.initial.log_softmax(-1), self._log_transition(inputs), emission, lengths)
        if states is None:
            return p
        states = without_padding(as_labels("states", states), lengths)
        check_labels("states", states, self.num_states)
        return p.condition(states)

    @property
    def _emissions_take_inputs(self) -> bool:
        return getattr(self.emissions, "takes_inputs", False)

    def _checked_inputs(self, inputs: Tensor | None, lengths: Tensor | Sequence[int] | None = None) -> Tensor | None:
        wanted = self._emissions_take_inputs or isinstance(self.transition, InputTransition)
        if wanted and inputs is None:
            raise ValueError(
                "inputs: expected [*batch, T, U], which the model takes, got None; fit(…, inputs=) has them"
            )
        if inputs is not None and not wanted:
            raise ValueError("inputs: expected None, as neither transitions nor emissions take any")
        if inputs is None:
            return None
        return without_padding(inputs.to(self.initial.dtype) if inputs.is_floating_point() else inputs, lengths)

    def _log_transition(self, inputs: Tensor | None) -> Tensor:
        if isinstance(self.transition, InputTransition):
            assert inputs is not None
            return self.transition(inputs, self.num_states)
        return self.transition.log_softmax(-1)

    if TYPE_CHECKING:
        __call__ = forward

    @torch.no_grad()
    def sample(
        self, sequences: int, steps: int, generator: torch.Generator | None = None, *, inputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Observations ``[sequences, steps, …]`` and the states ``int64 [sequences, steps]`` that emitted them.

        Args:
            sequences: how many.
            steps: T.
            generator: of the random numbers; ``None`` is torch's default one.
            inputs: ``[sequences, steps, U]``, where the model takes any.

        Raises:
            TypeError: emissions that cannot be drawn from.
        """
        if not isinstance(self.emissions, Emission):
            raise TypeError(f"emissions: expected an Emission, which can be drawn from, got {_name(self.emissions)}")
        inputs = self._checked_inputs(inputs)
        if inputs is not None and inputs.shape[:-1] != (sequences, steps):
            raise ValueError(f"inputs: expected shape [{sequences}, {steps}, U], got {list(inputs.shape)}")
        K, first = self.num_states, self.initial.softmax(-1)
        following = self._log_transition(inputs).exp().expand(sequences, max(0, steps - 1), K, K)
        states, each = [], torch.arange(sequences, device=first.device)
        for step in range(steps):
            row = following[each, step - 1, states[-1]] if states else first.expand(sequences, -1)
            states.append(draw(row, generator))
        z = torch.stack(states, -1) if states else torch.zeros(sequences, 0, dtype=torch.int64, device=first.device)
        extra = {"inputs": inputs} if self._emissions_take_inputs else {}
        return self.emissions.sample(z, generator, **extra), z

    # The two steps of EM -------------------------------------------------------------------------------------------

    def e_step(
        self, data: Tensor, lengths: Tensor | Sequence[int] | None = None, **beside: Tensor
    ) -> tuple[Tensor, HMMStatistics]:
        """The summed log evidence of observations ``[*batch, T, …]``, and the expected counts (E step).

        The counts are the gradient of the log evidence by the log-probabilities (Fisher's identity). ``inputs=`` and
        ``states=`` as :meth:`forward` takes them.

        Raises:
            InfeasibleError: observations of probability 0, naming the batch entries.
        """
        return self.expected_statistics(data, lengths, **beside)  # which a subclass may have overridden

    def expected_statistics(
        self, data: Tensor, lengths: Tensor | Sequence[int] | None = None, **beside: Tensor
    ) -> tuple[Tensor, HMMStatistics]:
        """:meth:`e_step`, as it was once called."""
        with torch.no_grad():
            p = self(data, lengths, **beside)
            evidence = p.log_evidence
            check_feasible(evidence, "HiddenMarkovModel.e_step", "observations of probability 0")
            inputs, x = self._checked_inputs(beside.get("inputs"), lengths), without_padding(data, lengths)
            initial, transition, states = p.expected_counts()
        return evidence.sum(), HMMStatistics(initial, transition, x, states, inputs)

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
        if isinstance(self.transition, InputTransition):
            assert statistics.inputs is not None
            self.transition.maximise(statistics.inputs, statistics.transition)
        else:
            set_logits(self.transition, statistics.transition, pseudocount)
        extra = {"inputs": statistics.inputs} if self._emissions_take_inputs else {}
        self.emissions.maximise(statistics.x, statistics.states, pseudocount, **extra)
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
        if isinstance(self.transition, InputTransition):
            self.transition.draw_parameters(generator)
        else:
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
            if isinstance(logits, nn.Parameter) and logits.requires_grad:
                logits.data = torch.zeros_like(logits).masked_fill(torch.isneginf(logits), -torch.inf)
        return self

    def num_parameters(self) -> int:
        """Free parameters: of first states, transitions and emissions; −inf and frozen ones are not.

        Of networks all, though softmaxes make some of them redundant.
        """
        own = free_logits(self.initial)
        if isinstance(self.transition, InputTransition):
            own += sum(each.numel() for each in self.transition.parameters() if each.requires_grad)
        else:
            own += free_logits(self.transition)
        return own + self.emissions.num_parameters() if isinstance(self.emissions, Emission) else own

    def num_observations(self, data: Tensor, lengths: Tensor | Sequence[int] | None = None) -> float:
        """The number of frames."""
        if lengths is not None:
            return float(torch.as_tensor(lengths).sum())
        return float(data.shape[: data.dim() - getattr(self.emissions, "event_axes", 1)].numel())

    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""
        own = dirichlet(self.initial, pseudocount)
        if isinstance(self.transition, nn.Parameter):
            own = own + dirichlet(self.transition, pseudocount)
        return own + self.emissions.log_prior(pseudocount) if isinstance(self.emissions, Emission) else own

    def extra_repr(self) -> str:
        return f"{self.num_states} states" + ("" if isinstance(self.emissions, nn.Module) else f", {self.emissions}")


def _name(emissions: object) -> str:
    return getattr(emissions, "__name__", type(emissions).__name__)
