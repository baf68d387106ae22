"""Contrastive divergence: maximum likelihood with the model's term from a few steps of a Markov chain."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes, check_integer
from lnz.distributions.base import StructuredDistribution
from lnz.inference.sampling.gibbs import Gibbs
from lnz.inference.sampling.resumed import resumed
from lnz.inference.sampling.sampler import Chains, Sampler
from lnz.objectives.labels import as_mrf
from lnz.objectives.reduction import Reduction, check_possible, check_reduction, reduced
from lnz.ops.conditionals.latent import shared_factor
from lnz.scores import Model, observe
from lnz.typing import IGNORE


def contrastive_divergence(
    p: StructuredDistribution,
    y: Tensor,
    steps: int = 1,
    sampler: Sampler | None = None,
    chains: Chains | Tensor | None = None,
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """The surrogate s(ŷ) − s(y), with ŷ from ``steps`` sweeps of a chain that starts at gold: CD-k (Hinton 2002).

    Its gradient is 1[ŷ[α] = ỹ] − 1[y[α] = ỹ]; only that means something, the value does not. Where the data come from P
    itself the chain is stationary, and the expected gradient is 0 for every number of steps.

    With ``chains`` this is persistent CD (Tieleman 2008), stochastic maximum likelihood: the chains start where the
    last call left them, are advanced *in place*, and s is averaged over them.

    Latent labels (−100) are drawn from P(z | y) by the sampler on the clamped model, for its ``warmup`` sweeps from a
    random start; where no two latent nodes share a factor (a restricted Boltzmann machine) one sweep of
    :class:`~lnz.inference.Gibbs` draws them exactly, and is all that is made.

    Args:
        p: :class:`~lnz.MRF`, :class:`~lnz.LinearChain` or :class:`~lnz.Softmax`; its own inference method is not used.
        y: ``int64 [*batch, *event]`` gold labels; −100 where latent. A batch in front of that of ``p`` (data for one
            model) is served by as many chains.
        steps: k, sweeps of the sampler.
        sampler: ``None`` is ``Gibbs()``.
        chains: persistent chains of n labellings ``[n, *batch, N]`` with the batch shape of ``p``: the state that
            ``sampler.init(p.to_mrf().model, n)`` gives, or an ``int64`` tensor of labellings.
        generator: of the random numbers; ``None`` is torch's default one.
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch.

    Raises:
        InfeasibleError: a gold labelling is impossible, naming the batch entries.
        TypeError: a family that is no MRF, a sampler that is none, or one that does not serve the model.
        ValueError: steps below 1, chains of another shape or with labels out of range, an unknown reduction, wrong
            labels.
    """
    check_reduction(reduction)
    sampler = checked_sampler(sampler, steps, Gibbs())
    mrf, gold = as_mrf(p, y)
    gold = mrf.labelling(gold)
    batch = broadcast_shapes(gold.shape[:-1], mrf.batch_shape)
    own = batch[len(batch) - len(mrf.batch_shape) :]  # what lies in front of it are chains of one model
    model = mrf.model if own == mrf.batch_shape else mrf.expand(own).model
    rows = batch[: len(batch) - len(own)].numel()
    gold = gold.expand(*batch, gold.shape[-1]).reshape(rows, *own, gold.shape[-1])
    gold = completed(model, gold, sampler, generator)
    score = model.precise_score(gold)
    check_possible(-score)
    if chains is None:
        start = sampler.init(model, len(gold), generator, gold)
        reached = model.precise_score(sampler.step(model, start, steps, generator).labels)
    else:
        reached = model.precise_score(_advanced(model, sampler, chains, steps, generator)).mean(0)
    return reduced((reached - score).reshape(batch).to(model.dtype), reduction)


def completed(model: Model, gold: Tensor, sampler: Sampler, generator: torch.Generator | None) -> Tensor:
    """``gold`` ``[n, *batch, N]`` with its latent labels drawn from P(z | y), one draw each."""
    latent = gold == IGNORE
    if not latent.any():
        return gold
    if model.observed is not None:
        latent = latent & (model.observed == IGNORE)
    clamped = observe(model, gold)
    sweeping = isinstance(sampler, Gibbs) and sampler.order != "random"
    independent = sweeping and shared_factor(model.graph, latent) is None
    start = sampler.init(clamped, 1, generator)
    return sampler.step(clamped, start, 1 if independent else sampler.warmup, generator).labels[0]


def _advanced(
    model: Model, sampler: Sampler, chains: Chains | Tensor, steps: int, generator: torch.Generator | None
) -> Tensor:
    """The labels of the persistent chains after ``steps`` more sweeps, which they keep."""
    if isinstance(chains, Chains):
        chains.become(sampler.step(model, chains, steps, generator))
        return chains.labels
    if not isinstance(chains, Tensor) or chains.dtype != torch.int64:
        raise TypeError(f"chains: expected lnz.inference.Chains or an int64 tensor, got {type(chains).__name__}")
    start = sampler.init(model, len(chains), generator, resumed("chains", model, chains))
    return chains.copy_(sampler.step(model, start, steps, generator).labels).clone()


def checked_sampler(sampler: Sampler | None, steps: int, default: Sampler) -> Sampler:
    """``sampler``, or ``default`` for ``None``; raises where it is none, or ``steps`` no number of its sweeps."""
    check_integer("steps", steps, 1)
    if sampler is None:
        return default
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler: expected a sampler of lnz.inference (Gibbs(), for one), got {sampler!r}")
    return sampler
