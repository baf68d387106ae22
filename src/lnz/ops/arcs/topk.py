"""The k best dependency trees, with or without labels, by asking for the best one of what is left.

After the best tree the others are split by the first word at which they differ from it (Lawler 1972; Murty 1968): of
each part the best tree is found, and the best of these is the next one, whose part is split in turn. Camerini, Fratta &
Maffioli (1980) find the runner-up of a part without splitting it, for trees with any number of roots.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops.arcs.records import Arcs, Ranked, TopK, Trees
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.typing import IGNORE


class _Part(NamedTuple):
    """Trees that agree with ``tree [N + 1, 2]`` (heads and labels) before ``word``, where they have none of ``banned``.

    ``tree`` is the best of them. The heap takes the part whose tree has the lowest ``cost``, the first that was made.
    """

    cost: float
    number: int
    tree: Tensor
    word: int
    banned: Tensor


def topk_operator(name: str, best: Callable[[Arcs], Trees]) -> Operator[TopK, Ranked]:
    """``lnz::name``: the k best trees of labelled arcs, heads and labels ``[k, B, N + 1, 2]``, scores ``[k, B]``.

    ``best`` finds the best trees of unlabelled arcs. O(k N) such searches per sentence.
    """
    axes = {"heads": Axis(1), "best": Axis(1)}

    def compute(arcs: TopK) -> Ranked:
        return _of_batch(best, arcs)

    def fake(arcs: TopK) -> Ranked:
        B, M = arcs.scores.shape[:2]
        return Ranked(arcs.lengths.new_empty(arcs.k, B, M, 2), arcs.scores.new_empty(arcs.k, B))

    return Operator(name, compute, fake, TopK, Ranked, axes=axes)


def _of_batch(best: Callable[[Arcs], Trees], arcs: TopK) -> Ranked:
    (B, M), k = arcs.scores.shape[:2], arcs.k
    heads = arcs.lengths.new_full((k, B, M, 2), IGNORE)
    scores = arcs.scores.new_full((k, B), -torch.inf)
    for b in range(B):
        n = int(arcs.lengths[b])
        found = _k_best(best, arcs.scores[b, : n + 1, : n + 1], arcs.single_root, k)
        for rank, (cost, _, tree, *_) in enumerate(found):
            heads[rank, b, : n + 1], scores[rank, b] = tree, -cost
    return Ranked(heads, scores)


def _k_best(best: Callable[[Arcs], Trees], scores: Tensor, single_root: bool, k: int) -> list[_Part]:
    """Those of one sentence, ``scores [n + 1, n + 1, R]``."""
    nothing = torch.zeros(scores.shape[1:], dtype=torch.bool, device=scores.device)
    none = torch.zeros(len(scores), 2, dtype=torch.int64, device=scores.device)
    queue = _search(best, scores, single_root, none, [(min(1, len(scores) - 1), nothing)], 0)
    found: list[_Part] = []
    while queue and len(found) < k:
        part = heapq.heappop(queue)
        found.append(part)
        pieces = []
        for word in range(max(1, part.word), len(scores)):
            banned = part.banned.clone() if word == part.word else nothing.clone()
            banned[tuple(part.tree[word])] = True
            pieces.append((word, banned))
        if len(found) < k and pieces:
            for piece in _search(best, scores, single_root, part.tree, pieces, len(found) * len(scores)):
                heapq.heappush(queue, piece)
    return found


def _search(
    best: Callable[[Arcs], Trees],
    scores: Tensor,
    single_root: bool,
    tree: Tensor,
    pieces: list[tuple[int, Tensor]],
    number: int,
) -> list[_Part]:
    """The best trees of ``pieces``, which agree with ``tree`` before a word and ban arcs of it; in one search."""
    M = len(scores)
    tops, labels = (each.repeat(len(pieces), 1, 1) for each in scores.max(-1))  # [pieces, M, M]
    places = torch.arange(M, device=scores.device)
    for i, (word, banned) in enumerate(pieces):
        tops[i, word], labels[i, word] = scores[word].masked_fill(banned, -torch.inf).max(-1)
        kept = places[1:word]
        heads, relations = tree[1:word].unbind(-1)
        tops[i, 1:word] = -torch.inf
        tops[i, kept, heads], labels[i, kept, heads] = scores[kept, heads, relations], relations
    lengths = torch.full((len(pieces),), M - 1, dtype=torch.int64, device=scores.device)
    found = best(Arcs(tops, lengths, single_root))
    parts = []
    for i, (word, banned) in enumerate(pieces):
        if found.scores[i] > -torch.inf:
            heads = found.heads[i]
            relations = labels[i, places, heads]
            relations[0] = 0
            parts.append(_Part(-float(found.scores[i]), number + i, torch.stack((heads, relations), -1), word, banned))
    return parts
