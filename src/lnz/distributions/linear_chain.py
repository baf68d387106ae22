"""Linear chains: the exponential softmax over label sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_integers,
    as_labels,
    check_broadcast,
    check_event_shape,
    check_full,
    check_integer,
    check_labels,
    check_lengths,
    check_same_kind,
    check_scores,
    check_tensor,
    concrete,
    joint_batch_shape,
    plain,
    promoted,
)
from lnz.distributions.mrf import MRF
from lnz.distributions.sequence import SequenceDistribution, centred, expected_scores, gathered, without_padding
from lnz.graphs import FactorGraph
from lnz.ops import chain
from lnz.ops.chain import reference
from lnz.ops.chain.expectation import serves
from lnz.ops.precision import accumulator
from lnz.typing import IGNORE, LazyTuple


class LinearChain(SequenceDistribution):
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

    def __init__(
        self,
        node_scores: Tensor,
        edge_scores: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("node_scores", node_scores, values=False)
        check_scores("edge_scores", edge_scores, values=False)
        node_scores, edge_scores = promoted(node_scores, edge_scores)
        lengths = None if lengths is None else as_integers("lengths", lengths, node_scores.device)
        batch_shape = _joint_batch_shape(node_scores, edge_scores, lengths)
        super().__init__(batch_shape, node_scores.shape[-2:-1], validate_args)
        inside, (T,) = inside_of(lengths, node_scores.shape[-2]), self.event_shape
        nodes = None if inside is None else lambda: inside().unsqueeze(-1)
        edges = (
            None
            if inside is None or edge_scores.dim() == 2 or edge_scores.shape[-3] != T - 1
            else lambda: inside()[..., 1:, None, None]
        )
        self._nodes = without_padding("node_scores", node_scores, nodes, values=values, axes=2)
        self._ends: Tensor | None = None  # [2, L], on top of the scores of the first and of the last label
        self.edge_scores = without_padding("edge_scores", edge_scores, edges, values=values, axes=3)
        self.lengths = lengths

    @property
    def node_scores(self) -> Tensor:
        """x ``[*batch, T, L]``, with :meth:`with_boundary_scores`."""
        if self._ends is None:
            return self._nodes
        ends = self._ends
        return self._once("node_scores", lambda: chain.with_ends(self._nodes, self.lengths, *ends))

    @property
    def scores(self) -> tuple[Tensor, Tensor]:
        return self.node_scores, self.edge_scores

    @property
    def _score_tensors(self) -> tuple[Tensor, ...]:
        return (self._nodes, self.edge_scores) if self._ends is None else (self._nodes, self.edge_scores, self._ends)

    @property
    def num_labels(self) -> int:
        return self._nodes.shape[-1]

    @property
    def _flat(self) -> chain.Chains:
        """Scores and lengths with one batch axis, as :mod:`lnz.ops.chain` takes them; half precision in float32."""
        return self._once("flat", lambda: self._with_one_batch_axis(self.node_scores))

    def _with_one_batch_axis(self, node: Tensor) -> chain.Chains:
        (T,), L, B = self.event_shape, self.num_labels, self.batch_shape.numel()
        node, scores = (each.to(self._working_dtype) for each in (node, self.edge_scores))
        if node.shape != (B, T, L):
            node = node.expand(*self.batch_shape, T, L).reshape(B, T, L)
        if scores.dim() == 2:
            edge = scores[None, None]
        elif scores.shape[:-3].numel() == 1:  # shared by the batch: not copied per entry
            edge = scores.reshape(1, *scores.shape[-3:])
        else:
            edge = scores.expand(*self.batch_shape, *scores.shape[-3:]).reshape(B, *scores.shape[-3:])
        if self.lengths is None:
            return chain.Chains(node, edge, torch.full((B,), T, device=node.device))
        return chain.Chains(node, edge, self.lengths.expand(self.batch_shape).reshape(B))

    @property
    def inside(self) -> Tensor:
        """Which positions are not padding, ``[*batch, T]`` (or ``[T]``)."""
        (T,) = self.event_shape
        steps = torch.arange(T, device=self.node_scores.device)
        return steps < (T if self.lengths is None else self.lengths.unsqueeze(-1))

    @property
    def _pass(self) -> chain.Pass:
        return self._once("forward_backward", lambda: chain.forward_backward(self._flat))

    def _total(self) -> Tensor:
        return self._pass.log_z.reshape(self.batch_shape)

    @property
    def _wide_log_partition(self) -> Tensor:
        return chain.log_partition(self._flat, self._pass).reshape(self.batch_shape)

    @property
    def _dtype(self) -> torch.dtype:
        return self._nodes.dtype

    @property
    def node_marginals(self) -> Tensor:
        """The probability of each label at each position, ``[*batch, T, L]``; 0 over padding."""
        self._require_feasible("node_marginals")
        nodes = chain.node_marginals(self._flat, self._pass).to(self._dtype)
        return nodes.reshape(*self.batch_shape, *self.event_shape, self.num_labels)

    def _edge_marginals(self) -> Tensor:
        edges = chain.edge_marginals(self._flat, self._pass).to(self._dtype)
        return edges.reshape(*self.batch_shape, *edges.shape[1:])

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
        shape = torch.broadcast_shapes(y.shape[:-1], self.batch_shape)
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
        # whatever has been asked for before, so that the answer is the same to the last digit
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

    def condition(self, y: Tensor) -> Self:
        y = self.labelling(y).unsqueeze(-1)
        labels = torch.arange(self.num_labels, device=y.device)
        excluded = (y != IGNORE) & (y != labels) & self.inside.unsqueeze(-1)
        return self._with(torch.where(excluded, -torch.inf, self.node_scores), self.edge_scores)

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
        shape = torch.broadcast_shapes(y.shape[:-1], self.batch_shape)
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

    def with_node_scores(self, added: Tensor) -> Self:
        return self._with(self.node_scores + added, self.edge_scores)

    def with_boundary_scores(self, start: Tensor | None = None, end: Tensor | None = None) -> Self:
        """The chain with ``start`` and ``end``, ``[*batch, L]``, on top of the scores of the first and the last label.

        The last label is that of each length. Scores and marginals stay those of nodes and edges, in their dtype;
        gradients flow to ``start`` and ``end`` through the node scores. A sequence of length 0 has neither.

        Raises:
            TypeError, ValueError: scores of the wrong type, shape or value.
        """
        (T,), L, node = self.event_shape, self.num_labels, self.node_scores
        shape = self.batch_shape
        for name, scores in (("start", start), ("end", end)):
            if scores is None:
                continue
            check_scores(name, scores, values=self._validate_args)
            check_same_kind(name, scores.to(node.dtype), "node_scores", node)
            check_event_shape(name, scores.shape, (L,))
            check_broadcast(name, scores.shape[:-1], shape)
            shape = torch.broadcast_shapes(scores.shape[:-1], shape)
        added = [node.new_zeros(L) if scores is None else scores.to(node.dtype) for scores in (start, end)]
        shared = T > 0 and self._ends is None and all(ends.dim() == 1 and plain(ends) for ends in added)
        if not shared:
            return self._with(chain.with_ends(node, self.lengths, *added).expand(*shape, T, L), self.edge_scores)
        joined = copy(self)
        joined._ends = torch.stack(added)  # for kernels that take them as they are; nothing is copied for these
        return joined

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

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(function(self.node_scores), function(self.edge_scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        edge = self.edge_scores if self.edge_scores.dim() > 2 else self.edge_scores.unsqueeze(0)
        return self._with(function(self.node_scores, 2), function(edge, 3))

    @property
    def _lengths(self) -> Tensor | int:
        return self.event_shape[0] if self.lengths is None else self.lengths

    def _with(self, node_scores: Tensor, edge_scores: Tensor) -> Self:
        return self.__class__(node_scores, edge_scores, self.lengths, validate_args=self._validate_args)

    def _expanded_scores(self) -> tuple[Tensor, Tensor]:
        (T,), L = self.event_shape, self.num_labels
        return (
            self.node_scores.expand(*self.batch_shape, T, L),
            self.edge_scores.expand(*self.batch_shape, max(0, T - 1), L, L),
        )

    def _unobserved(self, y: Tensor) -> Tensor:
        return ((self.labelling(y) == IGNORE) & self.inside).any(-1)

    def labelling(self, y: Tensor) -> Tensor:
        """``y`` with −100 over padding, whatever it held there."""
        (T,) = self.event_shape
        if not isinstance(y, Tensor):
            raise TypeError(f"y: expected a torch.Tensor, got {type(y).__name__}")
        y = as_labels("y", y)
        check_event_shape("y", y.shape, (T,))
        check_broadcast("y", y.shape[:-1], self.batch_shape)
        y = torch.where(self.inside, y, IGNORE)
        check_labels("y", y, self.num_labels)
        return y

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.node_scores.expand(*batch_shape, *self.node_scores.shape[-2:]), self.edge_scores)

    def to_mrf(self) -> MRF:
        """The same model as an MRF: groups nodes and edges. Padding nodes have the one label 0, at score 0.

        Raises:
            ValueError: a chain of no steps, T = 0.
        """
        (T,), L = self.event_shape, self.num_labels
        if T == 0:
            raise ValueError("to_mrf: expected a chain of at least one step, got T = 0")
        steps = torch.arange(T)
        graph = FactorGraph.pairwise(T, L, torch.stack((steps[:-1], steps[1:]), -1))
        node, edge = self.scores
        if self.lengths is not None:
            inside = self.inside
            only_first = torch.full((L,), -torch.inf, dtype=node.dtype, device=node.device)
            only_first[0] = 0.0
            node = torch.where(inside[..., None], node, only_first)
            edge = torch.where(inside[..., 1:, None, None], edge, 0.0)
        return MRF(graph, (node, edge), validate_args=self._validate_args)

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        (T,) = self.event_shape
        return f"LinearChain({T} steps, {self.num_labels} labels, batch_shape={list(self.batch_shape)}{lengths})"


def _times(scale: float, log_prob: Tensor) -> Tensor:
    return log_prob if scale == 1 else log_prob * scale


def inside_of(lengths: Tensor | None, steps: int) -> Callable[[], Tensor] | None:
    """What makes the mask of steps that are not padding, bool ``[*batch, T]``; ``None`` where none is."""
    if lengths is None:
        return None
    return lambda: torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)


def _joint_batch_shape(node: Tensor, edge: Tensor, lengths: Tensor | None) -> torch.Size:
    """The batch shape of well-formed arguments; raises where they are not."""
    if node.dim() < 2 or node.shape[-1] == 0:
        raise ValueError(f"node_scores: expected shape [*batch, T, L] with L > 0, got {list(node.shape)}")
    T, L = node.shape[-2:]
    steps = max(0, T - 1)
    own = edge.dim() > 2 and edge.shape[-2:] == (L, L) and edge.shape[-3] in (1, steps)
    if not (own or edge.shape == (L, L)):
        raise ValueError(
            f"edge_scores: expected shape [{L}, {L}] or [*batch, {steps}, {L}, {L}], got {list(edge.shape)}"
        )
    check_same_kind("edge_scores", edge, "node_scores", node)
    shapes = {"node_scores": node.shape[:-2], "edge_scores": edge.shape[:-3]}
    if lengths is not None:
        check_lengths(lengths, T)
        shapes["lengths"] = lengths.shape
    return joint_batch_shape(**shapes)
