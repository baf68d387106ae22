"""The chain CRF as the last layer of a tagger."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from lnz.checks import as_labels, check_feasible, check_integer, check_labels, check_scores, check_tensor, concrete
from lnz.distributions import LinearChain
from lnz.distributions.sequence import without_padding
from lnz.errors import InfeasibleError
from lnz.nn.class_weights import class_weighted_log_prob
from lnz.nn.derived import Derived
from lnz.nn.impossible_tags import TagScores, impossible_tags
from lnz.nn.tag_schemes import Scheme, forbidding_arrays
from lnz.nn.viterbi import viterbi

Reduction = Literal["none", "sum", "mean", "token_mean"]


class LinearChainCRF(nn.Module):
    """Emission scores to the exponential softmax over tag sequences, with learnt scores of transitions, start and end.

    Constructor, call, ``decode``, parameter names and initial values are those of the ``CRF`` module that most taggers
    use, so that it can be exchanged and its checkpoints load. What that one refuses or gets wrong is defined here: a
    step that the mask leaves out *anywhere* is skipped (its neighbours become neighbours), a sequence may be empty
    (log-likelihood 0), and −100 among the tags is latent (summed over). Shapes below are with ``batch_first``;
    without, the first two axes of emissions, tags and masks are exchanged.

    Args:
        num_tags: the number of tags L.
        batch_first: whether tensors start ``[B, T]`` instead of ``[T, B]``.
        tags: names of the tags, to forbid what ``scheme`` forbids; see :func:`transition_mask`.
        scheme: ``"BIO"``, which ``None`` is too, or another of :func:`transition_mask`; only with ``tags``.
        class_weights: w ``[L]``, not negative, for tags of which there are few: the log-likelihood becomes
            Σ_t w[y_t] ln P(y_t | y_{t−1}, emissions), the chain rule with a weight per factor. Weights of 1 change
            nothing; without transitions it is the weighted cross-entropy. It takes a loop over the steps.
            (de Lannoy et al. 2012 weight the terms of the likelihood so, but normalise each by what has come so far:
            then their weighted sum has no upper bound. Here each is normalised over the whole sequence.)
    """

    def __init__(
        self,
        num_tags: int,
        batch_first: bool = False,
        *,
        tags: Sequence[str] | None = None,
        scheme: Scheme | None = None,
        class_weights: Tensor | Sequence[float] | None = None,
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
        self._class_weights = None if class_weights is None else Derived(_checked_weights(class_weights, num_tags))
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

    @property
    def class_weights(self) -> Tensor | None:
        """``[L]``, or ``None``."""
        return None if self._class_weights is None else self._class_weights.like(self.transitions)

    def reset_parameters(self) -> None:
        """Draw all scores from the uniform distribution on [−0.1, 0.1]."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(
        self,
        emissions: Tensor,
        tags: Tensor,
        mask: Tensor | None = None,
        reduction: Reduction = "sum",
        *,
        zero_infinity: bool = False,
    ) -> Tensor:
        """The log-likelihood of ``tags`` ``[B, T]``, integers, given ``emissions [B, T, L]``.

        Args:
            emissions: scores of each tag at each step.
            tags: the gold tags; −100 is latent. Whatever they are where the mask is 0 is ignored.
            mask: ``[B, T]``, bool or 0 and 1: the steps that there are; ``None`` is all. Emissions of others may hold
                anything, NaN too, and have gradient 0.
            reduction: ``"none"`` keeps ``[B]``; ``"sum"``, ``"mean"`` over the batch; ``"token_mean"`` is the sum
                over the number of steps that there are, or over their class weights.
            zero_infinity: gold tags of probability 0 give log-likelihood 0 and gradient 0 instead of an error.

        Raises:
            InfeasibleError: gold tags of probability 0, as a scheme forbids them; names the sentence, the step and the
                tags. (While a function is traced or vectorised, the log-likelihood is −inf.)
            TypeError, ValueError: arguments of the wrong type, shape or value; latent tags under class weights;
                ``"token_mean"`` of no step.
        """
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"reduction: expected 'none', 'sum', 'mean' or 'token_mean', got {reduction!r}")
        shape = emissions.shape[:2]
        emissions, mask = self._inputs(emissions, mask)
        tags = as_labels("tags", tags)
        if tags.shape != shape:
            raise ValueError(f"tags: expected shape {list(shape)}, got {list(tags.shape)}")
        tags = tags if self.batch_first else tags.transpose(0, 1)
        tags = tags if mask is None else tags.masked_fill(~mask, 0)
        check_labels("tags", tags, self.num_tags)
        order = _order(mask)
        chain = self._chain(emissions, mask, order)
        dtype, chain = chain._dtype, chain._wide  # rounded once, after it is known to be possible
        gold, tags = tags, tags if order is None else tags.gather(1, order)
        size = self._size(reduction, chain, tags)
        if self.class_weights is not None:
            terms = self._weighted(chain, tags) / size
        elif isinstance(size, Tensor):  # not known yet: a function is being traced
            terms = chain.log_prob(tags) / size
        else:  # of terms of the loss, gradients are made with them
            terms = -chain._scaled_log_prob(tags, -1 / size)
        impossible = torch.isneginf(terms)
        if zero_infinity:
            terms = terms.masked_fill(impossible, 0.0)
        elif concrete(terms) and impossible.any():
            raise self._impossible(impossible.nonzero().flatten().tolist(), emissions, gold, mask)
        if reduction == "none":
            return terms.to(dtype)
        return (terms.mean() if reduction == "mean" and not len(terms) else terms.sum()).to(dtype)

    if TYPE_CHECKING:
        __call__ = forward

    def _size(self, reduction: Reduction, chain: LinearChain, tags: Tensor) -> Tensor | float:
        """What the sum over the batch is divided by; a tensor where its value is not known."""
        if reduction != "token_mean":
            return max(1, len(tags)) if reduction == "mean" else 1
        weights = self.class_weights
        if weights is None:
            number = torch.tensor(tags.numel()) if chain.lengths is None else chain.lengths.sum()
        else:
            number = torch.where(chain.inside, weights[tags.clamp(min=0)], 0.0).sum()
        if not concrete(number, tags):
            return number
        if not number > 0:
            raise ValueError("mask: expected a step to average over, for reduction='token_mean', got none")
        return number.item()

    def _impossible(self, entries: list[int], emissions: Tensor, tags: Tensor, mask: Tensor | None) -> InfeasibleError:
        scores = TagScores(emissions.detach(), *(each.detach() for each in self._scores))
        return impossible_tags(entries, scores, tags, mask, self.tags, self.scheme)

    def _weighted(self, chain: LinearChain, tags: Tensor) -> Tensor:
        weights = self.class_weights
        assert weights is not None
        if chain._unobserved(tags).any():
            raise ValueError("tags: expected no latent tags (-100) under class_weights, whose factors need them all")
        return class_weighted_log_prob(chain, tags, weights)

    def distribution(self, emissions: Tensor, mask: Tensor | None = None) -> LinearChain:
        """The distribution over the tags of the steps that there are, moved to the front where the mask has holes."""
        emissions, mask = self._inputs(emissions, mask)
        return self._chain(emissions, mask, _order(mask))

    def marginals(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """P(tag at step | emissions), shaped as ``emissions``; 0 where the mask is."""
        emissions, mask = self._inputs(emissions, mask)
        order = _order(mask)
        marginals = self._chain(emissions, mask, order).node_marginals
        if order is not None:
            marginals = torch.zeros_like(marginals).scatter(1, order.unsqueeze(2).expand_as(marginals), marginals)
        return marginals if self.batch_first else marginals.transpose(0, 1)

    @overload
    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]: ...
    @overload
    def decode(
        self, emissions: Tensor, mask: Tensor | None = None, *, return_scores: Literal[True]
    ) -> tuple[list[list[int]], Tensor]: ...
    def decode(
        self, emissions: Tensor, mask: Tensor | None = None, *, return_scores: bool = False
    ) -> list[list[int]] | tuple[list[list[int]], Tensor]:
        """The best tags of each sequence, one per step that there is; with their scores ``[B]`` if asked for.

        Raises:
            InfeasibleError: a sequence without a possible tagging.
        """
        chain = self.distribution(emissions, mask)
        labels, scores = chain.topk(1)
        check_feasible(scores[0], "LinearChainCRF.decode", "no tagging has a finite score")
        best = _lists(labels[0], chain.lengths)
        return (best, scores[0]) if return_scores else best

    def best_tags(self, emissions: Tensor, mask: Tensor | None = None) -> Tensor:
        """What :meth:`decode` finds, as ``int64`` shaped as the mask; −100 where it is 0.

        By operations that ``torch.export`` and ``torch.onnx.export(dynamo=True)`` can follow, with any batch and any
        number of steps afterwards. As nothing can be raised there, a sequence without a possible tagging is −100
        throughout. Slower than :meth:`decode`.
        """
        emissions, mask = self._inputs(emissions, mask)
        mask = torch.ones_like(emissions[..., 0], dtype=torch.bool) if mask is None else mask
        start, end, edge = (scores.detach().to(emissions.dtype) for scores in self._scores)
        tags = viterbi(emissions.detach(), edge, start, end, mask)
        return tags if self.batch_first else tags.transpose(0, 1)

    def topk(self, emissions: Tensor, k: int, mask: Tensor | None = None) -> tuple[list[list[list[int]]], Tensor]:
        """Up to k best taggings of each sequence, best first, and scores ``[k, B]``; −inf where there are fewer."""
        chain = self.distribution(emissions, mask)
        labels, scores = chain.topk(k)
        lists = [_lists(rank, chain.lengths) for rank in labels]
        possible = (scores > -torch.inf).tolist()
        return [[lists[r][b] for r in range(k) if possible[r][b]] for b in range(scores.shape[1])], scores

    def _inputs(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Batch first, and checked; the mask as bool."""
        check_tensor("emissions", emissions)
        if emissions.dim() != 3 or emissions.shape[2] != self.num_tags:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"emissions: expected shape [{axes}, {self.num_tags}], got {list(emissions.shape)}")
        if mask is not None:
            check_tensor("mask", mask)
            if mask.shape != emissions.shape[:2]:
                raise ValueError(f"mask: expected shape {list(emissions.shape[:2])}, got {list(mask.shape)}")
            mask = _switches(mask)
        inside = None if mask is None else partial(mask.unsqueeze, 2)
        emissions = without_padding("emissions", emissions, inside, values=True, axes=3)
        emissions = emissions.to(torch.promote_types(emissions.dtype, self.transitions.dtype))  # as under autocast
        if self.batch_first:
            return emissions, mask
        return emissions.transpose(0, 1), None if mask is None else mask.transpose(0, 1)

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


def _checked_weights(given: Tensor | Sequence[float], num_tags: int) -> np.ndarray:
    try:  # a list stays one on a meta device, where a tensor would lose its values
        values = given.tolist() if isinstance(given, Tensor) else given
        weights = np.array(values, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"class_weights: expected {num_tags} numbers, got {given!r}") from error
    if weights.shape != (num_tags,):
        raise ValueError(f"class_weights: expected shape [{num_tags}], got {list(weights.shape)}")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"class_weights: expected finite weights of at least 0, got {weights.tolist()}")
    return weights


def _switches(mask: Tensor) -> Tensor:
    """The mask as bool; raises where it holds anything but 0 and 1."""
    if mask.dtype == torch.bool:
        return mask
    on = mask == 1
    if concrete(mask) and not (on | (mask == 0)).all():
        where = (~(on | (mask == 0))).nonzero()[0].tolist()
        raise ValueError(f"mask: expected bool, or 0 and 1, got {mask[tuple(where)].item()} at {where}")
    return on


def _order(mask: Tensor | None) -> Tensor | None:
    """The steps that there are, then the others, ``[B, T]``; None where they are known to be in this order already."""
    if mask is None or (concrete(mask) and not (mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    return mask.int().argsort(dim=1, descending=True, stable=True)


def _lists(labels: Tensor, lengths: Tensor | None) -> list[list[int]]:
    rows = labels.tolist()
    return rows if lengths is None else [row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)]
