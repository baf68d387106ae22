"""Belief propagation on 4-neighbour grids as a functional of messages, as kernels give it.

What is computed is defined by :mod:`lnz.ops.belief.reference`, through which second derivatives go.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lnz.ops.belief.op import Bethe, warn_unless_at_rest
from lnz.ops.belief.schedule import Run
from lnz.ops.envelope import State
from lnz.ops.grid_belief.prepared import prepared_for
from lnz.ops.grid_belief.solve import KERNELS, converge, pull_back, slots_of
from lnz.ops.grid_scores import covers
from lnz.scores import Model


def serves(model: Model, run: Run) -> bool:
    """Whether the kernels cover a model and a schedule."""
    return run.schedule == "flooding" and covers(model) and KERNELS.find("Images", *model.tensors) is not None


@dataclass(frozen=True)
class GridBethe(Bethe):
    """The state is messages ``[4, B, H, L, W]`` as the kernels hold them, then as of :class:`Bethe`, then ln Z
    ``[*batch]`` in float64 and node beliefs ``[*batch, N, L]``, which one pass over the messages gives.
    """

    def state(self, model: Model) -> State:
        found, converged = converge(model, prepared_for(model), self.run, self.maximise)
        batch = model.batch_shape
        ended = found.iterations.reshape(batch), found.residual.reshape(batch), converged.reshape(batch)
        warn_unless_at_rest(model, self.run, *ended, maximise=self.maximise)
        beliefs = found.beliefs.reshape(*batch, *found.beliefs.shape[1:])
        return found.messages, *ended, found.log_z.reshape(batch), beliefs

    def value(self, model: Model, state: State) -> Tensor:
        return state[4].clone()

    def pulled(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        grad = grad.masked_fill(torch.isneginf(state[4]), 0.0)
        if KERNELS.find("Images", *model.tensors) is None:  # no longer
            return super().gradient(model, self.ended(model, state), grad)
        return pull_back(model, prepared_for(model), state[0], grad)

    def answer(self, model: Model, state: State, which: int | None) -> Tensor:
        if which is None or which == 0:
            return state[5].clone()
        return super().plain(model, self.ended(model, state), which)

    def ended(self, model: Model, state: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        messages = slots_of(model, prepared_for(model), state[0], self.maximise)
        return messages, *state[1:4]  # type: ignore[return-value]
