"""Dependency trees of any shape: the matrix-tree theorem (Tutte 1984), by an elimination that subtracts nothing.

Scores are ``[B, N + 1, N + 1]``, [dependent, head], lengths ``[B]``. Z is the determinant of a Laplacian, which loses
all digits where scores range widely. Here words are eliminated one by one (Grassmann, Taksar & Heyman 1985): word k
with head weights w(k, ·), of sum s, leaves a smaller sentence in which every word d that might hang under k may hang
under any head h of k instead, with weight w(d, k) w(k, h) / s; and Z is the product of all s. A word would hang under
itself: those are no trees, and are left out.

With one dependent of the root, s is over words alone, but for the last word that is left. O(N³) time, in N steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.arcs.records import Trees
from lnz.semirings import Log
from lnz.typing import IGNORE


def log_partition(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """ln Z ``[B]`` in the dtype of ``scores``."""
    B, M, _ = scores.shape
    words, entry = torch.arange(M, device=scores.device), torch.arange(B, device=scores.device)
    left = (words > 0) & (words <= lengths[:, None])  # which words are left
    w, log_z = scores, scores.new_zeros(B)
    for _ in range(M - 1):
        alone = left.sum(1) == 1
        to_root = (words == 0) & (alone[:, None] | (not single_root))
        heads = (left | to_root)[:, None] & (words[:, None] != words)
        sums = Log().plus(w.masked_fill(~heads, -torch.inf), -1)
        order = torch.nan_to_num(sums.detach(), neginf=torch.finfo(sums.dtype).min)
        k = order.masked_fill(~left, -torch.inf).argmax(1)  # one that has a head, where there is any
        total = sums[entry, k]
        log_z = log_z + torch.where(left.any(1), total, 0.0)
        share = w[entry, k] - total.masked_fill(torch.isneginf(total), 0.0)[:, None]
        through = w[entry, :, k][:, :, None] + share[:, None, :]
        left = left & (words != k[:, None])
        wanted = left[:, :, None] & (left | (words == 0))[:, None] & (words[:, None] != words)
        w = Log().plus(torch.stack((w, through.masked_fill(~wanted, -torch.inf)), -1), -1)
    return log_z


def marginals(scores: Tensor, lengths: Tensor, single_root: bool) -> Tensor:
    """P(arc) ``[B, N + 1, N + 1]``; 0 where there is no tree."""

    def summed(x: Tensor) -> tuple[Tensor, Tensor]:
        log_z = log_partition(x, lengths, single_root)
        return log_z.sum(), log_z

    found, log_z = torch.func.grad(summed, has_aux=True)(scores)
    return found.masked_fill(torch.isneginf(log_z)[:, None, None], 0.0)


def best_tree(scores: Tensor, lengths: Tensor, single_root: bool) -> Trees:
    """Best trees by Edmonds' contraction of cycles (1967), in plain Python; weights are (−root's arcs, score)."""
    heads = torch.full(scores.shape[:2], IGNORE, dtype=torch.int64)
    best = torch.full(lengths.shape, -torch.inf, dtype=scores.dtype)
    for b, (rows, n) in enumerate(zip(scores.tolist(), lengths.tolist(), strict=True)):
        arcs = {
            (d, h): (-1.0 if single_root and h == 0 else 0.0, rows[d][h])
            for d in range(1, n + 1)
            for h in range(n + 1)
            if h != d and rows[d][h] > -torch.inf
        }
        tree = _edmonds(arcs, n)
        if tree is not None and not (single_root and n and list(tree.values()).count(0) != 1):
            heads[b, : n + 1] = torch.tensor([0, *(tree[d] for d in range(1, n + 1))])
            best[b] = sum(rows[d][h] for d, h in tree.items())
    return Trees(heads.to(scores.device), best.to(scores.device))


def _edmonds(arcs: dict[tuple[int, int], tuple[float, float]], n: int) -> dict[int, int] | None:
    """The head of each word 1 … n in the best tree of weighted ``arcs`` (dependent, head), if there is one."""
    contracted, words, fresh = [], set(range(1, n + 1)), n + 1
    while True:
        heads: dict[int, int] = {}
        for (d, h), weight in arcs.items():
            if d not in heads or weight > arcs[d, heads[d]]:
                heads[d] = h
        if len(heads) < len(words):
            return None
        cycle = _cycle(heads)
        if not cycle:
            break
        joined: dict[tuple[int, int], tuple[float, float]] = {}
        origin: dict[tuple[int, int], tuple[int, int]] = {}
        for (d, h), (roots, score) in arcs.items():
            if d in cycle and h in cycle:
                continue
            place = (fresh if d in cycle else d, fresh if h in cycle else h)
            lost = arcs[d, heads[d]] if d in cycle else (0.0, 0.0)
            weight = roots - lost[0], score - lost[1]
            if place not in joined or weight > joined[place]:
                joined[place], origin[place] = weight, (d, h)
        contracted.append((heads, cycle, origin))
        words, arcs, fresh = (words - cycle) | {fresh}, joined, fresh + 1
    for inner, cycle, origin in reversed(contracted):
        heads = dict(origin[arc] for arc in heads.items())
        heads |= {d: inner[d] for d in cycle if d not in heads}
    return heads


def _cycle(heads: dict[int, int]) -> set[int]:
    """The words of a cycle, if there is one."""
    hanging = {0}
    for start in heads:
        path = []
        word = start
        while word not in hanging and word not in path:
            path.append(word)
            word = heads[word]
        if word not in hanging:
            return set(path[path.index(word) :])
        hanging.update(path)
    return set()
