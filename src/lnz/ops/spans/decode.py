"""Best trees and samples: an inside recursion, and a walk down from the whole sentence.

The walk takes a span from its stack, chooses its label, then where it splits: the r-th best way, or one drawn in
proportion to its weight. Trees are ``int64 [B, N, N]``: the label of a constituent at its first and last word, −1 where
there is none (below the diagonal, too), −100 over padding. Shapes as in :mod:`lnz.ops.spans.reference`; the best tree
and samples are the kernels' in O(N³) time, the k best the reference's, in k log k times that.

``lnz::spans_topk`` and ``lnz::spans_sample`` have no gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.charts import by_width, no_constituents, parts
from lnz.ops.choices import Choose, picked, ranked
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.ops.spans.op import KERNELS
from lnz.ops.spans.records import Spans
from lnz.ops.spans.reference import inside
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE


class _TopK(NamedTuple):
    scores: Tensor
    lengths: Tensor
    k: int


class _Best(NamedTuple):
    labels: Tensor
    totals: Tensor


def topk(given: Spans, k: int) -> tuple[Tensor, Tensor]:
    """The k best ``int64 [k, B, N, N]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf."""
    return TOPK(_TopK(*given, k))


def _topk(given: _TopK) -> _Best:
    spans, k, dtype = Spans(*given[:2]), given.k, given.scores.dtype
    viterbi = KERNELS.find("viterbi", spans.scores) if k == 1 and spans.scores.numel() else None
    if viterbi is not None:
        labels, best = viterbi(spans)
        return _Best(labels.unsqueeze(0), best.unsqueeze(0).to(dtype))
    scores, lengths = spans.wide()
    size = min(k, scores.shape[-1])
    own, label = scores.topk(size, -1)
    nothing = (0, k - size) if k > size else (0, 0)
    own, label = (torch.nn.functional.pad(x, nothing, value=v) for x, v in ((own, -torch.inf), (label, 0)))
    kinds = KMax(k).ranks(k, k)
    rank = torch.arange(k, device=scores.device)[:, None].expand(k, len(scores))
    trees, totals = _walk(own.movedim(-1, 0), _Ways(KMax(k), kinds, kinds), lengths, rank, ranked)
    labels = label.movedim(-1, 0).gather(0, trees.clamp(min=0)) if trees.numel() else trees
    labels = torch.where(trees < 0, trees, labels)
    return _Best(labels.masked_fill(torch.isneginf(totals)[..., None, None], IGNORE), totals.to(dtype))


def _topk_fake(given: _TopK) -> _Best:
    B, N = given.scores.shape[:2]
    return _Best(given.lengths.new_empty(given.k, B, N, N), given.scores.new_empty(given.k, B))


TOPK = Operator("spans_topk", _topk, _topk_fake, _TopK, _Best, axes={"labels": Axis(1), "totals": Axis(1)})


class _Uniform(NamedTuple):
    scores: Tensor
    lengths: Tensor
    uniform: Tensor


class _Drawn(NamedTuple):
    labels: Tensor


def sample(given: Spans, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent trees, n of them, ``int64 [n, B, N, N]``."""
    dtype, device = precision.accumulator(given.scores), given.scores.device
    B, N = given.scores.shape[:2]
    uniform = torch.rand(n, B, 2 * N, 2, dtype=dtype, device=device, generator=generator)
    return SAMPLE(_Uniform(*given, uniform)).labels


def _sample(given: _Uniform) -> _Drawn:
    """By random numbers ``[n, B, 2 N, 2]`` in [0, 1): for the t-th span of the walk, its label and its split."""
    run = KERNELS.find("sample", given.scores) if given.scores.numel() else None
    if run is None:
        return _Drawn(*_sample_in_logs(given))

    def kernel(some: _Uniform) -> tuple[tuple[Tensor, ...], Tensor]:
        labels, in_range = run(Spans(*some[:2]), some.uniform.contiguous())
        return (labels,), in_range

    axes = {"inputs_at": (0, 0, 1), "results_at": (1,)}
    return _Drawn(*precision.climb(given, kernel, None, _sample_in_logs, **axes).results)


def _sample_in_logs(given: _Uniform) -> tuple[Tensor]:
    scores, lengths = Spans(*given[:2]).wide()
    rounds = iter(given.uniform.flatten(2).unbind(2))

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        return candidates[..., 0], picked(candidates.softmax(-1), next(rounds))

    M, B, L = *given.uniform.shape[:2], scores.shape[-1]
    rank = torch.zeros(M, B, dtype=torch.int64, device=scores.device)
    ways = _Ways(_Single(), (range(L), [0] * L), ([0], [0]))
    return (_walk(scores.movedim(-1, 0), ways, lengths, rank, drawn)[0],)


def _sample_fake(given: _Uniform) -> _Drawn:
    (n, B), N = given.uniform.shape[:2], given.scores.shape[1]
    return _Drawn(given.lengths.new_empty(n, B, N, N))


SAMPLE = Operator("spans_sample", _sample, _sample_fake, _Uniform, _Drawn, axes={"uniform": Axis(1), "labels": Axis(1)})


class _Single(Log):
    """The log semiring over elements ``[1, …]``, labels of spans being ``[L, …]``."""

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.plus(a.movedim(0, -1), -1).unsqueeze(0) if len(a) > 1 else a) + b


class _Ways(NamedTuple):
    """The semiring, and which pairs of candidates a choice is among: of labels and splits, of left and right parts."""

    semiring: KMax | _Single
    labels: tuple[Sequence[int], Sequence[int]]
    children: tuple[Sequence[int], Sequence[int]]


def _walk(own: Tensor, ways: _Ways, lengths: Tensor, rank: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    """M trees ``[M, B, N, N]`` of places among A labels, from their scores ``[A, B, N, N]``; and totals ``[M, B]``.

    ``rank [M, B]`` is which of the candidates to take for the whole sentence; from there on, the rank of a span is its
    place among the ways to be what it is, so that different ranks make different trees. A round does one span each.
    """
    (M, B), N, device = rank.shape, own.shape[-1], own.device
    words = torch.arange(N, device=device)
    y = no_constituents(M, N, lengths)
    totals = torch.where(rank == 0, 0.0, -torch.inf).to(own)
    if not N:
        return y, totals
    inner, chart = _tables(own, ways.semiring)
    pairs = (torch.as_tensor(places, device=device) for places in (*ways.labels, *ways.children))
    label_at, inner_at, left_at, right_at = pairs
    entry = torch.arange(B, device=device)
    stack = torch.zeros(3, M, B, N + 1, dtype=torch.int64, device=device)  # first words, widths, ranks
    stack[1, ..., 0], stack[2, ..., 0] = lengths - 1, rank
    height = (lengths > 0).long().expand(M, B)
    for t in range(2 * N - 1):
        active = height > 0
        top = (height - 1).clamp(min=0)
        i, w, r = stack.gather(-1, top.expand(3, M, B).unsqueeze(-1)).squeeze(-1)
        i, w = i.where(active, 0), w.where(active, 0)
        candidates = own[label_at[:, None, None], entry, i, i + w] + inner[inner_at[:, None, None], entry, i, w]
        score, chosen = choose(candidates.movedim(0, -1), r)
        if t == 0:
            totals = torch.where(active, score, totals)
            active = active & ~torch.isneginf(totals if len(inner) > 1 else candidates.amax(0))  # none is that good
            height = height.where(active, 0)
        place = (i * N + i + w).unsqueeze(-1)
        flat, label = y.flatten(2), label_at[chosen].unsqueeze(-1)
        y = flat.scatter(-1, place, torch.where(active.unsqueeze(-1), label, flat.gather(-1, place))).view_as(y)

        here, last = i.unsqueeze(-1), w.unsqueeze(-1)
        left = chart[:, entry[:, None], here, words]
        right = chart[:, entry[:, None], (here + words + 1).clamp(max=N - 1), (last - 1 - words).clamp(min=0)]
        candidates = (left[left_at] + right[right_at]).masked_fill(words >= last, -torch.inf)
        _, chosen = choose(candidates.movedim(0, 2).flatten(2), inner_at[chosen])
        split, pair = chosen % N, chosen // N
        right = torch.stack((i + split + 1, w - 1 - split, right_at[pair]))
        left = torch.stack((i, split, left_at[pair]))
        places = torch.stack((top, top + 1), -1).clamp(max=N).expand(3, M, B, 2)  # the right part is taken last
        stack = stack.scatter(-1, places, torch.stack((right, left), -1))
        height = height + torch.where(active, torch.where(w > 0, 1, -1), 0)
    return y, totals


def _tables(own: Tensor, semiring: KMax | _Single) -> tuple[Tensor, Tensor]:
    """The ways below spans and these times their labels, ``[K, B, N, N]`` by first word and width."""
    N, K = own.shape[-1], len(own) if isinstance(semiring, KMax) else 1
    labels = [each.movedim(-1, 0) for each in by_width(own.movedim(0, -1))]
    single = torch.full_like(own[:K, :, 0], -torch.inf)  # a word is there in one way
    single[0] = 0.0
    chart = inside(semiring, [semiring.times(labels[0], single), *labels[1:]])
    below = [semiring.plus(semiring.times(left, right), -1) if w else single
             for w, (left, right) in zip(range(N), parts(chart), strict=False)]  # fmt: skip

    def square(table: list[Tensor]) -> Tensor:
        padded = [torch.nn.functional.pad(each, (0, N - each.shape[-1]), value=-torch.inf) for each in table]
        return torch.stack(padded, -1)

    return square(below), square(chart)
