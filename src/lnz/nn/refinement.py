"""Anybody's segmentation, refined by the image: neighbours of one colour rather have one label."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.checks import check_number, check_scores
from lnz.inference import TreeReweighted
from lnz.inference.base import Method
from lnz.nn.grid_mrf import GridMRF


class Refined(NamedTuple):
    """A segmentation.

    Attributes:
        labels: ``int64 [B, H, W]``, of each pixel the label of its largest marginal.
        marginals: ``[B, L, H, W]``.
    """

    labels: Tensor
    marginals: Tensor


@torch.no_grad()
def refine(
    logits: Tensor,
    image: Tensor,
    *,
    strength: float = 1.0,
    floor: float = 0.2,
    neighbours: int = 4,
    inference: Method | None = None,
) -> Refined:
    """Refine a segmentation without training: a contrast-sensitive Potts model (Boykov & Jolly 2001) over its logits.

    What equal labels of two neighbours gain is strength · (floor + (1 − floor) · exp(−‖a − b‖² / (2 σ²))), a and b
    their colours and σ² the mean of ‖a − b‖² over all neighbours of the image: neither its range nor its contrast
    matter. Diagonal neighbours gain 1/√2 of that. To learn these numbers, train :class:`lnz.nn.GridMRF` with
    ``edges="bilateral"``, of which this is one.

    Args:
        logits: ``[B, L, H, W]``, of any network; log-probabilities serve as well.
        image: ``[B, C, H, W]``, of any range.
        strength: what equal labels of equal colours gain; 0 leaves the softmax of the logits.
        floor: the fraction, in [0, 1], of it that they gain whatever the colours.
        neighbours: 4, or 8 for some five times the time.
        inference: a method of :mod:`lnz.inference`; ``None`` is :class:`~lnz.inference.TreeReweighted` with 30
            iterations: beliefs of belief propagation are surer than they should be.

    Raises:
        TypeError, ValueError: arguments of the wrong type, shape or value.
    """
    check_number("strength", strength, "a number of at least 0", lambda number: 0 <= number < math.inf)
    check_number("floor", floor, "a number in [0, 1]", lambda number: 0 <= number <= 1)
    check_scores("logits", logits)
    if logits.dim() != 4 or logits.shape[1] == 0:
        raise ValueError(f"logits: expected shape [B, L, H, W] with L > 0, got {list(logits.shape)}")
    inference = inference or TreeReweighted(max_iterations=30, tolerance=0)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    mrf = GridMRF(None, logits.shape[1], "bilateral", neighbours, inference).to(logits.device, dtype)
    distance = torch.tensor([1.0, 1.0, math.sqrt(2), math.sqrt(2)])[: neighbours // 2]
    equal = torch.eye(logits.shape[1], device=logits.device, dtype=dtype)
    mrf.tables.copy_(strength * equal / distance.to(equal)[:, None, None])
    mrf.floors.fill_(torch.tensor(floor).double().logit().item())
    p = mrf(logits.to(dtype), edge_features=image)
    marginals = p.pixel_marginals.to(logits.dtype)
    return Refined(p.pixel_labels, marginals)
