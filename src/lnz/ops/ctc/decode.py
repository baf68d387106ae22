"""Best alignments and samples: one forward recursion, one walk back along it.

The walk chooses the last state, then each state given the next one: the r-th best way to reach it (Viterbi 1967, and
its k-best form), or one drawn in proportion to its weight (forward filtering, backward sampling). O(B T S) time, times
k (log k) for the k best.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.choices import Choose, picked, ranked
from lnz.ops.columns import Columns
from lnz.ops.ctc.lattice import Lattice, as_single
from lnz.ops.ctc.records import KERNELS
from lnz.ops.ctc.reference import advance, arcs, begin, emissions, final_states, ways
from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.semirings import KMax, Log
from lnz.typing import IGNORE

HELD = 2**30


class _TopK(NamedTuple):
    scores: Tensor
    of: Lattice
    k: int


class _Best(NamedTuple):
    alignments: Tensor
    totals: Tensor


def topk(scores: Tensor, of: Lattice, k: int) -> tuple[Tensor, Tensor]:
    """The k best alignments ``int64 [k, B, T]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf.

    Scores are summed, and given, in float64, where the device has it: in float32, sums over thousands of frames no
    longer tell alignments apart.
    """
    return TOPK(_TopK(as_single(scores), of, k))


def _topk(given: _TopK) -> _Best:
    scores, of, k = given
    viterbi = KERNELS.find("viterbi", scores) if k == 1 and scores.numel() else None
    if viterbi is not None:
        return _Best(*(x.unsqueeze(0) for x in viterbi(scores, of)))
    rank = torch.arange(k, device=scores.device)[:, None].expand(k, len(scores))
    states, totals = _walk(_columns(KMax(k), scores, of), of, rank, ranked)
    return _Best(_classes(states, of).masked_fill(torch.isneginf(totals)[..., None], IGNORE), totals)


def _topk_fake(given: _TopK) -> _Best:
    (B, T, _), k = given.scores.shape, given.k
    return _Best(given.of.labels.new_empty(k, B, T), given.scores.new_empty(k, B, dtype=accumulator(given.scores)))


TOPK = Operator("ctc_topk", _topk, _topk_fake, _TopK, _Best, axes={"alignments": Axis(1), "totals": Axis(1)})


class _Uniform(NamedTuple):
    scores: Tensor
    of: Lattice
    uniform: Tensor


class _Drawn(NamedTuple):
    alignments: Tensor


def sample(scores: Tensor, of: Lattice, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent alignments, n of them, ``int64 [n, B, T]``."""
    shape, dtype = (n, *scores.shape[:2], 2), accumulator(scores)
    uniform = torch.rand(shape, dtype=dtype, device=scores.device, generator=generator)
    return SAMPLE(_Uniform(scores, of, uniform)).alignments


def _sample(given: _Uniform) -> _Drawn:
    """By random numbers ``[n, B, T, 2]`` in [0, 1): where a path ends, and how it came there."""
    of, rounds = given.of, iter(given.uniform.flatten(2).unbind(2))

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        nowhere = torch.isneginf(candidates).all(-1, keepdim=True)
        return candidates[..., 0], picked(candidates.masked_fill(nowhere, 0.0).softmax(-1), next(rounds))

    rank = torch.zeros(given.uniform.shape[:2], dtype=torch.int64, device=given.scores.device)
    return _Drawn(_classes(_walk(_columns(Log(), given.scores, of), of, rank, drawn)[0], of))


def _sample_fake(given: _Uniform) -> _Drawn:
    return _Drawn(given.of.labels.new_empty(given.uniform.shape[:3]))


SAMPLE = Operator(
    "ctc_sample", _sample, _sample_fake, _Uniform, _Drawn, axes={"uniform": Axis(1), "alignments": Axis(1)}
)


def _columns(semiring: Log | KMax, scores: Tensor, of: Lattice) -> Columns:
    """α_0 … α_T, ``[K, B, states]``: all of it, or, past :data:`HELD` bytes, about 2 √T columns at a time."""
    k = semiring.k if isinstance(semiring, KMax) else 1
    B, T, _ = scores.shape
    like = scores.new_empty(0, dtype=accumulator(scores))
    whole, between = 8 * k * B * T * (2 * of.labels.shape[1] + 1) <= HELD, arcs(like, of)
    padding = torch.arange(T, device=scores.device) >= of.lengths[:, None]

    def step(alpha: Tensor, t: int) -> Tensor:
        frame = scores[:, t : t + 1].to(like.dtype).masked_fill(padding[:, t, None, None], 0.0)
        return advance(semiring, alpha, emissions(frame, of)[:, 0], between)

    first = begin(like, of)
    return Columns(first[None] if isinstance(semiring, Log) else semiring.lift(first), step, T, whole)


def _walk(alphas: Columns, of: Lattice, rank: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    """M paths of states ``[M, B, T]``, −1 over padding, from α_t ``[K, B, states]``; the scores ``[M, B]`` of the ends.

    ``rank`` ``[M, B]`` starts as which of the candidates to take for the last state; from there on, it is the place
    among the K ways to reach the chosen state, so that different ranks make different paths.
    """
    (M, B), T = rank.shape, len(alphas) - 1
    like = alphas[T]
    between, last, count = arcs(like, of), final_states(like, of), like.shape[2]
    states = torch.full((M, B, T), -1, device=like.device)
    scores = torch.where((of.target_lengths == 0) & (rank == 0), 0.0, -torch.inf).to(like.dtype)  # of no frames at all
    state = torch.zeros(M, B, dtype=torch.int64, device=like.device)
    for t in range(T, 0, -1):
        ends = (alphas[t] + last).movedim(0, 1).flatten(1).expand(M, B, -1)  # [M, B, K · states]
        score, index = choose(ends, rank)
        at_end = of.lengths == t
        scores = torch.where(at_end, score, scores)
        state = torch.where(at_end, index % count, state)
        rank = torch.where(at_end, index // count, rank)
        inside = of.lengths >= t
        states[..., t - 1] = torch.where(inside, state, -1)
        come = ways(alphas[t - 1], between)  # [K, B, states, 3]: three arcs, K ways along each
        chosen = come.movedim(0, 1)[None].expand(M, *[-1] * 4)
        at = state[..., None, None, None].expand(M, B, len(come), 1, 3)
        _, index = choose(chosen.gather(3, at).flatten(2), rank)
        state = torch.where(inside, (state - index % 3).clamp(min=0), state)  # below 0 only where nothing is possible
        rank = torch.where(inside, index // 3, rank)
    return states, scores


def _classes(states: Tensor, of: Lattice) -> Tensor:
    """The classes of states ``[M, B, T]``; −100 for −1."""
    if of.labels.shape[1]:
        label = of.labels.expand(len(states), -1, -1).gather(-1, (states // 2).clamp(0, of.labels.shape[1] - 1))
    else:
        label = torch.full_like(states, of.blank)
    return torch.where(states < 0, IGNORE, torch.where(states % 2 == 1, label, of.blank))
