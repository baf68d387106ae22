"""What ops over dependency trees take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import precision


class Arcs(NamedTuple):
    """B sentences of up to N words, each word of which has one head: another word, or the root 0.

    Attributes:
        scores: of arcs ``[B, N + 1, N + 1]``, [dependent, head]; −inf at those that are none: of dependent 0, of a word
            to itself, and over padding.
        lengths: the numbers of words, ``int64 [B]`` in 0 … N.
        single_root: whether exactly one word depends on the root; else at least one does.
    """

    scores: Tensor
    lengths: Tensor
    single_root: bool

    def wide(self) -> Arcs:
        """In the dtype that a reference runs in."""
        return self._replace(scores=self.scores.to(precision.accumulator(self.scores)))


class Pass(NamedTuple):
    """What one pass gives, as constants.

    Attributes:
        log_z: ln Z ``[B]``, in the dtype that it was computed in; −inf where there is no tree.
        marginals: P(arc) ``[B, N + 1, N + 1]``; 0 where there is no tree.
    """

    log_z: Tensor
    marginals: Tensor


class Trees(NamedTuple):
    """Trees and their scores.

    Attributes:
        heads: ``int64 [*, N + 1]``: 0 at entry 0, −100 over padding, and everywhere where there is no tree.
        scores: ``[*]``; −inf where there is no tree.
    """

    heads: Tensor
    scores: Tensor


class _Batch(NamedTuple):
    """The batched part of :class:`Arcs`."""

    scores: Tensor
    lengths: Tensor


def climb(run: Callable[[Arcs], Sequence[Tensor]], logarithms: Callable[[Arcs], Pass], arcs: Arcs) -> Pass:
    """The pass by ``run``, which also says which sentences are in range, and by ``logarithms`` of the others."""

    def kernel(some: _Batch) -> tuple[tuple[Tensor, ...], Tensor]:
        *results, in_range = run(Arcs(*some, arcs.single_root))
        return tuple(results), in_range

    def in_logs(some: _Batch) -> tuple[Tensor, ...]:
        return logarithms(Arcs(*some, arcs.single_root))

    return Pass(*precision.climb(_Batch(*arcs[:2]), kernel, None, in_logs).results)


def empty_pass(arcs: Arcs) -> Pass:
    """Room for a :class:`Pass`, of which only shapes and dtypes count."""
    scores = arcs.scores
    log_z = scores.new_empty(len(scores), dtype=precision.accumulator(scores))
    return Pass(log_z, torch.empty_like(scores, memory_format=torch.contiguous_format))


def empty_trees(arcs: Arcs) -> Trees:
    """Room for :class:`Trees`, of which only shapes and dtypes count."""
    scores = arcs.scores
    return Trees(
        arcs.lengths.new_empty(scores.shape[:2]), scores.new_empty(len(scores), dtype=precision.accumulator(scores))
    )


def gradient(weight: Tensor | None, arcs: Arcs, done: Pass, wanted: Sequence[bool]) -> list[Tensor]:
    """Σ_b weight_b · marginals of sentence b, as :class:`lnz.ops.scaffold.Differentiable` asks for it."""
    return [done.marginals if weight is None else weight[:, None, None] * done.marginals]


class TopK(NamedTuple):
    """Labelled arcs, ``scores [B, N + 1, N + 1, R]``, and how many trees are wanted; else as :class:`Arcs`."""

    scores: Tensor
    lengths: Tensor
    single_root: bool
    k: int


class Ranked(NamedTuple):
    """The k best trees, best first: heads and labels ``int64 [k, B, N + 1, 2]``, and scores ``[k, B]``.

    Both are −100, and −inf, beyond the number of trees.
    """

    heads: Tensor
    best: Tensor


class Uniform(NamedTuple):
    """Arcs, as :class:`Arcs`, and random numbers ``[n, B, N + 1]`` in [0, 1)."""

    scores: Tensor
    lengths: Tensor
    uniform: Tensor
    single_root: bool


class Drawn(NamedTuple):
    """Heads ``int64 [n, B, N + 1]``, as in :class:`Trees`."""

    heads: Tensor
