"""Grammars in Chomsky normal form, in the log domain: the recursion as it is on paper, for any device and dtype.

A derivation of n words has a binary tree: the whole sentence is of nonterminal a with score root(a); a span of
nonterminal a splits into symbols b and c with score rules(a, b, c); a word is of preterminal p with preterminals(i, p).
Symbols are the NT nonterminals, then the PT preterminals: spans of a word are of the latter, longer ones of the former.

    β(i, j, a) = ln Σ_{b, c} exp(rules(a, b, c) + ln Σ_{i ≤ k < j} exp(β(i, k, b) + β(k + 1, j, c)))
    ln Z = ln Σ_a exp(root(a) + β(0, n − 1, a))

Charts are as in :mod:`lnz.ops.charts`, with the symbols in front: ``[S, B, N − w]``. O(B (N³ S² + N² NT S²)) time.
Without words there is one derivation, the empty one: ln Z = 0; of a single word there is none: ln Z = −inf.

Source: Baker 1979; Lari & Young 1990.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnz.ops.charts import by_width, of_sentences, parts
from lnz.ops.grammar.records import Grammar
from lnz.semirings import Log, Semiring


def log_partition(given: Grammar) -> Tensor:
    """ln Z ``[B]``."""
    grammar, offset = centred(given)
    symbols = of_sentences(inside(Log(), leaves(grammar), grammar), given.lengths)
    z = Log().plus(grammar.root.mT + symbols[: grammar.root.shape[1]], -2) if len(symbols.shape) > 1 else symbols
    return torch.where(given.lengths == 0, 0.0, z) + offset


def expected_counts(given: Grammar) -> tuple[Tensor, Tensor, Tensor]:
    """How often scores of preterminals, root and rules are used, each per sentence: the derivative of ln Z."""
    B = len(given.preterminals)
    preterminals, root, rules = given[:3]
    each = preterminals, root.expand(B, -1), rules.expand(B, -1, -1, -1)
    rest = given.allowed, given.lengths

    def total(preterminals: Tensor, root: Tensor, rules: Tensor) -> Tensor:
        return log_partition(Grammar(preterminals, root, rules, *rest)).sum()

    return torch.func.grad(total, argnums=(0, 1, 2))(*each)


def centred(given: Grammar) -> tuple[Grammar, Tensor]:
    """Scores less the largest of each kind, −inf over padding; and what derivations lose by that, a constant ``[B]``.

    Beside scores of 1e38 the logarithm of the number of derivations would be lost.
    """
    preterminals, root, rules, _, n = given
    words = torch.arange(preterminals.shape[1], device=n.device) < n[:, None]
    preterminals = preterminals.where(words.unsqueeze(-1), -torch.inf)
    tops = [_top(preterminals), _top(root), _top(rules)]
    pairs = zip((preterminals, root, rules), tops, strict=True)
    preterminals, root, rules = (x - top.view(-1, *[1] * (x.dim() - 1)) for x, top in pairs)
    offset = n * tops[0] + tops[1] + (n - 1) * tops[2]
    return given._replace(preterminals=preterminals, root=root, rules=rules), torch.where(n > 0, offset, 0.0)


def _top(scores: Tensor) -> Tensor:
    if not scores.numel():
        return scores.new_zeros(len(scores))
    top = scores.detach().flatten(1).amax(1)
    return top.masked_fill(torch.isneginf(top), 0.0)


def leaves(given: Grammar) -> Tensor:
    """Elements of single words ``[S, B, N]``: −inf for nonterminals."""
    words = given.preterminals.movedim(-1, 0)
    nonterminals = torch.full_like(words[:1], -torch.inf).expand(given.root.shape[1], -1, -1)
    return torch.cat((nonterminals, words))


def inside(semiring: Semiring, words: Tensor, given: Grammar) -> list[Tensor]:
    """β by width ``[…, S, B, N − w]``, from elements of single words."""
    rules = semiring.lift(given.rules.movedim(0, -1).unsqueeze(-1))  # [NT, S, S, B or 1, 1]
    banned = banned_by_width(given)
    chart: list[Tensor] = []
    for w, (left, right) in zip(range(words.shape[-1]), parts(chart), strict=False):
        if not w:
            chart.append(words)
            continue
        pairs = semiring.plus(semiring.times(left.unsqueeze(-4), right.unsqueeze(-5)), -1)
        ways = semiring.times(rules, pairs.unsqueeze(-5)).flatten(-4, -3)
        spans = semiring.plus(ways, -3)
        spans = spans if banned is None else spans.masked_fill(banned[w], -torch.inf)
        nothing = torch.full_like(spans[..., :1, :, :], -torch.inf)
        chart.append(torch.cat((spans, nothing.expand(*spans.shape[:-3], given.preterminals.shape[-1], -1, -1)), -3))
    return chart


def banned_by_width(given: Grammar) -> list[Tensor] | None:
    """Which nonterminals spans may not be, by width ``[NT, B or 1, N − w]``."""
    if given.allowed.shape[1] != given.preterminals.shape[1]:
        return None
    return [~each.movedim(-1, 0) for each in by_width(given.allowed)]
