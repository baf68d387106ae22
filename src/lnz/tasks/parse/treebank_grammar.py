"""The grammar that is read off a treebank, and its best derivations: the baseline that needs no network.

Trees are charts, as :class:`lnz.io.ChartLabels` makes them. Symbols are the L labels, then for each label the part of
such a constituent that only binarisation puts in (so that what comes next depends on what the constituent is, not on
what came before), then the tags of words. Rules have the probabilities of their relative frequencies (Charniak 1996).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor

from lnz.ops.charts import ABSENT


class TreebankGrammar:
    """Relative frequencies of rules, as logarithms.

    Args:
        labels: L, the first of which is that of no constituent.
        tags: of words.
        rules: how often a symbol became two others.
        words: how often a symbol, that of a constituent of a single word, became a tag.
        roots: how often a sentence was of a symbol.
    """

    def __init__(
        self,
        labels: int,
        tags: Sequence[str],
        rules: Counter[tuple[int, int, int]],
        words: Counter[tuple[int, int]],
        roots: Counter[int],
    ) -> None:
        self.labels, self.tags = labels, {tag: k for k, tag in enumerate(tags)}
        self.symbols = 2 * labels + len(tags)
        uses: Counter[int] = Counter()
        for (symbol, *_), count in (*rules.items(), *words.items()):
            uses[symbol] += count
        self.parents, self.left, self.right = torch.tensor([*rules], dtype=torch.int64).reshape(-1, 3).unbind(1)
        self.log_rules = torch.tensor([math.log(count / uses[rule[0]]) for rule, count in rules.items()])
        pairs = torch.stack((self.left, self.right), 1).unique(dim=0, return_inverse=True)
        (self.pair_left, self.pair_right), self.pair = pairs[0].unbind(1), pairs[1]
        self.log_words = torch.full((self.symbols, len(tags)), -torch.inf)
        for (symbol, tag), count in words.items():
            self.log_words[symbol, tag] = math.log(count / uses[symbol])
        self.log_words[2 * labels :].fill_diagonal_(0.0)
        self.log_roots = torch.full((self.symbols,), -torch.inf)
        for symbol, count in roots.items():
            self.log_roots[symbol] = math.log(count / roots.total())

    @classmethod
    def of(cls, trees: Iterable[tuple[Tensor, Sequence[str]]], labels: int, tags: Sequence[str]) -> Self:
        """That of charts ``int64 [N, N]`` with the tags of their words."""
        number = {tag: k for k, tag in enumerate(tags)}
        rules, words, roots = Counter(), Counter(), Counter()
        for chart, own in trees:
            symbol_of: dict[tuple[int, int], int] = {}
            above: list[tuple[int, int, int]] = []  # spans that are open, and their labels
            spans: list[tuple[int, int]] = sorted((chart >= 0).nonzero().tolist(), key=lambda span: (span[0], -span[1]))
            for start, last in spans:
                while above and above[-1][1] < last:
                    above.pop()
                label = int(chart[start, last])
                inside = label or (above[-1][2] if above else 0)  # which constituent's it is, or part of
                above.append((start, last, inside))
                symbol_of[start, last] = label or labels + inside
                if start == last:
                    tag = number[own[start]]
                    if label:
                        words[label, tag] += 1
                    else:
                        symbol_of[start, last] = 2 * labels + tag
            longest: dict[int, int] = {}  # from each word on, of the spans seen so far
            for start, last in sorted(spans, key=lambda span: span[1] - span[0]):
                if start < last:
                    split = longest[start]
                    rules[symbol_of[start, last], symbol_of[start, split], symbol_of[split + 1, last]] += 1
                longest[start] = last
            roots[symbol_of[0, len(chart) - 1]] += 1
        return cls(labels, tags, rules, words, roots)

    def parse(self, tags: Sequence[str]) -> tuple[Tensor, float]:
        """A most probable chart ``int64 [N, N]`` and its log-probability; without constituents and −inf if none is.

        O(N³ R) time for R rules.
        """
        N, unknown = len(tags), len(self.tags)
        own = torch.tensor([self.tags.get(tag, unknown) for tag in tags])
        table = torch.nn.functional.pad(self.log_words, (0, 1), value=-torch.inf)  # a tag that training has not seen
        best = torch.full((N, N, self.symbols), -torch.inf)  # by first word and width
        best[:, 0] = table[:, own].T
        for w in range(1, N):
            scores = self._pairs(best, torch.arange(N - w), w).amax(1)[:, self.pair] + self.log_rules
            parents = self.parents.expand(N - w, -1)
            best[: N - w, w] = best[: N - w, w].scatter_reduce(1, parents, scores, "amax")
        whole = self.log_roots + best[0, N - 1]
        chart = torch.full((N, N), ABSENT)
        if torch.isneginf(whole).all():
            return chart, -math.inf
        stack = [(0, N - 1, int(whole.argmax()))]
        while stack:
            start, w, symbol = stack.pop()
            chart[start, start + w] = symbol if symbol < self.labels else 0
            if w:
                mine = (self.parents == symbol).nonzero().flatten()
                scores = self._pairs(best, torch.tensor([start]), w)[0][:, self.pair[mine]] + self.log_rules[mine]
                split, rule = divmod(int(scores.argmax()), len(mine))
                stack.append((start + split + 1, w - 1 - split, int(self.right[mine[rule]])))
                stack.append((start, split, int(self.left[mine[rule]])))
        return chart, float(whole.max())

    def _pairs(self, best: Tensor, start: Tensor, w: int) -> Tensor:
        """The best scores of pairs of symbols as parts of spans, by where these split: ``[P, w, pairs]``."""
        split = torch.arange(w)
        left = best[start[:, None], split][..., self.pair_left]
        return left + best[start[:, None] + split + 1, w - 1 - split][..., self.pair_right]
