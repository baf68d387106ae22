"""Hidden Markov models with inputs: transitions and emissions that a module computes at every step (GLM-HMM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lnz.checks import as_labels, check_integer, check_labels
from lnz.nn.generalised_em import ascend, draw_weights, weighted
from lnz.nn.hmm_emissions import Emission, draw


class InputTransition(nn.Module):
    """Transitions computed from inputs: ``network(u_t)`` are the logits of the state at t given the one before.

    Takes the place of the ``transition`` of a :class:`~lnz.nn.HiddenMarkovModel`. In EM its M step raises the expected
    log-probabilities of transitions by gradient (generalised EM); it has no prior, whatever the pseudocount.

    Args:
        network: inputs ``[*batch, T-1, U]``, of the steps t ≥ 1, to logits ``[*batch, T-1, K, K]``, a row per state
            before, or ``[*batch, T-1, K * K]``: ``nn.Linear(U, K * K)`` is a multinomial regression.
        steps: iterations of L-BFGS in an M step.
    """

    def __init__(self, network: nn.Module, steps: int = 20) -> None:
        super().__init__()
        check_integer("steps", steps)
        self.network, self.steps = network, steps

    def forward(self, inputs: Tensor, num_states: int) -> Tensor:
        """ln P(z_t | z_{t−1}, u_t) ``[*batch, T-1, K, K]`` of inputs ``[*batch, T, U]``."""
        logits = self.network(inputs[..., 1:, :])
        K, shape = num_states, (*inputs.shape[:-2], max(0, inputs.shape[-2] - 1))
        if logits.shape not in ((*shape, K, K), (*shape, K * K)):
            raise ValueError(
                f"transition: expected a network that makes logits of shape {[*shape, K, K]} or {[*shape, K * K]}, got "
                f"{list(logits.shape)}"
            )
        return logits.reshape(*shape, K, K).log_softmax(-1)

    def maximise(self, inputs: Tensor, counts: Tensor) -> None:
        """Raise Σ counts · ln P(z_t | z_{t−1}, u_t), counts ``[*batch, T-1, K, K]`` (M step)."""
        ascend(self.parameters(), lambda: weighted(counts, self(inputs, counts.shape[-1])), self.steps)

    def draw_parameters(self, generator: torch.Generator | None = None) -> None:
        """A random start: matrices of the network from N(0, 1 / fan-in)."""
        draw_weights(self.network, generator)


class InputCategoricalEmission(Emission):
    """One of V symbols, whose probabilities given the state are computed from inputs; observations ``int [*batch, T]``.

    With ``nn.Linear(U, K * V)`` each state has a multinomial regression of its own: the GLM-HMM of choices (Ashwood et
    al. 2022). −100 is missing. The M step is by gradient, without a prior. Other emissions from inputs, of any density:
    :class:`NeuralEmission` with ``takes_inputs=True``.

    Args:
        network: inputs ``[*batch, T, U]`` to logits ``[*batch, T, K, V]`` or ``[*batch, T, K * V]``.
        num_states: K.
        num_symbols: V.
        steps: iterations of L-BFGS in an M step.
    """

    event_axes = 0
    takes_inputs = True

    def __init__(self, network: nn.Module, num_states: int, num_symbols: int, steps: int = 20) -> None:
        super().__init__()
        for name, value in (("num_states", num_states), ("num_symbols", num_symbols), ("steps", steps)):
            check_integer(name, value)
        self.network, self.table, self.steps = network, (num_states, num_symbols), steps

    def log_probs(self, inputs: Tensor) -> Tensor:
        """ln P(x_t = v | z_t = k, u_t) ``[*batch, T, K, V]``."""
        logits, shape = self.network(inputs), inputs.shape[:-1]
        K, V = self.table
        if logits.shape not in ((*shape, K, V), (*shape, K * V)):
            raise ValueError(
                f"network: expected logits of shape {[*shape, K, V]} or {[*shape, K * V]}, got {list(logits.shape)}"
            )
        return logits.reshape(*shape, K, V).log_softmax(-1)

    def forward(self, x: Tensor, inputs: Tensor | None = None) -> Tensor:
        x = as_labels("x", x)
        check_labels("x", x, self.table[1])
        table = self.log_probs(_required(inputs))
        at = x.clamp(min=0)[..., None, None].expand(*table.shape[:-1], 1)
        return torch.where((x < 0).unsqueeze(-1), 0.0, table.gather(-1, at).squeeze(-1))

    def maximise(self, x: Tensor, weights: Tensor, pseudocount: float, inputs: Tensor | None = None) -> None:
        ascend(self.network.parameters(), lambda: weighted(weights, self(x, inputs)), self.steps)

    def log_prior(self, pseudocount: float) -> Tensor:
        return torch.zeros(())

    def sample(self, z: Tensor, generator: torch.Generator | None = None, inputs: Tensor | None = None) -> Tensor:
        table = self.log_probs(_required(inputs))
        at = z[..., None, None].expand(*z.shape, 1, self.table[1])
        return draw(table.gather(-2, at).squeeze(-2).exp(), generator)

    def draw_parameters(self, x: Tensor, generator: torch.Generator | None = None) -> None:
        """Matrices of the network from N(0, 1 / fan-in)."""
        draw_weights(self.network, generator)

    def extra_repr(self) -> str:
        return f"{self.table[0]} states, {self.table[1]} symbols"


def _required(inputs: Tensor | None) -> Tensor:
    if inputs is None:
        raise ValueError("inputs: expected [*batch, T, U], which the emissions are computed from, got None")
    return inputs
