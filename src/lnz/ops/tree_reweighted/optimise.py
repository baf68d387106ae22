"""Appearance probabilities with a lower bound: conditional gradient over the polytope of forests."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.belief.schedule import Outcome, Run, iterate
from lnz.ops.tree_reweighted.appearance import forest, uniform
from lnz.ops.tree_reweighted.reference import information, reweighted, upper_bound
from lnz.scores import Model


@torch.no_grad()
def optimised(model: Model, run: Run, steps: int) -> tuple[Tensor, Outcome]:
    """Appearance probabilities ``[*batch, F]`` and their messages, from the uniform ones by ``steps`` steps.

    The derivative of the bound to ρ_f is minus the mutual information of the nodes of f, so that each step is towards
    the forest of largest information (Wainwright, Jaakkola & Willsky 2005, §5.2). One that does not lower the bound of
    a batch entry is not made there, and the next is half as long: the bound is never above that of the uniform start.
    """
    rho = uniform(model.graph).expand(*model.batch_shape, -1).clone()
    passing = reweighted(model, rho)
    outcome = iterate(passing, run)
    if passing.wiring.is_forest or not rho.numel():
        return rho, outcome
    best = upper_bound(passing, outcome.messages)
    scale = torch.ones(model.batch_shape, dtype=torch.float64)
    for step in range(steps):
        weights = information(reweighted(model, rho), outcome.messages).to("cpu", torch.float64)
        corners = [forest(model.graph, entry) for entry in weights.reshape(-1, rho.shape[-1])]
        length = (scale * 2 / (step + 3)).unsqueeze(-1)
        trial = rho + length * (torch.stack(corners).reshape(rho.shape) - rho)
        passing = reweighted(model, trial)
        moved = iterate(passing, run, outcome.messages)
        value = upper_bound(passing, moved.messages)
        lower = value < best
        best = torch.where(lower, value, best)
        rho = torch.where(lower.cpu().unsqueeze(-1), trial, rho)
        scale = torch.where(lower.cpu(), scale, scale / 2)
        outcome = Outcome(
            torch.where(lower[..., None, None], moved.messages, outcome.messages),
            torch.where(lower, moved.iterations, outcome.iterations),
            torch.where(lower, moved.residual, outcome.residual),
            torch.where(lower, moved.converged, outcome.converged),
        )
    return rho, outcome
