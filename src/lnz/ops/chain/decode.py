"""Best labellings, samples and max-marginals of linear chains.

One forward recursion and one walk back along it, which chooses the last label, then each label given the next one: the
r-th best way to reach it (Viterbi 1967, and its k-best form), or one drawn in proportion to its weight (forward
filtering, backward sampling). Shapes as in :mod:`lnz.ops.chain.reference`. O(B T L²) time; for the k best O(B T k L)
more where the kernels do, times k (log k) elsewhere.

``lnz::chain_topk``, ``lnz::chain_sample`` and ``lnz::chain_max_marginals`` have no gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.chain import reference
from lnz.ops.chain.op import KERNELS, SHARED
from lnz.ops.chain.records import Chains, with_ends
from lnz.ops.chain.reference import forward, scores_into
from lnz.ops.choices import ranked
from lnz.ops.precision import accumulator
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.semirings import KMax
from lnz.typing import IGNORE

RANKED = Axis(1)
ENDS = {"ends": Axis(None)}  # the same for all chains


class _TopK(NamedTuple):
    node: Tensor
    edge: Tensor
    lengths: Tensor
    ends: Tensor
    k: int


class _Best(NamedTuple):
    labels: Tensor
    scores: Tensor


def topk(chains: Chains, k: int, ends: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k best labellings ``int64 [k, B, T]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf.

    ``ends [2, L]`` are on top of the scores of the first and of the last label.
    """
    if ends is None:  # one for all samples of vmap, as new_zeros would not be
        ends = torch.zeros(2, chains.node.shape[-1], dtype=chains.node.dtype, device=chains.node.device)
    return TOPK(_TopK(*chains, ends, k))


def _topk(given: _TopK) -> _Best:
    chains, k = Chains(*given[:3]), given.k
    viterbi = KERNELS.find("viterbi", *chains[:2]) if k == 1 and chains.has_steps else None
    if viterbi is not None:
        labels, scores = viterbi(chains, given.ends)
        return _Best(labels.unsqueeze(0), scores.unsqueeze(0).to(chains.node.dtype))
    if given.ends.any():
        chains = chains._replace(node=with_ends(chains.node, chains.lengths, *given.ends))
    several = KERNELS.find("topk", *chains[:2]) if chains.has_steps else None
    labels, scores = (several or topk_by_reference)(chains, k)
    return _Best(labels, scores.to(chains.node.dtype))


def topk_by_reference(chains: Chains, k: int) -> tuple[Tensor, Tensor]:
    """:func:`topk` in plain torch, the scores in the dtype of the recursion."""
    node, edge, lengths = chains.wide()
    rank = torch.arange(k, device=node.device)[:, None].repeat(1, len(node))
    labels, scores = _walk(forward(KMax(k), node, edge), edge, lengths, rank)
    scores = torch.where(lengths == 0, torch.where(rank == 0, 0.0, -torch.inf), scores)
    return labels.masked_fill(torch.isneginf(scores)[..., None], IGNORE), scores


def _topk_fake(given: _TopK) -> _Best:
    B, T, _ = given.node.shape
    return _Best(given.lengths.new_empty(given.k, B, T), given.node.new_empty(given.k, B))


TOPK = Operator(
    "chain_topk", _topk, _topk_fake, _TopK, _Best, axes=SHARED | ENDS | {"labels": RANKED, "scores": RANKED}
)


class _Uniform(NamedTuple):
    node: Tensor
    edge: Tensor
    lengths: Tensor
    uniform: Tensor


class _Drawn(NamedTuple):
    labels: Tensor


def sample(chains: Chains, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent labellings, n of them, ``int64 [n, B, T]``."""
    node = chains.node
    shape, wide = (n, *node.shape[:2]), accumulator(node)
    uniform = torch.rand(shape, dtype=wide, device=node.device, generator=generator)
    return SAMPLE(_Uniform(*chains, uniform)).labels


def _sample(given: _Uniform) -> _Drawn:
    """By random numbers ``[n, B, T]`` in [0, 1)."""
    scores = given[:2]
    run = KERNELS.find("sample", *scores) if given.node.numel() else None
    if run is None and (direct := KERNELS.find("sample_in_any_range", *scores)) is not None and given.node.numel():
        return _Drawn(direct(Chains(*given[:3]), given.uniform))
    if run is None:
        return _Drawn(*_sample_in_logs(given))

    def kernel(some: _Uniform) -> tuple[tuple[Tensor, ...], Tensor]:
        labels, in_range = run(Chains(*some[:3]), some.uniform.contiguous())
        return (labels,), in_range

    double = None if given.node.dtype == torch.float64 else kernel
    axes = {"inputs_at": (0, 0, 0, 1), "results_at": (1,)}
    return _Drawn(*precision.climb(given, kernel, double, _sample_in_logs, **axes).results)


def _sample_in_logs(given: _Uniform) -> tuple[Tensor]:
    chains = Chains(*given[:3])
    run = KERNELS.find("sample_in_logs", *chains[:2]) if chains.has_steps else None
    return ((run or reference.sample)(*chains.wide(), given.uniform.contiguous()),)


def _sample_fake(given: _Uniform) -> _Drawn:
    return _Drawn(given.lengths.new_empty(given.uniform.shape))


SAMPLE = Operator(
    "chain_sample", _sample, _sample_fake, _Uniform, _Drawn, axes=SHARED | {"uniform": RANKED, "labels": RANKED}
)


class _Parts(NamedTuple):
    node: Tensor
    edge: Tensor
    lengths: Tensor
    of_edges: bool


class _Largest(NamedTuple):
    scores: Tensor


def max_marginals(chains: Chains) -> Tensor:
    """As :func:`lnz.ops.chain.reference.max_marginals`, in the dtype of the scores."""
    return MAX_MARGINALS(_Parts(*chains, False)).scores


def edge_max_marginals(chains: Chains) -> Tensor:
    """As :func:`lnz.ops.chain.reference.edge_max_marginals`, in the dtype of the scores."""
    return MAX_MARGINALS(_Parts(*chains, True)).scores


def _max_marginals(given: _Parts) -> _Largest:
    chains = Chains(*given[:3])
    run = KERNELS.find("max_marginals", *chains[:2]) if chains.has_steps else None
    if run is not None:
        return _Largest(run(chains, given.of_edges))
    of = reference.edge_max_marginals if given.of_edges else reference.max_marginals
    return _Largest(of(*chains.wide()).to(given.node.dtype))


def _max_marginals_fake(given: _Parts) -> _Largest:
    B, T, L = given.node.shape
    shape = (B, max(0, T - 1), L, L) if given.of_edges else (B, T, L)
    return _Largest(given.node.new_empty(shape))


MAX_MARGINALS = Operator("chain_max_marginals", _max_marginals, _max_marginals_fake, _Parts, _Largest, axes=SHARED)


def _walk(alphas: list[Tensor], edge: Tensor, lengths: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """M labellings ``[M, B, T]`` from α_t ``[K, B, L]``, and the scores ``[M, B]`` of the last choices.

    ``rank`` ``[M, B]`` starts as which of the candidates to take for the last label; from there on, it is the place
    among the K ways to reach the chosen label, so that different ranks make different labellings.
    """
    labels = torch.full((*rank.shape, len(alphas)), IGNORE, device=edge.device)
    scores = torch.zeros(rank.shape, dtype=accumulator(edge), device=edge.device)
    for t in reversed(range(len(alphas))):
        candidates = alphas[t].movedim(0, 1).unsqueeze(0).expand(len(rank), -1, -1, -1)  # [M, B, K, L]
        if t + 1 < len(alphas):
            candidates = candidates + scores_into(edge, t, lengths, labels[..., t + 1]).unsqueeze(-2)
        score, index = ranked(candidates.flatten(-2), rank)
        inside = lengths > t
        size = candidates.shape[-1]
        labels[..., t] = torch.where(inside, index % size, IGNORE)
        rank = torch.where(inside, index // size, rank)
        scores = torch.where(lengths == t + 1, score, scores)
    return labels, scores
