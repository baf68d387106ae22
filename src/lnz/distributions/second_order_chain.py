"""Second-order chains: each label depends on the two before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from lnz.checks import broadcast_shapes, check_same_kind, check_scores, common_dtype, joint_batch_shape
from lnz.distributions.chain_scores import inside_of
from lnz.distributions.linear_chain import LinearChain
from lnz.distributions.mrf import MRF
from lnz.distributions.sequence import SequenceDistribution, centred, gathered, total_over_steps, without_padding
from lnz.graphs import FactorGraph
from lnz.ops.precision import accumulator
from lnz.typing import IGNORE, LazyTuple


class SecondOrderChain(SequenceDistribution):
    """``P(y) ∝ exp(Σ_t x[t, y_t] + Σ_t A[t, y_t, y_{t+1}] + Σ_t C[t, y_t, y_{t+1}, y_{t+2}])``; the trigram chain.

    Exact, as a :class:`LinearChain` over pairs of labels: the state at step t is (y_{t−1}, y_t), with one more label to
    stand before the first. Labellings in and out are those of steps, not of pairs; lengths 0, 1 and 2 are served.
    Second-order models of tags: Thede & Harper 1999 (hidden Markov), Ye, Lee, Chieu & Wu 2009 (conditional fields).

    O(T L⁴) time per batch entry, in the kernels of the chain; O(T L²) memory for ln Z and the marginals of nodes and
    edges, those of triples O(T L⁴) while they are made. The table of triples is written out O(L⁴), once where it is
    shared, else per position.

    Args:
        node_scores: x ``[*batch, T, L]``.
        edge_scores: A ``[L, L]``, from each label to the next, shared by all; or ``[*batch, T-1, L, L]``
            (the T − 1 may be 1, to broadcast).
        triple_scores: C ``[L, L, L]``, of three labels in a row, shared by all; or ``[*batch, T-2, L, L, L]``
            (the T − 2 may be 1, to broadcast).
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
        triple_scores: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        check_scores("triple_scores", triple_scores, values=False)
        first_order = LinearChain(node_scores, edge_scores, lengths, validate_args=values)
        lengths, dtype = first_order.lengths, common_dtype(*first_order.scores, triple_scores)
        triple_scores = triple_scores.to(dtype)
        if first_order._dtype != dtype:
            first_order = first_order.map_scores(lambda scores: scores.to(dtype))
        super().__init__(_joint_batch_shape(first_order, triple_scores), first_order.event_shape, validate_args)
        inside, (T,) = inside_of(lengths, node_scores.shape[-2]), self.event_shape
        triples = (
            None
            if inside is None or triple_scores.dim() == 3 or triple_scores.shape[-4] != T - 2
            else lambda: inside()[..., 2:, None, None, None]
        )
        self._first_order = first_order
        self.node_scores = first_order.node_scores
        self.edge_scores = first_order.edge_scores
        self.triple_scores = without_padding("triple_scores", triple_scores, triples, values=values, axes=4)
        self.lengths = lengths

    @property
    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.node_scores, self.edge_scores, self.triple_scores

    @property
    def num_labels(self) -> int:
        return self.node_scores.shape[-1]

    # The chain over pairs ------------------------------------------------------------------------------------------

    @property
    def _pairs(self) -> LinearChain:
        """The chain whose state a L + b at step t says y_{t−1} = a and y_t = b; a = L stands before the first step."""
        return self._once("pairs", self._new_pairs)

    def _new_pairs(self) -> LinearChain:
        node, edge, triple = self._centred_scores[0]
        node, edge = _pair_scores(node, edge).flatten(-2), _triple_tables(triple).flatten(-2).flatten(-3, -2)
        return LinearChain(node.expand(*self.batch_shape, *node.shape[-2:]), edge, self.lengths, validate_args=False)

    @property
    def _centred_scores(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """The scores less the largest of each step, pair and triple; and by how much a labelling's are more, wide."""
        return self._once("centred_scores", self._new_centred_scores)

    @property
    def _centred(self) -> Self:
        """The same distribution, the largest score of every step and of every table being 0."""
        return self._once("centred", lambda: self._with(*self._centred_scores[0]))

    def _new_centred_scores(self) -> tuple[tuple[Tensor, ...], Tensor]:
        (T,), dtype = self.event_shape, self._working_dtype
        parts = [centred(scores.to(dtype), axes + 1) for axes, scores in enumerate(self.scores)]
        number = torch.as_tensor(self._lengths, device=self.node_scores.device)
        offset = torch.zeros(self.batch_shape, dtype=accumulator(self.node_scores), device=self.node_scores.device)
        for behind, (scores, tops) in enumerate(parts):
            steps = max(0, T - behind)
            shared = scores.dim() == behind + 1 or scores.shape[-behind - 2] != steps
            offset = offset + total_over_steps(tops, number - behind, steps, shared)
        return tuple(scores for scores, _ in parts), offset

    def _by_pair(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """A value per state ``[*batch, T, (L + 1) L]`` as those of pairs at each step, and of pairs of two steps."""
        L = self.num_labels
        pairs = table.unflatten(-1, (L + 1, L))
        return pairs, pairs[..., 1:, :L, :]

    def _by_triple(self, table: Tensor) -> Tensor:
        """A value per pair of states ``[*batch, T-1, …]`` as those of triples ``[*batch, T-2, L, L, L]``."""
        L = self.num_labels
        split = table[..., 1:, :, :].unflatten(-1, (L + 1, L)).unflatten(-3, (L + 1, L))
        return split[..., :L, :, :L, :].diagonal(dim1=-3, dim2=-2).mT

    # Answers -------------------------------------------------------------------------------------------------------

    @property
    def _wide_log_partition(self) -> Tensor:
        return self._pairs._wide_log_partition + self._centred_scores[1]

    @property
    def _dtype(self) -> torch.dtype:
        return self.node_scores.dtype

    def _wide_cross_entropy(self, other: SecondOrderChain, by_conditionals: bool) -> Tensor:
        return self._pairs._wide_cross_entropy(other._pairs, by_conditionals)

    @property
    def node_marginals(self) -> Tensor:
        """The probability of each label at each position, ``[*batch, T, L]``; 0 over padding."""
        self._require_feasible("node_marginals")
        return self._by_pair(self._pairs.node_marginals)[0].sum(-2).to(self._dtype)

    @property
    def marginals(self) -> LazyTuple:
        """Of nodes ``[*batch, T, L]``, edges ``[*batch, T-1, L, L]`` and triples ``[*batch, T-2, L, L, L]``.

        Each computed when asked for; those of triples need much more memory.
        """
        self._require_feasible("marginals")
        pairs = self._pairs
        return LazyTuple(
            (
                lambda: self.node_marginals,
                lambda: self._by_pair(pairs.node_marginals)[1].to(self._dtype),
                lambda: self._by_triple(pairs.marginals[1]).to(self._dtype),
            )
        )

    @property
    def _wide_entropy(self) -> Tensor:
        return self._pairs._wide_entropy

    def max_marginals(self) -> LazyTuple:
        """The largest score of a labelling with each label, each pair and each triple; shaped as :attr:`marginals`.

        Each computed when asked for; −inf where there is none, and over padding.
        """
        pairs = self._pairs.max_marginals()
        return LazyTuple(
            (
                lambda: self._raised(self._by_pair(pairs[0])[0].amax(-2), 2),
                lambda: self._raised(self._by_pair(pairs[0])[1], 3),
                lambda: self._raised(self._by_triple(pairs[1]), 4),
            )
        )

    def _raised(self, scores: Tensor, axes: int = 0) -> Tensor:
        """Scores of the chain over pairs, with ``axes`` behind those of the batch, as those of this distribution."""
        offset = self._centred_scores[1]
        return (scores + offset.reshape([*offset.shape, *[1] * axes])).to(self._dtype)

    def _from_offset(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._centred._wide_score(y), self._pairs._wide_log_partition

    def _wide_score(self, y: Tensor) -> Tensor:
        total = self._first_order._wide_score(y)
        (T,), L = self.event_shape, self.num_labels
        y = self.labelling(y).clamp(min=0)
        shape = broadcast_shapes(y.shape[:-1], self.batch_shape)
        if T < 3:
            return total.expand(shape)
        joint = (y[..., :-2] * L + y[..., 1:-1]) * L + y[..., 2:]
        if self.triple_scores.dim() == 3:
            triple = self.triple_scores.flatten()[joint].to(total.dtype)
        else:
            tables = self.triple_scores.flatten(-3).expand(*shape, T - 2, L**3)
            triple = gathered(tables, joint.expand(*shape, T - 2))
        return total + torch.where(self.inside[..., 2:], triple, 0.0).sum(-1)

    def condition(self, y: Tensor) -> Self:
        return self._with(self._first_order.condition(y).node_scores, self.edge_scores, self.triple_scores)

    def label_scores(self, y: Tensor) -> Tensor:
        """The score of every label of every step given all other observed labels, ``[*batch, T, L]``.

        Up to a constant per step: their softmax is P(y_t | the rest). Over padding 0 for label 0 and −inf for others.

        Raises:
            ValueError: two latent labels among three in a row.
        """
        y = self.labelling(y)
        if not self.event_shape[0]:
            return self.node_scores.expand(*self.batch_shape, 0, self.num_labels)
        return self.to_mrf().label_scores(torch.where(self.inside, y, 0))

    def log_conditionals(self, y: Tensor) -> Tensor:
        return super().log_conditionals(self.labelling(y))

    def with_node_scores(self, added: Tensor) -> Self:
        return self._with(self.node_scores + added, self.edge_scores, self.triple_scores)

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        states, scores = self._pairs.topk(k)
        return self._labels(states), self._raised(scores)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self._labels(self._pairs._sample(n, generator))

    def _labels(self, states: Tensor) -> Tensor:
        return torch.where(states == IGNORE, IGNORE, states % self.num_labels)

    # ---------------------------------------------------------------------------------------------------------------

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(*map(function, self.scores))

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        edge = self.edge_scores if self.edge_scores.dim() > 2 else self.edge_scores.unsqueeze(0)
        triple = self.triple_scores if self.triple_scores.dim() > 3 else self.triple_scores.unsqueeze(0)
        return self._with(function(self.node_scores, 2), function(edge, 3), function(triple, 4))

    @property
    def _lengths(self) -> Tensor | int:
        return self.event_shape[0] if self.lengths is None else self.lengths

    def _with(self, node_scores: Tensor, edge_scores: Tensor, triple_scores: Tensor) -> Self:
        scores = node_scores, edge_scores, triple_scores
        return self.__class__(*scores, self.lengths, validate_args=self._validate_args)

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        (T,), L = self.event_shape, self.num_labels
        return (
            self.node_scores.expand(*self.batch_shape, T, L),
            self.edge_scores.expand(*self.batch_shape, max(0, T - 1), L, L),
            self.triple_scores.expand(*self.batch_shape, max(0, T - 2), L, L, L),
        )

    @property
    def inside(self) -> Tensor:
        return self._first_order.inside

    def labelling(self, y: Tensor) -> Tensor:
        return self._first_order.labelling(y)

    def _unobserved(self, y: Tensor) -> Tensor:
        return self._first_order._unobserved(y)

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        node = self.node_scores.expand(*batch_shape, *self.node_scores.shape[-2:])
        return self._with(node, self.edge_scores, self.triple_scores)

    def to_mrf(self) -> MRF:
        """The same model as an MRF: groups nodes, edges, triples. Padding nodes have the one label 0, at score 0.

        Raises:
            ValueError: a chain of no steps, T = 0.
        """
        first_order = self._first_order.to_mrf()
        (T,), steps, triple = self.event_shape, torch.arange(self.event_shape[0]), self.triple_scores
        scopes = torch.stack((steps[:-2], steps[1:-1], steps[2:]), -1) if T > 2 else torch.zeros(0, 3).long()
        if self.lengths is not None:
            triple = torch.where(self.inside[..., 2:, None, None, None], triple, 0.0)
        graph = FactorGraph(first_order.graph.cardinalities, (*first_order.graph.scopes, scopes))
        return MRF(graph, (*first_order.scores, triple), validate_args=self._validate_args)

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        (T,) = self.event_shape
        return f"SecondOrderChain({T} steps, {self.num_labels} labels, batch_shape={list(self.batch_shape)}{lengths})"


def _pair_scores(node: Tensor, edge: Tensor) -> Tensor:
    """x and A as scores of pairs, ``[*batch, T, L + 1, L]``: the first step has nothing before it, others have."""
    L = node.shape[-1]
    first = pad(node[..., :1, None, :], (0, 0, L, 0), value=-torch.inf)
    rest = pad(node[..., 1:, None, :] + edge, (0, 0, 0, 1), value=-torch.inf)
    return torch.cat((first.expand(*rest.shape[:-3], *first.shape[-3:]), rest), -3)


def _triple_tables(triple: Tensor) -> Tensor:
    """C as scores from (a, b) to (b, c), ``[…, L + 1, L, L + 1, L]``; −inf where the pairs do not agree on b."""
    L = triple.shape[-1]
    if triple.dim() > 3 and triple.shape[-4] != 1:
        triple = pad(triple, (0, 0, 0, 0, 0, 0, 1, 0))  # from the first step to the second no triple is scored,
    triple = pad(triple, (0, 0, 0, 0, 0, 1)).unsqueeze(-2)  # nor from a pair that begins before the first
    agree = torch.eye(L, dtype=torch.bool, device=triple.device).unsqueeze(-1)
    return pad(torch.where(agree, triple, -torch.inf), (0, 0, 0, 1), value=-torch.inf)


def _joint_batch_shape(first_order: LinearChain, triple: Tensor) -> torch.Size:
    """The batch shape of well-formed arguments; raises where those of ``triple`` are not."""
    T, L = first_order.node_scores.shape[-2:]
    steps = max(0, T - 2)
    own = triple.dim() > 3 and triple.shape[-3:] == (L, L, L) and triple.shape[-4] in (1, steps)
    if not (own or triple.shape == (L, L, L)):
        raise ValueError(
            f"triple_scores: expected shape [{L}, {L}, {L}] or [*batch, {steps}, {L}, {L}, {L}], "
            f"got {list(triple.shape)}"
        )
    check_same_kind("triple_scores", triple, "node_scores", first_order.node_scores)
    names = "node_scores", "edge_scores", "lengths"
    given = [first_order.node_scores.shape[:-2], first_order.edge_scores.shape[:-3]]
    given += [] if first_order.lengths is None else [first_order.lengths.shape]
    return joint_batch_shape(**dict(zip(names, given, strict=False)), triple_scores=triple.shape[:-4])
