"""How the hidden states of a Markov model emit what is observed: ln p(x | z) of every state, and the M step of EM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lnz.checks import as_labels, check_integer, check_labels, check_scores
from lnz.nn.generalised_em import ascend, weighted


class Emission(nn.Module, ABC):
    """The emissions of K states. Parameters with ``requires_grad=False`` stay as they are in the M step of EM.

    Attributes:
        event_axes: how many axes one observation has: 0 for a symbol, 1 for a vector.
        takes_inputs: whether ``forward``, ``maximise`` and ``sample`` also take ``inputs=``, ``[*batch, T, U]``.
    """

    event_axes = 1
    takes_inputs = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """ln p(x_t | z_t = k), ``[*batch, T, K]``, of observations ``[*batch, T, …]``."""

    @abstractmethod
    def maximise(self, x: Tensor, weights: Tensor, pseudocount: float) -> None:
        """Set the parameters to those that maximise Σ weights · ln p(x | z) and the log prior (M step).

        Args:
            x: observations ``[*batch, T, …]``.
            weights: P(z_t = k | x) ``[*batch, T, K]``; 0 over padding. A state without any weight is left as it is.
            pseudocount: the strength of the prior.
        """

    @abstractmethod
    def log_prior(self, pseudocount: float) -> Tensor:
        """ln of the prior density of the parameters, up to a constant; 0 where ``pseudocount`` is 0."""

    @abstractmethod
    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One observation of each of the states ``z`` ``[*shape]``: ``[*shape, …]``."""

    def draw_parameters(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Set the parameters to a random start for observations ``[R, …]``.

        Raises:
            TypeError: emissions that have none.
        """
        raise TypeError(f"restarts: {type(self).__name__} has no random start; draw its parameters and run em on each")

    def num_parameters(self) -> int:
        """How many free parameters there are; frozen ones are not."""
        return sum(each.numel() for each in self.parameters() if each.requires_grad)


class CategoricalEmission(Emission):
    """One of V symbols: p(x = v | z = k) is the softmax of ``logits[k]``; observations are integers ``[*batch, T]``.

    −100 in the observations is *missing*, of log-probability 0 whatever the state.

    Args:
        logits: ``[K, V]``; −inf for symbols that a state never emits, which holds in training too.
    """

    event_axes = 0

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        if logits.dim() != 2:
            raise ValueError(f"logits: expected shape [K, V], got {list(logits.shape)}")
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x: Tensor) -> Tensor:
        x = as_labels("x", x)
        check_labels("x", x, self.logits.shape[1])
        table = self.logits.log_softmax(-1).T
        table = torch.cat((table, torch.zeros_like(table[:1])))  # whose last row is that of what is missing
        return table.index_select(0, self._rows(x).flatten()).reshape(*x.shape, -1)

    def _rows(self, x: Tensor) -> Tensor:
        """Symbols, V where they are missing."""
        return x.masked_fill(x < 0, self.logits.shape[1])

    if TYPE_CHECKING:
        __call__ = forward

    def maximise(self, x: Tensor, weights: Tensor, pseudocount: float) -> None:
        x = as_labels("x", x)
        K, V = self.logits.shape
        counts = weights.new_zeros(V + 1, K).index_add_(0, self._rows(x).flatten(), weights.reshape(-1, K))
        set_logits(self.logits, counts[:V].T.to(self.logits), pseudocount)

    def log_prior(self, pseudocount: float) -> Tensor:
        return dirichlet(self.logits, pseudocount)

    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return draw(self.logits.softmax(-1)[z], generator)

    def draw_parameters(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Symbols of each state uniformly from all distributions over those that are possible."""
        draw_logits(self.logits, generator)

    def num_parameters(self) -> int:
        return free_logits(self.logits)

    def extra_repr(self) -> str:
        return f"{self.logits.shape[0]} states, {self.logits.shape[1]} symbols"


class NeuralEmission(Emission):
    """Emissions computed by a network.

    Any callable from observations to ``[*batch, T, K]`` serves as the emissions of a
    :class:`~lnz.nn.HiddenMarkovModel` that is trained by gradient. This class makes EM work too: a *generalised* EM
    (Neal & Hinton 1998), whose M step raises Σ P(z | x) · ln p(x | z) by L-BFGS with a line search from where the
    network is, instead of maximising it in closed form. It never lowers the evidence.

    Args:
        network: observations ``[*batch, T, …]`` to ``[*batch, T, K]``: ln p(x_t | z_t), a density of x_t (else it can
            grow without limit); or, with ``state_prior``, logits of the states.
        state_prior: ln p(z) ``[K]``: the network then classifies, and its emissions are the *scaled likelihoods*
            ln p(z | x) − ln p(z) (Bourlard & Morgan 1994).
        steps: iterations of L-BFGS in an M step.
        takes_inputs: call ``network(x, inputs)``, for emissions that depend on inputs ``[*batch, T, U]``.
    """

    def __init__(
        self,
        network: nn.Module,
        state_prior: Tensor | None = None,
        steps: int = 20,
        *,
        takes_inputs: bool = False,
    ) -> None:
        super().__init__()
        check_integer("steps", steps)
        if state_prior is not None:
            check_scores("state_prior", state_prior)
            if state_prior.dim() != 1:
                raise ValueError(f"state_prior: expected shape [K], got {list(state_prior.shape)}")
        self.network = network
        self.steps = steps
        self.takes_inputs = takes_inputs
        self.state_prior: Tensor | None
        self.register_buffer("state_prior", state_prior)

    def forward(self, x: Tensor, inputs: Tensor | None = None) -> Tensor:
        scores = self.network(x) if inputs is None else self.network(x, inputs)
        if self.state_prior is None:
            return scores
        if scores.shape[-1:] != self.state_prior.shape:
            raise ValueError(
                f"state_prior: expected {scores.shape[-1]} states as the network puts out, got {len(self.state_prior)}"
            )
        return scores.log_softmax(-1) - self.state_prior

    if TYPE_CHECKING:
        __call__ = forward

    def maximise(self, x: Tensor, weights: Tensor, pseudocount: float, inputs: Tensor | None = None) -> None:
        """As :meth:`Emission.maximise`, by L-BFGS; a network has no prior, whatever the pseudocount."""
        ascend(self.network.parameters(), lambda: weighted(weights, self(x, inputs)), self.steps)

    def log_prior(self, pseudocount: float) -> Tensor:
        return torch.zeros(())

    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise TypeError(
            "NeuralEmission has no sample: a network says how likely an observation is, not how to draw one"
        )


Emissions = Emission | Callable[[Tensor], Tensor]
"""What a :class:`~lnz.nn.HiddenMarkovModel` takes: EM needs the first, training by gradient either."""


@torch.no_grad()
def set_logits(logits: nn.Parameter, counts: Tensor, pseudocount: float) -> None:
    """Make rows of ``logits`` those of the most probable categorical distributions, given expected counts.

    Outcomes of probability 0 stay so; rows without any count stay as they are. Nothing, if ``logits`` is frozen.
    """
    if not logits.requires_grad:
        return
    counts = (counts + pseudocount).masked_fill(torch.isneginf(logits), 0.0)
    total = counts.sum(-1, keepdim=True)
    logits.data = torch.where(total > 0, (counts / total).log(), logits)


@torch.no_grad()
def draw_logits(logits: nn.Parameter, generator: torch.Generator | None) -> None:
    """Draw rows uniformly from all distributions over their possible outcomes. Nothing, if ``logits`` is frozen."""
    if logits.requires_grad:
        noise = torch.empty_like(logits).exponential_(generator=generator)
        logits.data = noise.log().masked_fill(torch.isneginf(logits), -torch.inf).log_softmax(-1)


def free_logits(logits: nn.Parameter) -> int:
    """The possible outcomes of all rows, less one per row; 0, if ``logits`` is frozen."""
    possible = (~torch.isneginf(logits.detach())).sum(-1)
    return int((possible - 1).clamp(min=0).sum()) if logits.requires_grad else 0


def dirichlet(logits: Tensor, pseudocount: float) -> Tensor:
    """ln of a Dirichlet density of parameter pseudocount + 1, up to a constant, over the possible outcomes of rows."""
    log_probs = logits.log_softmax(-1)
    return pseudocount * log_probs.masked_fill(torch.isneginf(logits), 0.0).sum()


def draw(probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
    """One outcome of each row: ``[*shape, V]`` to ``int64 [*shape]``."""
    rows = probabilities.detach().reshape(-1, probabilities.shape[-1])
    return torch.multinomial(rows, 1, generator=generator).reshape(probabilities.shape[:-1])
