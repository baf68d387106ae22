"""The chain CRF as the last layer of a tagger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch
from torch import Tensor

from lnz.checks import as_labels, check_feasible, check_integer, check_labels, concrete, plain
from lnz.distributions import LinearChain
from lnz.errors import LatentTagsWarning, warn
from lnz.nn.class_weights import class_weighted_log_prob
from lnz.nn.crf_inputs import as_lists, as_switches, in_place, order_of
from lnz.nn.crf_scores import CRFScores
from lnz.nn.derived import Derived
from lnz.nn.entities import Entity, SpanRules, Spans, as_ends
from lnz.nn.impossible_tags import TagScores, impossible_tags
from lnz.nn.tag_probabilities import tag_probabilities
from lnz.nn.tag_schemes import Scheme
from lnz.nn.viterbi import viterbi
from lnz.ops.precision import accumulator
from lnz.typing import IGNORE

Reduction = Literal["none", "sum", "mean", "token_mean"]


class LinearChainCRF(CRFScores):
    """Emission scores to the exponential softmax over tag sequences, with learnt scores of transitions, start and end.

    Constructor, call, ``decode``, parameter names and initial values are those of the ``CRF`` module that most taggers
    use, so that it can be exchanged and its checkpoints load. What that one refuses or gets wrong is defined here: a
    step that the mask leaves out *anywhere* is skipped (its neighbours become neighbours), a sequence may be empty
    (log-likelihood 0), and −100 among the tags is latent (summed over), or skipped by ``ignore_index=-100``. Shapes
    below are with ``batch_first``; without, the first two axes of emissions, tags, masks and label sets are exchanged.

    Most methods take ``allowed``, bool ``[B, T, L]``: the tags that are possible at each step, as a lexicon or another
    model knows them. All others then have probability 0.

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
        ignore_index: a tag whose steps are skipped, exactly as if the mask left them out: −100, where word pieces and
            special tokens have it. ``None`` skips none: −100 is latent.
        latent_tags: says that −100 is meant to be latent. Without it, and without ``ignore_index``, the first −100 at a
            step of the mask warns (:class:`~lnz.errors.LatentTagsWarning`).
    """

    def __init__(
        self,
        num_tags: int,
        batch_first: bool = False,
        *,
        tags: Sequence[str] | None = None,
        scheme: Scheme | None = None,
        class_weights: Tensor | Sequence[float] | None = None,
        ignore_index: int | None = None,
        latent_tags: bool = False,
    ) -> None:
        super().__init__(num_tags, batch_first, tags=tags, scheme=scheme)
        if ignore_index is not None:
            check_integer("ignore_index", ignore_index, least=None)
        if latent_tags and ignore_index == IGNORE:
            raise ValueError(f"latent_tags: {IGNORE} cannot be latent and skipped (ignore_index={IGNORE}); choose one")
        self.ignore_index = ignore_index
        self._warns = ignore_index is None and not latent_tags and class_weights is None  # of −100; once
        self._class_weights = None if class_weights is None else Derived(_checked_weights(class_weights, num_tags))

    @property
    def class_weights(self) -> Tensor | None:
        """``[L]``, or ``None``."""
        return None if self._class_weights is None else self._class_weights.like(self.transitions)

    def forward(
        self,
        emissions: Tensor,
        tags: Tensor,
        mask: Tensor | None = None,
        reduction: Reduction = "sum",
        *,
        zero_infinity: bool = False,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """The log-likelihood of ``tags`` ``[B, T]``, integers, given ``emissions [B, T, L]``.

        Args:
            emissions: scores of each tag at each step.
            tags: the gold tags; −100 is latent, ``ignore_index`` is skipped. Whatever they are where the mask is 0 is
                ignored.
            mask: ``[B, T]``, bool or 0 and 1: the steps that there are; ``None`` is all. Emissions of others may hold
                anything, NaN too, and have gradient 0.
            reduction: ``"none"`` keeps ``[B]``; ``"sum"``, ``"mean"`` over the batch; ``"token_mean"`` is the sum
                over the number of steps that there are, or over their class weights.
            zero_infinity: gold tags of probability 0 give log-likelihood 0 and gradient 0 instead of an error.
            allowed: bool ``[B, T, L]``, the possible tags of each step; the likelihood is normalised over these.

        Raises:
            InfeasibleError: gold tags of probability 0, as a scheme or ``allowed`` forbids them; names the sentence,
                the step and the tags. (While a function is traced or vectorised, the log-likelihood is −inf.) A step
                of the mask at which no tag is allowed.
            TypeError, ValueError: arguments of the wrong type, shape or value; latent tags under class weights;
                ``"token_mean"`` of no step.
        """
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"reduction: expected 'none', 'sum', 'mean' or 'token_mean', got {reduction!r}")
        self._check_shape(emissions)
        tags = as_labels("tags", tags)
        if tags.shape != emissions.shape[:2]:
            raise ValueError(f"tags: expected shape {list(emissions.shape[:2])}, got {list(tags.shape)}")
        if self.ignore_index is not None:
            seen = tags != self.ignore_index
            mask = seen if mask is None else seen & as_switches("mask", mask, tags.shape)
        emissions, mask, allowed = self._inputs(emissions, mask, allowed)
        tags = tags if self.batch_first else tags.transpose(0, 1)
        tags = tags if mask is None else tags.masked_fill(~mask, 0)
        check_labels("tags", tags, self.num_tags)
        if self._warns and concrete(tags) and ((tags.numpy() if plain(tags) else tags) == IGNORE).any():
            self._warn_of_latent()
        order = order_of(mask)
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
            start, end, edge = (each.detach() for each in self._scores)
            scores = TagScores(emissions.detach(), start, end, edge, allowed)
            entries = impossible.nonzero().flatten().tolist()
            raise impossible_tags(entries, scores, gold, mask, self.tags, self.scheme)
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

    def _warn_of_latent(self) -> None:
        self._warns = False
        warn(
            "tags: -100 at a step of the mask is latent here, summed over as an unknown tag; LinearChainCRF(…, "
            "ignore_index=-100) skips such steps, latent_tags=True says that latent is meant, without this warning",
            LatentTagsWarning,
        )

    def _weighted(self, chain: LinearChain, tags: Tensor) -> Tensor:
        weights = self.class_weights
        assert weights is not None
        if chain._unobserved(tags).any():
            raise ValueError(
                "tags: expected no latent tags (-100) under class_weights, whose factors need them all; "
                "ignore_index=-100 skips them"
            )
        return class_weighted_log_prob(chain, tags, weights)

    def marginals(self, emissions: Tensor, mask: Tensor | None = None, *, allowed: Tensor | None = None) -> Tensor:
        """P(tag at step | emissions), shaped as ``emissions``; 0 where the mask is."""
        emissions, mask, _ = self._inputs(emissions, mask, allowed)
        order = order_of(mask)
        marginals = in_place(self._chain(emissions, mask, order).node_marginals, order)
        return marginals if self.batch_first else marginals.transpose(0, 1)

    @overload
    def decode(
        self, emissions: Tensor, mask: Tensor | None = None, *, allowed: Tensor | None = None
    ) -> list[list[int]]: ...
    @overload
    def decode(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        *,
        return_scores: Literal[True],
        allowed: Tensor | None = None,
    ) -> tuple[list[list[int]], Tensor]: ...
    @overload
    def decode(
        self, emissions: Tensor, mask: Tensor | None = None, *, padding_value: int, allowed: Tensor | None = None
    ) -> Tensor: ...
    @overload
    def decode(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        *,
        return_scores: Literal[True],
        padding_value: int,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...
    def decode(
        self,
        emissions: Tensor,
        mask: Tensor | None = None,
        *,
        return_scores: bool = False,
        padding_value: int | None = None,
        allowed: Tensor | None = None,
    ) -> list[list[int]] | Tensor | tuple[list[list[int]] | Tensor, Tensor]:
        """The best tags of each sequence, one per step that there is; with their scores ``[B]`` if asked for.

        Args:
            emissions: scores of each tag at each step.
            mask: bool ``[B, T]``, the steps that there are; ``None`` is all.
            return_scores: whether to give the scores too.
            padding_value: makes the tags one tensor, ``int64`` shaped as the mask, with this where the mask is 0,
                instead of lists.
            allowed: bool ``[B, T, L]``, the possible tags of each step.

        Raises:
            InfeasibleError: a sequence without a possible tagging.
        """
        if padding_value is not None:
            check_integer("padding_value", padding_value, least=None)
        emissions, mask, _ = self._inputs(emissions, mask, allowed)
        order = order_of(mask)
        chain = self._chain(emissions, mask, order)
        labels, scores = self._best(chain, "decode")
        if padding_value is None:
            best = as_lists(labels, chain.lengths)
        else:
            best = in_place(labels.masked_fill(labels == IGNORE, padding_value), order)
            best = best if self.batch_first else best.transpose(0, 1)
        return (best, scores) if return_scores else best

    def _best(self, chain: LinearChain, what: str) -> tuple[Tensor, Tensor]:
        labels, scores = chain.topk(1)
        check_feasible(scores[0], f"LinearChainCRF.{what}", "no tagging has a finite score")
        return labels[0], scores[0]

    def span_log_prob(
        self,
        emissions: Tensor,
        start: Tensor | Sequence[int],
        end: Tensor | Sequence[int],
        types: str | Sequence[str],
        mask: Tensor | None = None,
        *,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """ln P(steps ``start`` … ``end`` − 1 are exactly one entity of its type | emissions), ``[B]``.

        Exact under the scheme: the entity begins at ``start``, goes on to ``end`` − 1, and does not go on after that.
        Steps inside that the mask leaves out are skipped. −inf where it is impossible. O(T L²) time per sequence;
        the difference of two ln Z in float64.

        Args:
            emissions: scores of each tag at each step.
            start: integers ``[B]``, positions in ``emissions``.
            end: integers ``[B]``, the positions after the last.
            types: of the entities, as the names of the tags have them after the hyphen, one per sequence or one for
                all; ``""`` where they are letters alone.
            mask: bool ``[B, T]``, the steps that there are; ``None`` is all.
            allowed: bool ``[B, T, L]``, the possible tags of each step.

        Raises:
            TypeError, ValueError: a layer without ``tags``; spans or types of the wrong type, shape or value.
            InfeasibleError: a sequence without a possible tagging.
        """
        rules = self._span_rules("span_log_prob")
        numbers = rules.numbers(types, emissions.shape[0 if self.batch_first else 1])
        emissions, mask, _ = self._inputs(emissions, mask, allowed)
        there = torch.ones_like(emissions[..., 0], dtype=torch.bool) if mask is None else mask
        first, last = as_ends(start, end, there)
        spans = Spans(first, last, torch.tensor(numbers, device=emissions.device))
        chain = self._chain(emissions.to(accumulator(emissions)), mask, order_of(mask))
        check_feasible(chain.log_partition, "LinearChainCRF.span_log_prob", "no tagging has a finite score")
        return rules.log_prob(chain, spans).to(emissions.dtype)

    @torch.no_grad()
    def entities(
        self, emissions: Tensor, mask: Tensor | None = None, *, allowed: Tensor | None = None
    ) -> list[list[Entity]]:
        """The entities of the best tagging of each sequence, each with its exact posterior probability.

        An entity is ``(start, end, type, probability)``, its ends positions in ``emissions``; the probability is that
        of :meth:`span_log_prob`, over all taggings. No gradients. O(T L²) time per entity.

        Raises:
            ValueError: a layer without ``tags``.
            InfeasibleError: a sequence without a possible tagging.
        """
        rules = self._span_rules("entities")
        emissions, mask, _ = self._inputs(emissions, mask, allowed)
        order = order_of(mask)
        chain = self._chain(emissions, mask, order)
        best = as_lists(self._best(chain, "entities")[0], chain.lengths)
        found = [(b, *span) for b, row in enumerate(best) for span in rules.found(row)]
        wide = self._chain(emissions.to(accumulator(emissions)), mask, order)
        positions = None if order is None else order.tolist()
        entities: list[list[Entity]] = [[] for _ in best]
        for (b, start, end, kind), probability in zip(found, rules.probabilities(wide, found), strict=True):
            ends = (start, end) if positions is None else (positions[b][start], positions[b][end - 1] + 1)
            entities[b].append(Entity(*ends, kind, probability))
        return entities

    def _span_rules(self, what: str) -> SpanRules:
        if self.tags is None or self.scheme is None:
            raise ValueError(
                f"{what}: needs the names of the tags, LinearChainCRF(…, tags=['O', 'B-PER', 'I-PER', …], scheme=…), "
                "which say what an entity is"
            )
        return SpanRules(self.tags, self.scheme)

    def best_tags(self, emissions: Tensor, mask: Tensor | None = None, *, allowed: Tensor | None = None) -> Tensor:
        """What :meth:`decode` finds, as ``int64`` shaped as the mask; −100 where it is 0.

        By operations that ``torch.export`` and ``torch.onnx.export(dynamo=True)`` can follow, with any batch and any
        number of steps afterwards. As nothing can be raised there, a sequence without a possible tagging is −100
        throughout. Slower than :meth:`decode`.
        """
        tags = viterbi(*self._traceable(emissions, mask, allowed))
        return tags if self.batch_first else tags.transpose(0, 1)

    def tag_probabilities(
        self, emissions: Tensor, mask: Tensor | None = None, *, allowed: Tensor | None = None
    ) -> Tensor:
        """What :meth:`marginals` gives, by operations that can be exported, as those of :meth:`best_tags`.

        No gradients. A sequence without a possible tagging is 0 throughout. Slower than :meth:`marginals`.
        """
        found = tag_probabilities(*self._traceable(emissions, mask, allowed))
        return found if self.batch_first else found.transpose(0, 1)

    def _traceable(
        self, emissions: Tensor, mask: Tensor | None, allowed: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Batch first and without gradients: emissions, scores of transitions, start and end, and the mask."""
        emissions, mask, _ = self._inputs(emissions, mask, allowed)
        mask = torch.ones_like(emissions[..., 0], dtype=torch.bool) if mask is None else mask
        start, end, edge = (scores.detach().to(emissions.dtype) for scores in self._scores)
        return emissions.detach(), edge, start, end, mask

    def topk(
        self, emissions: Tensor, k: int, mask: Tensor | None = None, *, allowed: Tensor | None = None
    ) -> tuple[list[list[list[int]]], Tensor]:
        """Up to k best taggings of each sequence, best first, and scores ``[k, B]``; −inf where there are fewer."""
        chain = self.distribution(emissions, mask, allowed)
        labels, scores = chain.topk(k)
        lists = [as_lists(rank, chain.lengths) for rank in labels]
        possible = (scores > -torch.inf).tolist()
        return [[lists[r][b] for r in range(k) if possible[r][b]] for b in range(scores.shape[1])], scores


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
