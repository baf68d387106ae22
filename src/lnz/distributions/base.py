"""What every structured distribution shares: a ``torch.distributions.Distribution`` over labellings.

A family supplies scores, ln Z, marginals, the score of a labelling, conditioning, top-k, sampling and ``map_scores``;
everything else follows from them here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.kl import register_kl

from lnz.checks import (
    as_labels,
    as_sample_shape,
    check_feasible,
    check_generator,
    check_same_lengths,
    check_tensor,
    common_dtype,
    concrete,
    has_large,
    working_dtype,
)
from lnz.distributions.support import Labellings
from lnz.distributions.temperature import check_temperature, check_temperatures, divided
from lnz.ops.conditionals.normalised import log_softmax_at
from lnz.typing import IGNORE, SampleShape

if TYPE_CHECKING:
    from lnz.distributions.mrf import MRF

Scores = Any
"""A tensor or a tuple of tensors (or of :class:`lnz.Weighted`), as each family documents."""

Value = TypeVar("Value")

_NODES = "MRF, LinearChain, HMM, SecondOrderChain, Softmax"
_SINGLE_LABELS = f"scores of single labels; families that do: {_NODES}"


class StructuredDistribution(Distribution, ABC):
    """The exponential softmax ``P(y) = exp(s(y)) / Z`` over a family of labellings.

    Labellings are ``int64`` tensors ``[*batch, *event]``; −100 in a labelling means *unobserved*.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it a property)
    has_enumerate_support = False
    _validate_args = __debug__  # a default of its own: torch.compile switches that of torch.distributions off

    def __init__(self, batch_shape: torch.Size, event_shape: torch.Size, validate_args: bool | None = None) -> None:
        validate = type(self)._validate_args if validate_args is None else validate_args
        super().__init__(batch_shape, event_shape, validate_args=False)
        self._validate_args = validate
        self._cache: dict[tuple[str, bool], Any] = {}

    @property
    def support(self) -> constraints.Constraint:
        """Full labellings: a label at every entry, −100 over padding; which are possible is for the scores to say."""
        return Labellings(self.num_labels, len(self.event_shape), self.inside)

    # What a family supplies -------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def scores(self) -> Scores:
        """The scores as given, broadcast forms kept."""

    @property
    @abstractmethod
    def log_partition(self) -> Tensor:
        """ln Z, ``[*batch]``, differentiable twice; −inf where no labelling is possible."""

    @property
    @abstractmethod
    def marginals(self) -> Scores:
        """∂ ln Z / ∂ scores: one probability per score, nested as :attr:`scores`, expanded over batch and positions.

        Raises:
            InfeasibleError: no labelling is possible.
        """

    @abstractmethod
    def score(self, y: Tensor) -> Tensor:
        """s(y), ``[*batch]``, of a full labelling; −inf where it is impossible."""

    @abstractmethod
    def condition(self, y: Tensor) -> Self:
        """The distribution with the observed entries of ``y`` (those that are not −100) clamped."""

    @abstractmethod
    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """The k best labellings ``[k, *batch, *event]`` and their scores ``[k, *batch]``, best first.

        Where fewer than k are possible, the rest are −100 with score −inf.
        """

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n labellings ``[n, *batch, *event]``."""

    @abstractmethod
    def map_scores(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same distribution with ``function`` applied to each score tensor, in the order of :attr:`scores`."""

    @abstractmethod
    def _map_entries(self, function: Callable[[Tensor, int], Tensor]) -> Self:
        """The same distribution with a linear ``function(scores, axes)`` per batch entry applied to each score tensor.

        It is given ``[*batch, …]`` with ``axes`` axes behind those of the batch, of tables that are shared too.
        """

    @abstractmethod
    def _expanded_scores(self) -> tuple[Tensor, ...]:
        """The scores as tensors of the shapes of the marginals."""

    @abstractmethod
    def labelling(self, y: Tensor) -> Tensor:
        """``y`` as ``int64 [*batch, *event]``, with −100 at whatever is not gold: over padding, whatever it held there.

        Raises:
            TypeError, ValueError: no tensor of integers, another shape than labellings have, labels out of range.
        """

    @abstractmethod
    def _unobserved(self, y: Tensor) -> Tensor:
        """Whether any entry of ``y`` that matters is −100: a boolean tensor ``[*batch]``."""

    def _gold_count(self, y: Tensor) -> Tensor:
        """How many nodes have a gold label in ``y``, ``[*batch]``."""
        gold = self.labelling(y) != IGNORE
        return gold.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else gold.long()

    @property
    def inside(self) -> Tensor | None:
        """Which entries of labellings are no padding, booleans ``[*batch, *event]`` or ``[*event]``; ``None``, all."""
        return None

    @property
    def _lengths(self) -> Tensor | int | None:
        """The lengths of sequences ``[*batch]``, the same in distributions that are compared; or ``None``."""
        return None

    # What follows ------------------------------------------------------------------------------------------------

    @property
    def _dtype(self) -> torch.dtype:
        """That of the answers: what torch promotes the scores to."""
        return common_dtype(*self._score_tensors)

    @property
    def _centred(self) -> Self:
        """This distribution with scores in float32 or wider, and without what those of all labellings have in common.

        Every answer but ln Z, and what is compared with it, is that of this distribution, rounded once: scores of half
        precision lose nothing on the way, and a common offset takes no digits. A family whose scores have a constant
        to take away overrides it; its own ln Z then is that of this distribution, and the constant.
        """
        return self._wide

    @property
    def _score_tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the scores."""
        return self.scores if isinstance(self.scores, tuple) else (self.scores,)

    @property
    def _working_dtype(self) -> torch.dtype:
        """What scores are added up in: float32 or wider, float64 where they are large."""
        return self._once("working_dtype", self._find_working_dtype)

    def _find_working_dtype(self) -> torch.dtype:
        dtype = working_dtype(self._dtype)
        return torch.float64 if dtype == torch.float32 and self._far else dtype

    @property
    def _far(self) -> bool:
        """Whether sums of scores are known to have few digits below 1 in float64; :data:`lnz.checks.LARGE`."""
        return self._once("far", lambda: any(map(has_large, self._score_tensors)))

    @property
    def _wide(self) -> Self:
        """This distribution with scores in :attr:`_working_dtype`: itself, where they are."""
        dtype = self._working_dtype
        if dtype == self._dtype:
            return self
        return self._once("wide", lambda: self.map_scores(lambda scores: scores.to(dtype)))

    def _relative_log_partition(self, y: Tensor | None = None) -> Tensor:
        """ln Z, or ln Z(y), less what :attr:`_centred` leaves out, in float32 or wider."""
        return (self._centred if y is None else self._centred.condition(y)).log_partition

    def _relative_score(self, y: Tensor) -> Tensor:
        """s(y), less what :attr:`_centred` leaves out, in float32 or wider."""
        return self._centred.score(y)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": {}}  # copies and pickles compute for themselves

    def _once(self, name: str, compute: Callable[[], Value]) -> Value:
        """Compute once per instance and gradient mode (a value made without gradient must not serve with it)."""
        key = (name, torch.is_grad_enabled())
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def _settle(self, name: str, value: object) -> None:
        """Say what :meth:`_once` would compute, where it is known already; in both gradient modes."""
        self._cache[name, True] = self._cache[name, False] = value

    def _known(self, name: str) -> bool:
        """Whether :meth:`_once` has computed it already."""
        return (name, torch.is_grad_enabled()) in self._cache

    def _require_feasible(self, what: str) -> None:
        if self._validate_args:
            check_feasible(self._total(), f"{type(self).__name__}.{what}")

    def _total(self) -> Tensor:
        """A sum over all labellings, −inf where none is possible and only there: it is in range where it is finite."""
        return self._relative_log_partition()

    def log_prob(self, value: Tensor) -> Tensor:
        """ln P(y) = s(y) − ln Z, ``[*batch]``; −inf where y is impossible.

        Where y holds −100, the unobserved entries are summed over: ln Z(y) − ln Z.
        """
        check_tensor("y", value)
        observed = concrete(value) and not self._unobserved(value).any()
        if self._far and observed and self._has_conditionals:
            return self._log_prob_by_conditionals(value)
        numerator = self._relative_score(value) if observed else self._relative_log_partition(value)
        z = self._relative_log_partition()
        impossible = torch.isneginf(z) | (z.isnan() & torch.isneginf(numerator))  # −inf, whatever Z is
        z = z.masked_fill(impossible, 0.0)
        return (numerator - z).to(self._dtype)

    @property
    def _has_conditionals(self) -> bool:
        """Whether :meth:`_cross_entropy` is exact, and a sum of log-conditionals."""
        return True

    def _log_prob_by_conditionals(self, y: Tensor) -> Tensor:
        """ln P(y) of full labellings, as E[ln P] under the distribution that is sure of y.

        A sum of log-conditionals, right where ln Z and s(y) are too large for their difference.
        """
        sure = self.condition(y)
        sure._validate_args = False  # an impossible labelling leaves nothing possible
        same = self if sure.batch_shape == self.batch_shape else self.expand(sure.batch_shape)
        impossible = torch.isneginf(self._relative_score(y).detach())
        return (-sure._cross_entropy(same)).masked_fill(impossible, -torch.inf).to(self._dtype)

    def _scaled_log_prob(self, y: Tensor, scale: float) -> Tensor:
        """``scale`` · :meth:`log_prob`: the terms of a loss; a family may compute their gradients along with them."""
        return scale * self.log_prob(y)

    @property
    def num_labels(self) -> int:
        """L, the number of labels of a node; the largest, where they differ."""
        raise TypeError(f"{type(self).__name__} has no {_SINGLE_LABELS}")

    def label_scores(self, y: Tensor) -> Tensor:
        """The score of every label of every node given all other observed labels, ``[*batch, *event, L]``.

        Up to a constant per node: their softmax is P(y_n | the rest). Latent (−100) labels are summed out.
        """
        raise TypeError(f"{type(self).__name__} has no {_SINGLE_LABELS}")

    def with_node_scores(self, added: Tensor) -> Self:
        """The distribution with ``added`` ``[*batch, *event, L]``, finite, on top of the scores of each label."""
        raise TypeError(f"{type(self).__name__} has no {_SINGLE_LABELS}")

    def to_mrf(self) -> MRF:
        """The same model as an MRF over nodes, in the order of :attr:`event_shape`.

        Raises:
            TypeError: a family whose labels are more than the nodes of a graph.
        """
        raise TypeError(f"{type(self).__name__} is no MRF; families that are: {_NODES}")

    def log_conditionals(self, y: Tensor) -> Tensor:
        """ln P(y_n | all other observed labels) of every node n, ``[*batch, *event]``; 0 where y_n is −100.

        From :meth:`label_scores`: no Z over labellings is needed.
        """
        check_tensor("y", y)
        y = as_labels("y", y)
        scores = self._centred.label_scores(y)
        labels = y.clamp(min=0).expand(scores.shape[:-1])
        return log_softmax_at(scores, labels).masked_fill(y == IGNORE, 0.0).to(self._dtype)

    def entropy(self) -> Tensor:
        """−Σ_y P(y) ln P(y), ``[*batch]``, in nats."""
        return self._cross_entropy(self).to(self._dtype)

    def cross_entropy(self, other: StructuredDistribution) -> Tensor:
        """−Σ_y P(y) ln Q(y) against ``other`` of one family and event, ``[*batch]``; +inf where Q(y) = 0 < P(y).

        Raises:
            TypeError, ValueError: another family or event, or sequences of other lengths.
        """
        self._check_comparable(other)
        assert isinstance(other, type(self))
        return self._cross_entropy(other).to(torch.promote_types(self._dtype, other._dtype))

    def _check_comparable(self, other: StructuredDistribution) -> None:
        """Raise unless ``other`` is of the same family and event, and of sequences of the same lengths."""
        if type(other) is not type(self):
            families = f"{type(self).__name__}, {type(other).__name__}"
            raise TypeError(f"expected two distributions of one family, got {families}")
        if other.event_shape != self.event_shape:
            raise ValueError(f"expected equal event shapes, got {list(self.event_shape)}, {list(other.event_shape)}")
        if self._lengths is not None and other._lengths is not None:
            check_same_lengths(self._lengths, other._lengths)

    @abstractmethod
    def _cross_entropy(self, other: Self) -> Tensor:
        """:meth:`cross_entropy` as it is added up, in float64: E[−ln Q(y)], a sum of log-conditionals of Q.

        None of them is positive, so that no large number is taken from another, whatever the scale of the scores.
        """

    @property
    def log_count(self) -> Tensor:
        """ln of the number of labellings with a finite score, ``[*batch]`` (ln Z of the model with those scores 0)."""
        return self.map_scores(lambda s: torch.zeros_like(s).masked_fill(torch.isneginf(s), -torch.inf)).log_partition

    def tempered(self, temperature: float | Tensor | tuple[float, ...]) -> Self:
        """The distribution with all scores divided by ``temperature`` > 0.

        A tensor of temperatures broadcasts with the batch shape; what the batch shares is then written out per entry.
        A tuple has a number for each part of :attr:`scores`, as :func:`lnz.calibrate` finds them.

        Raises:
            TypeError, ValueError: a temperature of the wrong type or shape, or one that is not positive.
        """
        if isinstance(temperature, tuple):
            check_temperatures(temperature, len(self.scores) if isinstance(self.scores, tuple) else 1)
            each = iter(temperature)
            return self.map_scores(lambda scores: scores / next(each))
        check_temperature(temperature, self.batch_shape)
        if isinstance(temperature, Tensor) and temperature.dim():
            return self._map_entries(lambda scores, axes: divided(scores, temperature, axes))
        return self.map_scores(lambda scores: divided(scores, temperature, 0))

    def argmax(self) -> Tensor:
        """A best labelling ``[*batch, *event]``. Raises :class:`InfeasibleError` where there is none."""
        labels, scores = self.topk(1)
        if self._validate_args and concrete(scores) and torch.isneginf(scores[0]).any():
            self._require_feasible("argmax")  # which sees whether a sum is −inf, or out of the range of its dtype
        return labels[0]

    @property
    def mean(self) -> NoReturn:
        """Labels are names, not numbers: raises, and names what describes a distribution over labellings."""
        self._no_moment("mean")

    @property
    def variance(self) -> NoReturn:
        """As :attr:`mean`."""
        self._no_moment("variance")

    @property
    def stddev(self) -> NoReturn:
        """As :attr:`mean`."""
        self._no_moment("stddev")

    def _no_moment(self, what: str) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} has no {what}: labels are names, not numbers; use marginals (the expectation of "
            "labels' indicators), argmax() (the best labelling) or entropy() (how sure it is)"
        )

    @property
    def mode(self) -> Tensor:
        """The same as :meth:`argmax`."""
        return self.argmax()

    def sample(self, sample_shape: SampleShape = (), generator: torch.Generator | None = None) -> Tensor:
        """Independent labellings, ``[*sample_shape, *batch, *event]``."""
        check_generator(generator)
        shape = as_sample_shape(sample_shape)
        self._require_feasible("sample")
        n = shape.numel()
        with torch.no_grad():
            drawn = self._sample(max(n, 1), generator)[:n]  # to draw none, too, tells what cannot be drawn from
        return drawn.reshape(*shape, *drawn.shape[1:])


@register_kl(StructuredDistribution, StructuredDistribution)
def _kl(p: StructuredDistribution, q: StructuredDistribution) -> Tensor:
    p._check_comparable(q)
    difference = p._cross_entropy(q) - p._cross_entropy(p)  # sums of terms of one sign, in float64: no digits cancel
    return difference.to(torch.promote_types(p._dtype, q._dtype))
