"""What a CRF layer holds and is given: the scores of transitions, checked emissions, and the chain of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lnz.checks import check_integer, check_scores, check_tensor
from lnz.distributions import LinearChain
from lnz.distributions.sequence import without_padding
from lnz.nn.crf_inputs import as_switches, check_sets, order_of
from lnz.nn.derived import Derived
from lnz.nn.tag_schemes import Scheme, forbidding_arrays
from lnz.objectives import soft_nll


class CRFScores(nn.Module):
    """The parameters of :class:`~lnz.nn.LinearChainCRF`, and its distribution; arguments are described there."""

    def __init__(
        self, num_tags: int, batch_first: bool, *, tags: Sequence[str] | None = None, scheme: Scheme | None = None
    ) -> None:
        check_integer("num_tags", num_tags)
        if tags is None and scheme is not None:
            raise ValueError(f"scheme: expected the names of the tags beside it, tags=…, got {scheme!r} alone")
        if tags is not None and len(tags) != num_tags:
            raise ValueError(f"tags: expected {num_tags} names, got {len(tags)}")
        super().__init__()
        self.num_tags = num_tags
        self.batch_first = batch_first
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.tags = None if tags is None else tuple(tags)
        self.scheme: Scheme | None = None if tags is None else scheme or "BIO"
        self.constrained = tags is not None
        masks = _no_masks(num_tags) if tags is None else forbidding_arrays(tags, scheme or "BIO")
        self._start_mask, self._end_mask, self._transition_mask = map(Derived, masks)
        self.reset_parameters()

    @property
    def start_mask(self) -> Tensor:
        """``[L]``, 0 for tags that may come first, −inf for those that ``scheme`` forbids there."""
        return self._start_mask.like(self.transitions)

    @property
    def end_mask(self) -> Tensor:
        """``[L]``, of tags that come last."""
        return self._end_mask.like(self.transitions)

    @property
    def transition_mask(self) -> Tensor:
        """``[L, L]``, of each tag after each."""
        return self._transition_mask.like(self.transitions)

    def reset_parameters(self) -> None:
        """Draw all scores from the uniform distribution on [−0.1, 0.1]."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def distribution(self, emissions: Tensor, mask: Tensor | None = None, allowed: Tensor | None = None) -> LinearChain:
        """The distribution over the tags of the steps that there are, moved to the front where the mask has holes."""
        emissions, mask, _ = self._inputs(emissions, mask, allowed)
        return self._chain(emissions, mask, order_of(mask))

    def expected_log_likelihood(
        self,
        emissions: Tensor,
        target: LinearChain,
        mask: Tensor | None = None,
        reduction: Literal["none", "sum", "mean"] = "sum",
        *,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Σ_y T(y) ln P(y | emissions) under soft targets T: the log-likelihood where a teacher knows the tags.

        Args:
            emissions: scores of each tag at each step.
            target: over the tags of the same steps, as another layer's ``distribution(emissions, mask)`` gives it. It
                is taken as given: no gradients.
            mask: bool, the steps that there are; ``None`` is all.
            reduction: ``"none"`` keeps ``[B]``; ``"sum"``, ``"mean"`` over the batch.
            allowed: bool, shaped as the emissions: the possible tags of each step.

        Raises:
            InfeasibleError: tags that are possible for the target have probability 0 here, as a scheme forbids them.
            TypeError, ValueError: arguments of the wrong type or shape; a target of other steps.
        """
        if not isinstance(target, LinearChain):
            raise TypeError(f"target: expected a LinearChain, got {type(target).__name__}")
        known = target.map_scores(Tensor.detach)
        return -soft_nll(self.distribution(emissions, mask, allowed), known, reduction)

    def _check_shape(self, emissions: Tensor) -> None:
        check_tensor("emissions", emissions)
        if emissions.dim() != 3 or emissions.shape[2] != self.num_tags:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"emissions: expected shape [{axes}, {self.num_tags}], got {list(emissions.shape)}")

    def _inputs(
        self, emissions: Tensor, mask: Tensor | None, allowed: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Batch first, and checked; mask and label sets as bool, emissions −inf where a tag is not allowed."""
        self._check_shape(emissions)
        mask = None if mask is None else as_switches("mask", mask, emissions.shape[:2])
        if allowed is not None:
            allowed = as_switches("allowed", allowed, emissions.shape)
            emissions = emissions.masked_fill(~allowed, -torch.inf)
        inside = None if mask is None else partial(mask.unsqueeze, 2)
        emissions = without_padding("emissions", emissions, inside, values=True, axes=3)
        emissions = emissions.to(torch.promote_types(emissions.dtype, self.transitions.dtype))  # as under autocast
        if not self.batch_first:
            mask, allowed = (None if given is None else given.transpose(0, 1) for given in (mask, allowed))
            emissions = emissions.transpose(0, 1)
        if allowed is not None:
            check_sets(allowed, mask)
        return emissions, mask, allowed

    @property
    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the start, the end and the transitions, −inf where a scheme forbids them."""
        start, end, edge = self.start_transitions, self.end_transitions, self.transitions
        if self.constrained:
            return start + self.start_mask, end + self.end_mask, edge + self.transition_mask
        return start, end, edge

    def _chain(self, emissions: Tensor, mask: Tensor | None, order: Tensor | None) -> LinearChain:
        for name in ("start_transitions", "end_transitions", "transitions"):
            check_scores(name, getattr(self, name))
        start, end, edge = (scores.to(emissions.dtype) for scores in self._scores)
        if order is not None:
            emissions = emissions.gather(1, order.unsqueeze(2).expand_as(emissions))
        lengths = None if mask is None else mask.sum(1)
        chain = LinearChain(emissions, edge, lengths, validate_args=False).with_boundary_scores(start, end)
        chain._validate_args = LinearChain._validate_args  # the scores have been looked at, under their own names
        return chain

    def extra_repr(self) -> str:
        return f"num_tags={self.num_tags}, batch_first={self.batch_first}"


def _no_masks(num_tags: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(num_tags), np.zeros(num_tags), np.zeros((num_tags, num_tags))
