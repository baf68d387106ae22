"""Hidden Markov models: the distribution of the hidden states of a sequence, given what was observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.checks import (
    as_integers,
    check_full,
    check_integer,
    check_lengths,
    check_same_kind,
    check_scores,
    joint_batch_shape,
    promoted,
)
from lnz.distributions.chain_scores import inside_of
from lnz.distributions.linear_chain import LinearChain
from lnz.distributions.log_probabilities import check_rows
from lnz.distributions.mrf import MRF
from lnz.distributions.sequence import SequenceDistribution, without_padding
from lnz.ops import hmm
from lnz.typing import LazyTuple


class HMM(SequenceDistribution):
    """P(z | x) ∝ p(z_0) Π_t p(z_{t+1} | z_t) Π_t p(x_t | z_t): the posterior over hidden states z, given x.

    A chain whose scores are log-probabilities: ``score(z)`` is ln p(z, x), ``log_partition`` the log evidence ln p(x),
    ``log_prob(z)`` ln P(z | x), ``argmax`` Viterbi's path, and ``sample`` filters forward and samples backward. By
    Fisher's identity the gradient of the evidence by the log-probabilities is the expected counts, :attr:`marginals`
    (Rabiner 1989; Cappé, Moulines & Rydén 2005, chapter 10). All exact, in O(T K²).

    Args:
        initial: ln p(z_0) ``[*batch, K]`` (or ``[K]``, shared).
        transition: ln p(z_{t+1} | z_t), a row per state at t: ``[K, K]``, shared by all; or ``[*batch, T-1, K, K]``.
        emission: ln p(x_t | z_t) ``[*batch, T, K]``, of the observations at hand; 0 where x_t is missing.
        lengths: integers ``[*batch]`` in 0 … T, the lengths of the sequences; ``None`` is T everywhere. What lies
            beyond is padding: ignored in scores (NaN, too) and labellings, −100 in labellings returned, 0 in marginals.
        normalised: initial and transition are log-probabilities, which is checked. ``False`` admits scores of any size,
            as a :meth:`tempered` model has them; filtering and prediction then have no meaning, and are refused.
        validate_args: check the values of arguments (NaN, sums of rows), as in ``torch.distributions``.

    Raises:
        TypeError, ValueError: log-probabilities or lengths of the wrong type, shape or value; rows that sum to other
            than 1.
    """

    def __init__(
        self,
        initial: Tensor,
        transition: Tensor,
        emission: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        normalised: bool = True,
        validate_args: bool | None = None,
    ) -> None:
        values = self._validate_args if validate_args is None else validate_args
        for name, scores in (("initial", initial), ("transition", transition), ("emission", emission)):
            check_scores(name, scores, values=values and name == "initial")
        initial, transition, emission = promoted(initial, transition, emission)
        lengths = None if lengths is None else as_integers("lengths", lengths, emission.device)
        batch_shape = _joint_batch_shape(initial, transition, emission, lengths)
        super().__init__(batch_shape, emission.shape[-2:-1], validate_args)
        inside, (T,) = inside_of(lengths, emission.shape[-2]), self.event_shape
        steps = None if inside is None else lambda: inside().unsqueeze(-1)
        pairs = (
            None
            if inside is None or transition.dim() == 2 or transition.shape[-3] != T - 1
            else lambda: inside()[..., 1:, None, None]
        )
        self.initial = initial
        self.transition = without_padding("transition", transition, pairs, values=values, axes=3)
        self.emission = without_padding("emission", emission, steps, values=values, axes=2)
        self.lengths = lengths
        self.normalised = normalised
        self._checked = normalised and values
        if self._checked:
            check_rows("initial", initial)
            shared = lengths is None or transition.dim() == 2 or transition.shape[-3] == 1
            check_rows("transition", self.transition, None if shared else self._chain.inside[..., 1:, None])

    @property
    def scores(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.initial, self.transition, self.emission

    @property
    def num_labels(self) -> int:
        """K, the number of hidden states."""
        return self.emission.shape[-1]

    @property
    def _chain(self) -> LinearChain:
        """The chain of emission with ``initial`` at the first step, less :attr:`_offset`, and transition."""
        return self._once("chain", self._new_chain)

    def _new_chain(self) -> LinearChain:
        dtype = self._working_dtype
        new = LinearChain(self._joined[0], self.transition.to(dtype), self.lengths, validate_args=False)
        new._settle("working_dtype", dtype)  # its scores are these: as large, or as small
        new._settle("far", self._far)
        return new

    @property
    def _score_tensors(self) -> tuple[Tensor, ...]:
        """Scores whose size is not known: rows of log-probabilities have one of −ln K at least."""
        return (self.emission,) if self._checked else self.scores

    @property
    def _joined(self) -> tuple[Tensor, Tensor]:
        """The node scores of the chain, and what is taken away from the first."""
        dtype = self._working_dtype
        return self._once("joined", lambda: hmm.joined(self.initial.to(dtype), self.emission.to(dtype)))

    @property
    def _offset(self) -> Tensor:
        """By how much a score is more than that of the chain, wide ``[*batch]``."""
        offset = self._joined[1]
        return (offset if self.lengths is None else offset * (self.lengths > 0)).expand(self.batch_shape)

    def _total(self) -> Tensor:
        return self._chain._total()

    @property
    def _dtype(self) -> torch.dtype:
        return self.emission.dtype

    # Evidence, filtering, smoothing, prediction --------------------------------------------------------------------

    @property
    def _wide_log_partition(self) -> Tensor:
        return self._chain._wide_log_partition + self._offset

    @property
    def log_evidence(self) -> Tensor:
        """ln p(x_0 … x_{T−1}), ``[*batch]``: the likelihood of the observations, hidden states summed out."""
        return self.log_partition

    @property
    def smoothed(self) -> Tensor:
        """P(z_t | x), given all observations, ``[*batch, T, K]``; 0 over padding."""
        self._require_feasible("smoothed")
        return self._chain.node_marginals.to(self._dtype)

    @property
    def smoothed_pairs(self) -> Tensor:
        """P(z_t, z_{t+1} | x), ``[*batch, T-1, K, K]``; 0 over padding."""
        self._require_feasible("smoothed_pairs")
        return self._chain.marginals[1].to(self._dtype)

    @property
    def filtered(self) -> Tensor:
        """P(z_t | x_0 … x_t), given the observations so far, ``[*batch, T, K]``; 0 over padding."""
        self._require_normalised("filtered")
        self._require_feasible("filtered")
        shares = self._once("filtered", lambda: hmm.filtered(self._chain._flat, self._chain._pass))
        return shares.reshape(self._shape).to(self._dtype)

    def predicted(self, steps: int = 1) -> Tensor:
        """P(z_{t+steps} | x_0 … x_t), ``[*batch, T, K]``; 0 over padding.

        With one transition table for all positions the future may lie beyond the sequence; with a table per position it
        is 0 where that is so.

        Raises:
            TypeError, ValueError: a number of steps that is no integer of at least 0.
        """
        check_integer("steps", steps, least=0)
        probabilities, (T,) = self.filtered, self.event_shape
        if self.transition.dim() == 2:
            return probabilities @ torch.linalg.matrix_power(self.transition.exp(), steps)
        tables = self.transition.expand(*self.batch_shape, max(0, T - 1), -1, -1).exp()
        ahead = probabilities[..., : max(0, T - steps), :]
        for step in range(min(steps, T)):
            ahead = (ahead.unsqueeze(-2) @ tables[..., step : step + ahead.shape[-2], :, :]).squeeze(-2)
        reached = self._chain.inside[..., T - ahead.shape[-2] :, None]
        return torch.nn.functional.pad(torch.where(reached, ahead, 0.0), (0, 0, 0, T - ahead.shape[-2]))

    @property
    def marginals(self) -> LazyTuple:
        """P(z_0 | x) ``[*batch, K]``, :attr:`smoothed_pairs` and :attr:`smoothed`, each computed when asked for."""
        self._require_feasible("marginals")
        return LazyTuple((self._initial_marginals, lambda: self.smoothed_pairs, lambda: self.smoothed))

    @torch.no_grad()
    def expected_counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """How often each state comes first and follows each, in the shapes of ``initial`` and ``transition``.

        Summed over what shares an entry: the gradient of the summed evidence, as constants. And :attr:`smoothed`, whose
        gradient they would be by the emissions: three parts, of one pass, in O(T K) memory where a table is shared.
        """
        states = self.smoothed
        first = states[..., :1, :].sum(-2)
        return first.sum_to_size(self.initial.shape), self._chain._edge_sums().to(self._dtype), states

    @property
    def _wide_entropy(self) -> Tensor:
        return self._chain._wide_entropy

    def _wide_cross_entropy(self, other: HMM, by_conditionals: bool) -> Tensor:
        return self._chain._wide_cross_entropy(other._chain, by_conditionals)

    def _initial_marginals(self) -> Tensor:
        if self.event_shape[0]:
            return self.smoothed[..., 0, :]
        return self.emission.new_zeros(*self.batch_shape, self.num_labels)

    # State sequences -----------------------------------------------------------------------------------------------

    def score(self, y: Tensor) -> Tensor:
        """ln p(z, x), ``[*batch]``, of the states z = y; −inf where it is impossible."""
        return super().score(y)

    def _wide_score(self, y: Tensor) -> Tensor:
        chain = self._chain
        if self._validate_args:
            check_full("y", chain._unobserved(y))
        return chain._wide_score(y) + self._offset

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(z | x), ``[*batch]``, of the states z = value; −100 entries are summed over. −inf where impossible."""
        return super().log_prob(value) if self._far else self._chain.log_prob(value).to(self._dtype)

    def condition(self, y: Tensor) -> Self:
        clamped = LinearChain(self.emission, self.transition, self.lengths, validate_args=False).condition(y)
        return self._with(self.initial, self.transition, clamped.node_scores)

    def max_marginals(self) -> LazyTuple:
        """The largest ln p(z, x) of a path through each state ``[*batch, T, K]``, and pair of states in a row.

        ``[*batch, T-1, K, K]``; as :meth:`lnz.LinearChain.max_marginals`.
        """
        scores, offset = self._chain.max_marginals(), self._offset
        return LazyTuple(
            (
                lambda: self._raised(scores[0], offset[..., None, None]),
                lambda: self._raised(scores[1], offset[..., None, None, None]),
            )
        )

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        labels, scores = self._chain.topk(k)
        return labels, self._raised(scores, self._offset)

    def _raised(self, scores: Tensor, offset: Tensor) -> Tensor:
        return (scores + offset).to(self._dtype)

    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self._chain._sample(n, generator)

    def label_scores(self, y: Tensor) -> Tensor:
        return self._chain.label_scores(y).to(self._dtype)

    def log_conditionals(self, y: Tensor) -> Tensor:
        return self._chain.log_conditionals(y).to(self._dtype)

    def with_node_scores(self, added: Tensor) -> Self:
        return self._with(self.initial, self.transition, self.emission + added)

    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        return self._with(*map(function, self.scores), normalised=False)

    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        transition = self.transition if self.transition.dim() > 2 else self.transition.unsqueeze(0)
        scores = function(self.initial, 1), function(transition, 3), function(self.emission, 2)
        return self._with(*scores, normalised=False)

    @property
    def _lengths(self) -> Tensor | int:
        return self.event_shape[0] if self.lengths is None else self.lengths

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> Self:
        """The same distribution with a larger batch shape (nothing is copied)."""
        return self._with(self.initial, self.transition, self.emission.expand(*batch_shape, *self._shape[-2:]))

    def to_mrf(self) -> MRF:
        """The same model as an MRF: groups nodes and edges, the initial log-probabilities in those of the first node.

        Raises:
            ValueError: a sequence of no steps, T = 0.
        """
        chain = self._chain
        first = self._raised(chain.node_scores[..., :1, :], self._offset[..., None, None])
        node = torch.cat((first, chain.node_scores[..., 1:, :].to(self._dtype)), -2)
        mrf = LinearChain(node, self.transition, self.lengths, validate_args=False).to_mrf()
        return MRF(mrf.graph, mrf.scores, validate_args=self._validate_args)

    # ---------------------------------------------------------------------------------------------------------------

    @property
    def _shape(self) -> torch.Size:
        return self.batch_shape + self.event_shape + (self.num_labels,)

    def _with(self, initial: Tensor, transition: Tensor, emission: Tensor, normalised: bool | None = None) -> Self:
        same = self.normalised if normalised is None else normalised
        new = self.__class__(initial, transition, emission, self.lengths, normalised=False, validate_args=False)
        new.normalised, new._validate_args = same, self._validate_args  # checked when this one was made
        return new

    def _require_normalised(self, what: str) -> None:
        if not self.normalised:
            raise ValueError(
                f"HMM.{what}: expected initial and transition to be log-probabilities, got scores of any size "
                "(normalised=False, or a tempered model), for which the past says nothing without the future"
            )

    def _expanded_scores(self) -> tuple[Tensor, ...]:
        (T,), K = self.event_shape, self.num_labels
        return (
            self.initial.expand(*self.batch_shape, K),
            self.transition.expand(*self.batch_shape, max(0, T - 1), K, K),
            self.emission.expand(self._shape),
        )

    @property
    def inside(self) -> Tensor:
        return self._chain.inside

    def labelling(self, y: Tensor) -> Tensor:
        return self._chain.labelling(y)

    def _unobserved(self, y: Tensor) -> Tensor:
        return self._chain._unobserved(y)

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", lengths given"
        (T,) = self.event_shape
        return f"HMM({T} steps, {self.num_labels} states, batch_shape={list(self.batch_shape)}{lengths})"


def _joint_batch_shape(initial: Tensor, transition: Tensor, emission: Tensor, lengths: Tensor | None) -> torch.Size:
    """The batch shape of well-formed arguments; raises where they are not."""
    if emission.dim() < 2 or emission.shape[-1] == 0:
        raise ValueError(f"emission: expected shape [*batch, T, K] with K > 0, got {list(emission.shape)}")
    T, K = emission.shape[-2:]
    if initial.dim() < 1 or initial.shape[-1] != K:
        raise ValueError(f"initial: expected shape [*batch, {K}], got {list(initial.shape)}")
    steps = max(0, T - 1)
    own = transition.dim() > 2 and transition.shape[-2:] == (K, K) and transition.shape[-3] in (1, steps)
    if not (own or transition.shape == (K, K)):
        raise ValueError(
            f"transition: expected shape [{K}, {K}] or [*batch, {steps}, {K}, {K}], got {list(transition.shape)}"
        )
    check_same_kind("initial", initial, "emission", emission)
    check_same_kind("transition", transition, "emission", emission)
    shapes = {"initial": initial.shape[:-1], "transition": transition.shape[:-3], "emission": emission.shape[:-2]}
    if lengths is not None:
        check_lengths(lengths, T)
        shapes["lengths"] = lengths.shape
    return joint_batch_shape(**shapes)
