"""Negative log-likelihood: ln Z − s(gold), or ln Z − ln Z(observed) where part of the gold is latent."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from lnz.checks import broadcast_shapes, check_generator, check_tensor
from lnz.distributions.base import StructuredDistribution
from lnz.distributions.ctc import CTC
from lnz.distributions.mrf import MRF
from lnz.distributions.transducer import Transducer
from lnz.inference.sampling.sampler import Sampler
from lnz.inference.sampling.sampler_solution import SamplerSolution
from lnz.objectives.reduction import Reduction, check_possible, check_reduction, reduced
from lnz.typing import IGNORE


def nll(
    p: Distribution,
    y: Tensor,
    reduction: Reduction | Literal["per_node"] = "mean",
    zero_infinity: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """−ln P(y), the exponential softmax's cross-entropy; its gradient is model marginals − gold indicators.

    With latent labels (−100) it is ln Z − ln Z(y): two runs of the inference method, free and clamped, and the gradient
    is the free marginals − the clamped ones. Any set of nodes may be latent, another one in each batch entry.

    Under an approximate method this is the method's own ln Z minus the exact score (under belief propagation the
    Bethe ln Z, whose gradient is exactly the beliefs), so it may be negative.

    Under a sampler, which has no ln Z, it is the surrogate s(ŷ) − s(gold), with s averaged over the ŷ that the
    sampler's ``chains`` reach after its ``warmup`` from new random starts. *Only its gradient means something*: the
    sampled marginals − gold indicators, unbiased as far as the chains have mixed; the value does not. Latent labels are
    drawn by as many chains of the clamped model. For chains that go on from call to call see
    :func:`contrastive_divergence` with ``chains``.

    The loss has the dtype of the scores, and is rounded to it last: beyond the range of that (65504 in float16) it is
    +inf, of a gold labelling that is possible all the same.

    Args:
        p: any structured distribution; :class:`~lnz.CTC` and :class:`~lnz.Transducer` too.
        y: ``int64 [*batch, *event]`` gold labels; −100 entries are latent and summed over.
        reduction: ``"none"`` keeps ``[*batch]``; ``"mean"`` and ``"sum"`` are over the batch; ``"per_node"`` divides
            their sum by the number of gold labels, those of −100 and padding apart, as torch's cross-entropy does; of
            dependency trees by the number of words, of constituency trees by that of spans.
        zero_infinity: a gold labelling of probability 0 gives loss 0 and gradient 0 instead of an error. (Under a
            sampler only where it is complete.)
        generator: of the random numbers under a sampler; ``None`` is torch's default one.

    Raises:
        InfeasibleError: a gold labelling has probability 0, naming the batch entries.
        TypeError: p is no distribution, or y no tensor.
        ValueError: an unknown reduction, or what ``p.log_prob`` raises.
    """
    check_reduction(reduction, "per_node")
    if not isinstance(p, Distribution):
        raise TypeError(f"p: expected a distribution of lnz, got {type(p).__name__}")
    check_tensor("y", y)
    check_generator(generator)
    nodes = max(1, _gold_labels(p, y)) if reduction == "per_node" else None
    reduction = "sum" if reduction == "per_node" else reduction
    if isinstance(p, MRF) and isinstance(p.inference, Sampler):
        losses, dtype = _sampled(p, y, p.inference.chains, generator), p._dtype
    elif isinstance(p, StructuredDistribution):
        # an answer of half precision is rounded once, after it is known to be finite
        total = _terms(p._wide, y, reduction, zero_infinity)
        return (total if nodes is None else total / nodes).to(p._dtype)
    elif isinstance(p, CTC | Transducer):
        losses, dtype = -p._wide_log_prob(y), p.logits.dtype
    else:
        losses = -p.log_prob(y)
        dtype = losses.dtype
    total = reduced(_possible(losses, zero_infinity), reduction)
    return (total if nodes is None else total / nodes).to(dtype)


def _gold_labels(p: Distribution, y: Tensor) -> int:
    """How many nodes have a gold label, over the batch."""
    check_tensor("y", y)
    if isinstance(p, StructuredDistribution):
        counts = p._gold_count(y)
    else:
        event = 1 if isinstance(p, CTC | Transducer) else len(p.event_shape)
        counts = (y != IGNORE).sum([*range(y.dim() - event, y.dim())]) if event else (y != IGNORE)
    return int(counts.expand(broadcast_shapes(counts.shape, p.batch_shape)).sum())


def _terms(p: StructuredDistribution, y: Tensor, reduction: Reduction, zero_infinity: bool) -> Tensor:
    """By terms that only need to be added, −ln P(y) or −ln P(y) / B: a family can make their gradients with them."""
    size = max(1, p.batch_shape.numel())
    terms = _possible(p._scaled_log_prob(y, -1 / size if reduction == "mean" else -1.0), zero_infinity)
    if reduction == "mean" and terms.numel() != size:  # several labellings per model, or none
        return terms.mean() * size
    return terms if reduction == "none" else terms.sum()


def _possible(losses: Tensor, zero_infinity: bool) -> Tensor:
    """The losses without those of impossible labellings; raises if these are not to be left out."""
    if zero_infinity:
        return torch.where(torch.isposinf(losses), 0.0, losses)
    check_possible(losses, "; zero_infinity=True leaves them out")
    return losses


def _sampled(p: MRF, y: Tensor, chains: int, generator: torch.Generator | None) -> Tensor:
    """s(ŷ) − s(y), averaged over chains."""
    y = p.labelling(y)
    latent = p._unobserved(y).any()
    score = p.model.precise_score
    gold = _drawn(p.condition(y), chains, generator) if latent else y[None]
    return score(_drawn(p, chains, generator)).mean(0) - score(gold).mean(0)


def _drawn(p: MRF, chains: int, generator: torch.Generator | None) -> Tensor:
    assert isinstance(p.solution, SamplerSolution)
    return p.solution.draw(chains, generator)  # a step of training is no place to judge how chains mix
