"""Linear chains: the exponential softmax over label sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.checks import (
    as_labels,
    broadcast_shapes,
    check_full,
    check_integer,
    check_tensor,
    concrete,
    plain,
)
from lnz.distributions.chain_scores import ChainScores
from lnz.distributions.sequence import centred, expected_scores, gathered
from lnz.ops import chain
from lnz.ops.chain import reference
from lnz.ops.chain.expectation import serves
from lnz.ops.precision import accumulator
from lnz.typing import LazyTuple


class LinearChain(ChainScores):
    """``P(y) ∝ exp(Σ_t x[t, y_t] + Σ_t A[t, y_t, y_{t+1}])`` over label sequences y; the chain CRF.

    All exact: O(T L²) time per batch entry and O(T L) memory for ln Z and the node marginals.

    Args:
        node_scores: x ``[*batch, T, L]``.
        edge_scores: A ``[L, L]``, from each label to the next, shared by all; or ``[*batch, T-1, L, L]``
            (the T − 1 may be 1, to broadcast).
        lengths: integers ``[*batch]`` in 0 … T, the lengths of the sequences; ``None`` is T everywhere. What lies
            beyond is padding: ignored in scores (NaN, too) and labellings, −100 in labellings returned, 0 in marginals.
        validate_args: check the values of arguments (NaN, labels out of range), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: scores or lengths of the wrong type, shape or value.
    """

    @property
    def _pass(self) -> chain.Pass:
        return self._once("forward_backward", lambda: chain.forward_backward(self._flat))

    def _total(self) -> Tensor:
        return self._pass.log_z.reshape(self.batch_shape)

    @property
    def _wide_log_partition(self) -> Tensor:
        return chain.log_partition(self._flat, self._pass).reshape(self.batch_shape)

    @property
    def node_marginals(self) -> Tensor:
        """The probability of each label at each position, ``[*batch, T, L]``; 0 over padding."""
        self._require_feasible("node_marginals")
        nodes = chain.node_marginals(self._flat, self._pass).to(self._dtype)
        return nodes.reshape(*self.batch_shape, *self.event_shape, self.num_labels)

    def _edge_marginals(self) -> Tensor:
        edges = chain.edge_marginals(self._flat, self._pass).to(self._dtype)
        return edges.reshape(*self.batch_shape, *edges.shape[1:])

    def _edge_sums(self) -> Tensor:
        """Edge marginals summed to the shape of ``edge_scores``: a table that is shared is never expanded."""
        return chain.edge_sums(self._flat, self._pass).to(self._dtype).reshape(self.edge_scores.shape)

    @property
    def marginals(self) -> LazyTuple:
        """Those of nodes ``[*batch, T, L]`` and of edges ``[*batch, T-1, L, L]``, each computed when asked for."""
        self._require_feasible("marginals")
        return LazyTuple((lambda: self.node_marginals, self._edge_marginals))

    @property
    def _wide_entropy(self) -> Tensor:
        if serves(*self.scores):
            return chain.surprisal(*self._flat).reshape(self.batch_shape)
        edges = chain.edge_marginals(self._flat, self._pass)
        nodes = chain.node_marginals(self._flat, self._pass)
        return chain.entropy(nodes, edges).reshape(self.batch_shape)

    def _wide_cross_entropy(self, other: LinearChain, by_conditionals: bool) -> Tensor:
        scores = chain.log_conditionals(*other._flat) if by_conditionals else other._flat[:2]
        expected = expected_scores(chain.expectation, self._flat, scores).reshape(self.batch_shape)
        return -expected if by_conditionals else other._wide_log_partition - expected

    def _wide_score(self, y: Tensor) -> Tensor:
        y, inside = self.labelling(y), self.inside
        if self._validate_args and concrete(y) and self._unobserved(y).any():
            raise ValueError("y: expected a full labelling, got -100 (unobserved); use log_prob or condition")
        (T,), L = self.event_shape, self.num_labels
        y = y.clamp(min=0)
        shape = broadcast_shapes(y.shape[:-1], self.batch_shape)
        node = gathered(self.node_scores.expand(*shape, T, L), y.expand(*shape, T))
        total = node.masked_fill(~inside, 0.0).sum(-1)
        if T < 2:
            return total
        if self.edge_scores.dim() == 2:
            edge = self.edge_scores[y[..., :-1], y[..., 1:]].to(node.dtype)
        else:
            pair = (y[..., :-1] * L + y[..., 1:]).expand(*shape, T - 1)
            edge = gathered(self.edge_scores.flatten(-2).expand(*shape, T - 1, L * L), pair)
        return total + edge.masked_fill(~inside[..., 1:], 0.0).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(y) = s(y) − ln Z, ``[*batch]``; −inf where y is impossible. Entries of −100 are summed over.

        The difference is taken in float64 before it is rounded, where it may be above 0 by a few units in the last
        place of sums of scores. Of a full labelling, where edge scores range too far for the kernels (and where there
        are none), it is a sum of ln P(y_t | y_{t+1}), none of which is positive.
        """
        return self._scaled_log_prob(value, 1.0)

    def _scaled_log_prob(self, y: Tensor, scale: float) -> Tensor:
        check_tensor("y", y)
        y = as_labels("y", y)
        if self._far:
            return _times(scale, super().log_prob(y))
        # even if a pass is known: the last digit of the answer must not depend on what was asked for before
        log_prob = chain.scaled_log_prob(self._nodes, self.edge_scores, self.lengths, y, scale, self._ends)
        if log_prob is not None:
            return log_prob
        if not self._is_full(y):
            return _times(scale, self._log_prob_by_difference(y))
        chains, known = self._flat, self._pass if self._known("forward_backward") else None
        log_prob, done = chain.log_probability(chains, y.reshape(chains.node.shape[:2]), known)
        self._once("forward_backward", lambda: done)
        return _times(scale, log_prob.reshape(self.batch_shape)).to(self._dtype)

    @property
    def _centred(self) -> LinearChain:
        """The same distribution, the largest score of every step and of every table of pairs being 0."""
        node, edge = centred(self._wide.node_scores, 1)[0], centred(self._wide.edge_scores, 2)[0]
        return self._once("centred", lambda: LinearChain(node, edge, self.lengths, validate_args=False))

    def _is_full(self, y: Tensor) -> bool:
        """Whether y is known to be one full labelling per batch entry; raises where it is none, as :meth:`score`."""
        if not concrete(y) or getattr(y, "shape", None) != self.batch_shape + self.event_shape:
            return False
        if plain(y) and y.dtype == torch.int64 and (self.lengths is None or plain(self.lengths)):
            full = chain.is_full(y, self.lengths, self.num_labels)
            if full is not None:
                return full
        return not self._unobserved(y).any()

    def label_scores(self, y: Tensor) -> Tensor:
        """The score of every label of every step given all other observed labels, ``[*batch, T, L]``.

        Up to a constant per step: their softmax is P(y_t | the rest). Over padding 0 for label 0 and −inf for others.
        O(T L) time and memory; latent (−100) labels between observed ones are summed out, in O(T L²).

        Raises:
            ValueError: two latent labels beside each other.
        """
        y, inside = self.labelling(y), self.inside
        latent = self._unobserved(y)
        (T,), L = self.event_shape, self.num_labels
        if T and concrete(y) and latent.any():
            return self.to_mrf().label_scores(torch.where(inside, y, 0))
        shape = broadcast_shapes(y.shape[:-1], self.batch_shape)
        labels = y.clamp(min=0).expand(*shape, T)
        scores = self.node_scores.expand(*shape, T, L)
        if T > 1:
            before, after, joined = labels[..., :-1], labels[..., 1:], inside[..., 1:, None]
            if self.edge_scores.dim() == 2:
                into, out = self.edge_scores[before], self.edge_scores.mT[after]
            else:
                edge = self.edge_scores.expand(*shape, T - 1, L, L)
                into = edge.gather(-2, before[..., None, None].expand(*before.shape, 1, L)).squeeze(-2)
                out = edge.gather(-1, after[..., None, None].expand(*after.shape, L, 1)).squeeze(-1)
            pad = torch.nn.functional.pad
            scores = scores + pad(into.masked_fill(~joined, 0.0), (0, 0, 1, 0))
            scores = scores + pad(out.masked_fill(~joined, 0.0), (0, 0, 0, 1))
        first = torch.arange(L, device=y.device) == 0
        scores = torch.where(inside.unsqueeze(-1), scores, torch.zeros_like(scores).masked_fill(~first, -torch.inf))
        if concrete(y):
            return scores
        return scores.masked_fill(latent[..., None, None], torch.nan)  # cannot be served here, must not pass unseen

    def step_log_probs(self, y: Tensor) -> Tensor:
        """ln P(y_t | y_{t−1}) of every step of a full labelling, ``[*batch, T]``, in float64; 0 over padding.

        Their sum is ln P(y). In the log domain by plain PyTorch: O(T L²) time and, for the gradient, memory.

        Raises:
            ValueError: a step is unobserved.
        """
        y = self.labelling(y)
        if self._validate_args:
            check_full("y", self._unobserved(y))
        node, edge, lengths = self._flat
        wide, T = accumulator(node), y.shape[-1]
        rows = y.clamp(min=0).expand(*self.batch_shape, T).reshape(-1, T)
        terms = reference.step_log_probs(node.to(wide), edge.to(wide), lengths, rows)
        return terms.reshape(*self.batch_shape, T)

    def log_conditionals(self, y: Tensor) -> Tensor:
        return super().log_conditionals(self.labelling(y))

    def max_marginals(self) -> LazyTuple:
        """The largest score of a labelling with each label, and with each pair of neighbouring ones.

        ``[*batch, T, L]`` and ``[*batch, T-1, L, L]``, each computed when asked for; −inf where there is none, and over
        padding. The largest of each position is the score of :meth:`argmax`; how far the others stay behind says how
        sure it is. Accurate to the rounding of the scores' dtype in chains of any length; no gradients. O(T L²) time.
        """
        return LazyTuple((lambda: self._max_marginals(False), lambda: self._max_marginals(True)))

    def _max_marginals(self, of_edges: bool) -> Tensor:
        with torch.no_grad():
            scores = (chain.edge_max_marginals if of_edges else chain.max_marginals)(self._flat)
        return scores.reshape(*self.batch_shape, *scores.shape[1:]).to(self._dtype)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        check_integer("k", k)
        with torch.no_grad():
            if k > 1 or self._ends is None:
                labels, scores = chain.topk(self._flat, k)
            else:
                chains = self._with_one_batch_axis(self._nodes)
                labels, scores = chain.topk(chains, k, self._ends.to(chains.node.dtype))
        labels = labels.reshape(k, *self.batch_shape, *self.event_shape)
        return labels, scores.reshape(k, *self.batch_shape).to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return chain.sample(self._flat, n, generator).reshape(n, *self.batch_shape, *self.event_shape)

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        (T,) = self.event_shape
        return f"LinearChain({T} steps, {self.num_labels} labels, batch_shape={list(self.batch_shape)}{lengths})"


def _times(scale: float, log_prob: Tensor) -> Tensor:
    return log_prob if scale == 1 else log_prob * scale
