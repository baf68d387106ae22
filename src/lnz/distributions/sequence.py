"""What distributions over sequences share: differences of sums are rounded once, padding is never looked at.

ln Z, s(y) and expectations of scores grow with the number of steps and with any constant on the scores; ln P(y), the
entropy and divergences do not. So the sums are kept in float64 (:func:`lnz.ops.precision.accumulator`), and what
is left of their difference is rounded to the dtype of the scores.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from lnz.checks import broadcast_shapes, check_scores, check_tensor, concrete, largest
from lnz.distributions.base import StructuredDistribution
from lnz.ops.precision import accumulator


class SequenceDistribution(StructuredDistribution):
    """A distribution over the labels of the steps of a sequence. The members named *wide* are in float64."""

    @property
    @abstractmethod
    def _wide_log_partition(self) -> Tensor:
        """ln Z ``[*batch]``."""

    @abstractmethod
    def _wide_score(self, y: Tensor) -> Tensor:
        """s(y) of a full labelling ``[*batch]``."""

    def _from_offset(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """s(y) and ln Z less what all labellings may have in common, wide."""
        return self._wide_score(y), self._wide_log_partition

    @property
    @abstractmethod
    def _dtype(self) -> torch.dtype:
        """The dtype of the scores, and of all answers."""

    def _relative_score(self, y: Tensor) -> Tensor:
        return self._wide_score(y)

    @property
    def log_partition(self) -> Tensor:
        return self._wide_log_partition.to(self._dtype)

    def score(self, y: Tensor) -> Tensor:
        return self._wide_score(y).to(self._dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        check_tensor("y", value)
        if self._far and not self._unobserved(value).any():
            return self._log_prob_by_conditionals(value)
        return self._log_prob_by_difference(value)

    def _log_prob_by_difference(self, value: Tensor) -> Tensor:
        check_tensor("y", value)
        if concrete(value) and not self._unobserved(value).any():
            numerator, z = self._from_offset(value)
        else:
            numerator, z = self.condition(value)._wide_log_partition, self._wide_log_partition
        return (numerator - z.masked_fill(torch.isneginf(z), 0.0)).to(self._dtype)  # −inf already where Z = 0

    def _cross_entropy(self, other: Self) -> Tensor:
        self._require_feasible("entropy")
        if other is self:
            return self._wide_entropy
        shape = broadcast_shapes(self.batch_shape, other.batch_shape)
        return self.expand(shape)._wide_cross_entropy(other.expand(shape), self._far or other._far)

    @property
    @abstractmethod
    def _wide_entropy(self) -> Tensor:
        """−Σ_y P(y) ln P(y) ``[*batch]``, where a labelling is possible."""

    @abstractmethod
    def _wide_cross_entropy(self, other: Self, by_conditionals: bool) -> Tensor:
        """−Σ_y P(y) ln Q(y) ``[*batch]``, Q of ``other``, of the same batch shape.

        ln Z of Q less expected scores; or where these are large, ``by_conditionals`` of Q, at O(T L²) memory.
        """

    def _total(self) -> Tensor:
        return self._wide_log_partition


def without_padding(
    name: str, scores: Tensor, inside: Callable[[], Tensor] | None, *, values: bool, axes: int
) -> Tensor:
    """``scores``, with 0 over padding where that may be NaN or infinite: neither it nor its gradient is looked at.

    Raises as :func:`lnz.checks.check_scores`, by what is not padding.

    Args:
        name: of the scores.
        scores: ``[*batch, …]``, or shared by some of the batch.
        inside: what is not padding, bool ``[*batch, …]``, of size 1 where it does not depend on an axis; ``None`` where
            nothing is padding.
        values: whether the scores are to be checked.
        axes: of the scores, behind those of the batch.
    """
    check_scores(name, scores, values=values and inside is None)
    top = None if inside is None else largest(scores)
    if inside is None or not scores.numel() or (top is not None and math.isfinite(top)):
        return scores
    within = _as_shared(inside(), scores.shape, axes)
    if values and concrete(scores):
        check_scores(name, scores.detach().where(within, 0.0))
    return scores.where(within, 0.0)


def _as_shared(inside: Tensor, shape: torch.Size, axes: int) -> Tensor:
    """``inside`` as it broadcasts with scores of this shape: of what some of the batch share, what any of it uses."""
    batch, own = inside.dim() - axes, len(shape) - axes
    for axis in range(batch):
        at = axis + own - batch
        if at < 0 or shape[at] == 1:
            inside = inside.any(axis, keepdim=True)
    return inside.reshape(inside.shape[max(0, batch - own) :])


def gathered(table: Tensor, index: Tensor) -> Tensor:
    """``table [*shape, n]`` at ``index [*shape]``, in the dtype to add up in."""
    return table.gather(-1, index.unsqueeze(-1)).squeeze(-1).to(accumulator(table))


def centred(scores: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """``scores`` less the largest along the last ``axes``, and that, as a constant; 0 where none is possible.

    Added up from there, scores of several kinds keep the digits in which labels differ.
    """
    top = scores.detach().amax([*range(-axes, 0)], keepdim=True) if scores.numel() else scores.new_zeros([1] * axes)
    top = top.masked_fill(torch.isneginf(top), 0.0)
    return scores - top, top.flatten(-axes).squeeze(-1).to(accumulator(scores))


def total_over_steps(values: Tensor, number: Tensor, steps: int, shared: bool) -> Tensor:
    """Σ of the first ``number [*batch]`` of ``values [*batch, steps]``, or of one for all steps if ``shared``."""
    if shared:
        return number.clamp(min=0) * (values if not values.dim() else values[..., 0])
    used = torch.arange(steps, device=number.device) < number.unsqueeze(-1)
    return torch.where(used, values, 0.0).sum(-1)


def expected_scores(
    expectation: Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]], Tensor],
    p: tuple[Tensor, Tensor, Tensor],
    scores: tuple[Tensor, Tensor],
) -> Tensor:
    """E[Σ of the scores of the parts of y] ``[B]`` under ``p``; −inf where a possible labelling has a score of −inf.

    Args:
        expectation: of finite values of the parts, given scores and lengths.
        p: scores of nodes or segments, of edges, and lengths, with one batch axis.
        scores: of nodes or segments, and of edges.
    """
    banned = tuple(torch.isneginf(each) for each in scores)
    finite = tuple(each.masked_fill(none, 0.0) for each, none in zip(scores, banned, strict=True))
    expected = expectation(*p, finite)  # type: ignore[arg-type]
    if concrete(*banned) and not any(each.any() for each in banned):
        return expected
    with torch.no_grad():
        lost = expectation(*p, tuple(each.to(p[0].dtype) for each in banned)) > 0  # type: ignore[arg-type]
    return expected.masked_fill(lost, -torch.inf)
