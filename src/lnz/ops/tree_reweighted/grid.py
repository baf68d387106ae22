"""Tree-reweighted inference on grids that kernels serve: the bound, pseudo-marginals and gradient as kernels give them.

What is computed is defined by :mod:`.reference`, through which second derivatives go.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.envelope import State
from lnz.ops.grid_belief.prepared import Prepared
from lnz.ops.grid_belief.solve import KERNELS, converge, pairs, pull_back, slots_of
from lnz.ops.tree_reweighted import kernel
from lnz.ops.tree_reweighted.op import TreeReweighting
from lnz.scores import Model


class GridTreeReweighting(TreeReweighting):
    """The state is messages ``[4, B, H, L, W]`` as the kernels hold them, then as of :class:`TreeReweighting`, then the
    bound ``[*batch]`` in float64 and node beliefs ``[*batch, N, L]``, which one pass over the messages gives.

    For uniform and given appearance probabilities; those that are optimised come with messages of the general path.
    """

    def state(self, model: Model) -> State:
        rho = self.probabilities(model.graph)
        found, converged = converge(model, kernel.reweighted(model, rho), self.run)
        batch, nodes = model.batch_shape, found.beliefs.shape[1:]
        ended = (x.reshape(batch) for x in (found.iterations, found.residual, converged, found.log_z))
        return found.messages, rho.to(found.messages), *ended, found.beliefs.reshape(*batch, *nodes)

    def value(self, model: Model, state: State) -> Tensor:
        return state[5].clone()

    def pulled(self, model: Model, state: State, grad: Tensor) -> list[Tensor]:
        if KERNELS.find("Images", *model.tensors) is None:  # no longer
            return super().gradient(model, (self.messages(model, state), *state[1:]), grad)
        return pull_back(model, self._prepared(model, state), state[0], grad)

    def answer(self, model: Model, state: State, which: int | None) -> Tensor:
        if which is None or which == 0:
            return state[6].clone()
        if KERNELS.find("Images", *model.tensors) is None:
            return super().plain(model, (self.messages(model, state), *state[1:]), which)
        return pairs(model, self._prepared(model, state), state[0], which)

    def messages(self, model: Model, state: State) -> Tensor:
        """As :mod:`lnz.ops.belief` lays them out, ``[*batch, M, L]``."""
        return slots_of(model, self._prepared(model, state), state[0])

    @staticmethod
    @torch.no_grad()
    def _prepared(model: Model, state: State) -> Prepared:
        return kernel.reweighted(model, state[1])
