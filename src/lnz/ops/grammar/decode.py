"""Best derivations and samples: an inside recursion, and a walk down from the whole sentence.

The walk takes a span of a nonterminal from its stack, and chooses where it splits and into which two symbols: the r-th
best way, or one drawn in proportion to its weight. Derivations are ``int64 [B, N, N]``: the nonterminal of a span at
its first and last word, preterminals on the diagonal, −1 where there is none, −100 over padding. Shapes as in
:mod:`lnz.ops.grammar.reference`.

``lnz::grammar_topk`` and ``lnz::grammar_sample`` have no gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lnz.ops import precision
from lnz.ops.charts import no_constituents
from lnz.ops.choices import Choose, picked, ranked
from lnz.ops.grammar.records import SHARED, Grammar
from lnz.ops.grammar.reference import centred, inside, leaves
from lnz.ops.scaffold import Operator
from lnz.ops.scaffold.batch import Axis
from lnz.semirings import KMax, Log, Semiring
from lnz.typing import IGNORE

_AT_ONCE = 2**24  # candidates of splits that are looked at together


class _TopK(NamedTuple):
    preterminals: Tensor
    root: Tensor
    rules: Tensor
    allowed: Tensor
    lengths: Tensor
    k: int


class _Best(NamedTuple):
    labels: Tensor
    totals: Tensor


def topk(given: Grammar, k: int) -> tuple[Tensor, Tensor]:
    """The k best ``int64 [k, B, N, N]`` and their scores ``[k, B]``; beyond the possible ones −100 and −inf."""
    return TOPK(_TopK(*given, k))


def _topk(given: _TopK) -> _Best:
    grammar, k, dtype = Grammar(*given[:5]).wide(), given.k, given.preterminals.dtype
    grammar, offset = centred(grammar)
    words = leaves(grammar).unsqueeze(0)
    words = torch.cat((words, torch.full_like(words, -torch.inf).expand(k - 1, -1, -1, -1)))
    rank = torch.arange(k, device=words.device)[:, None].expand(k, words.shape[2])
    labels, totals = _walk(KMax(k), words, grammar, rank, ranked)
    impossible = torch.isneginf(totals)[..., None, None]
    return _Best(labels.masked_fill(impossible, IGNORE), (totals + offset).to(dtype))


def _topk_fake(given: _TopK) -> _Best:
    B, N = given.preterminals.shape[:2]
    return _Best(given.lengths.new_empty(given.k, B, N, N), given.preterminals.new_empty(given.k, B))


_ONE_AXIS_IN = {"labels": Axis(1), "totals": Axis(1), "uniform": Axis(1)}
TOPK = Operator("grammar_topk", _topk, _topk_fake, _TopK, _Best, axes=SHARED | _ONE_AXIS_IN)


class _Uniform(NamedTuple):
    preterminals: Tensor
    root: Tensor
    rules: Tensor
    allowed: Tensor
    lengths: Tensor
    uniform: Tensor


class _Drawn(NamedTuple):
    labels: Tensor


def sample(given: Grammar, n: int, generator: torch.Generator | None) -> Tensor:
    """Independent derivations, n of them, ``int64 [n, B, N, N]``."""
    dtype, device = precision.accumulator(given.preterminals), given.preterminals.device
    B, N = given.preterminals.shape[:2]
    uniform = torch.rand(n, B, max(1, N), dtype=dtype, device=device, generator=generator)
    return SAMPLE(_Uniform(*given, uniform)).labels


def _sample(given: _Uniform) -> _Drawn:
    """By random numbers ``[n, B, N]`` in [0, 1): for the symbol of the sentence, then for each split of the walk."""
    grammar, _ = centred(Grammar(*given[:5]).wide())
    words, n = leaves(grammar).unsqueeze(0), len(given.uniform)
    size = words.shape[2] * words.shape[3] * words.shape[1] ** 2
    found = [_draw(words, grammar, some) for some in given.uniform.split(max(1, _AT_ONCE // max(1, size)))]
    return _Drawn(torch.cat(found) if n else given.lengths.new_empty(0, *words.shape[2:], words.shape[3]))


def _draw(words: Tensor, grammar: Grammar, uniform: Tensor) -> Tensor:
    rounds = iter(uniform.unbind(2))

    def drawn(candidates: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
        return candidates.amax(-1), picked(candidates.softmax(-1), next(rounds))

    rank = torch.zeros(uniform.shape[:2], dtype=torch.int64, device=words.device)
    return _walk(_Single(), words, grammar, rank, drawn)[0]


def _sample_fake(given: _Uniform) -> _Drawn:
    (n, B), N = given.uniform.shape[:2], given.preterminals.shape[1]
    return _Drawn(given.lengths.new_empty(n, B, N, N))


SAMPLE = Operator("grammar_sample", _sample, _sample_fake, _Uniform, _Drawn, axes=SHARED | _ONE_AXIS_IN)


class _Single(Log):
    """The log semiring with an axis of one candidate in front."""

    k = 1

    def lift(self, scores: Tensor) -> Tensor:
        return scores.unsqueeze(0)


def _walk(
    semiring: KMax | _Single, words: Tensor, given: Grammar, rank: Tensor, choose: Choose
) -> tuple[Tensor, Tensor]:
    """M derivations ``[M, B, N, N]``, and their totals ``[M, B]``.

    Args:
        semiring: of the inside recursion, whose elements are the K best, or the one sum.
        words: elements of single words ``[K, S, B, N]``.
        given: the grammar.
        rank: ``[M, B]``, which of the candidates to take for the whole sentence; from there on, the rank of a symbol of
            a span is its place among the ways to be that, so that different ranks make different derivations.
        choose: among candidates, by rank.
    """
    (M, B), (K, S, _, N), device = rank.shape, words.shape, words.device
    NT, lengths = given.root.shape[1], given.lengths
    y = no_constituents(M, N, lengths)
    totals = torch.where((rank == 0) & (lengths == 0), 0.0, -torch.inf).to(words)
    if not N:
        return y, totals
    chart = _table(semiring, words, given)  # [K, S, B, N, N] by first word and width
    first, second = (torch.as_tensor(i, device=device) for i in KMax(semiring.k).ranks(K, K))
    entry, at = torch.arange(B, device=device), torch.arange(N, device=device)
    own = entry if len(given.rules) > 1 else torch.zeros_like(entry)

    whole = chart[:, :NT, entry, 0, (lengths - 1).clamp(min=0)] + given.root.mT  # [K, NT, B]
    score, chosen = choose(whole.flatten(0, 1).mT.expand(M, B, -1), rank)
    totals = torch.where(lengths > 0, score, totals)
    active = torch.isfinite(totals) & (lengths > 1)
    symbol, r = chosen % NT, chosen // NT
    stack = torch.zeros(4, M, B, N + 2, dtype=torch.int64, device=device)  # first words, widths, symbols, ranks
    stack[1, ..., 0], stack[2, ..., 0], stack[3, ..., 0] = lengths - 1, symbol, r
    y = _entered(y, torch.zeros_like(r), (lengths - 1).expand(M, B), symbol, active)
    height = active.long()
    for _ in range(N - 1):
        active = height > 0
        top = (height - 1).clamp(min=0)
        i, w, a, r = stack.gather(-1, top.expand(4, M, B).unsqueeze(-1)).squeeze(-1).where(active, 0)
        here, last = i.unsqueeze(-1), w.unsqueeze(-1)
        left = chart[:, :, entry[:, None], here, at]  # [K, S, M, B, N]
        right = chart[:, :, entry[:, None], (here + at + 1).clamp(max=N - 1), (last - 1 - at).clamp(min=0)]
        ways = left[first].unsqueeze(2) + right[second].unsqueeze(1)  # [pairs, S, S, M, B, N]
        ways = ways + given.rules[own, a].movedim((2, 3), (0, 1)).unsqueeze(-1)
        ways = ways.masked_fill(at >= last, -torch.inf).movedim((3, 4), (0, 1)).flatten(2)
        _, chosen = choose(ways, r)
        split, chosen = chosen % N, chosen // N
        b, c, pair = chosen // S % S, chosen % S, chosen // (S * S)
        height = height - active.long()
        for child in ((i + split + 1, w - 1 - split, c, second[pair]), (i, split, b, first[pair])):
            y = _entered(y, *child[:2], torch.where(child[1] > 0, child[2], child[2] - NT), active)
            more = active & (child[1] > 0)
            place = height.expand(4, M, B).unsqueeze(-1)
            stack = stack.scatter(-1, place, torch.stack(child).unsqueeze(-1))  # beyond the height, if it is a word
            height = height + more.long()
    return y, totals


def _entered(y: Tensor, i: Tensor, w: Tensor, label: Tensor, where: Tensor) -> Tensor:
    """Labellings with a label at spans of w + 1 words from i on."""
    flat, place = y.flatten(2), (torch.where(where, i * y.shape[-1] + i + w, 0)).unsqueeze(-1)
    label = torch.where(where.unsqueeze(-1), label.unsqueeze(-1), flat.gather(-1, place))
    return flat.scatter(-1, place, label).view_as(y)


def _table(semiring: Semiring, words: Tensor, given: Grammar) -> Tensor:
    """β ``[K, S, B, N, N]`` by first word and width."""
    N = words.shape[-1]
    chart = inside(semiring, words, given)
    return torch.stack([torch.nn.functional.pad(x, (0, N - x.shape[-1]), value=-torch.inf) for x in chart], -1)
