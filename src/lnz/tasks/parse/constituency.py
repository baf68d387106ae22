"""Constituency trees as a structure of the parsing task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from matplotlib.figure import Figure
from torch import Tensor, nn

from lnz import plot
from lnz.distributions import ConstituencyTree, Softmax
from lnz.errors import FormatError
from lnz.io.sentences import format_of, read_sentences
from lnz.io.shards import Kind
from lnz.io.tree_charts import ChartLabels
from lnz.io.trees import Constituent, Tree, read_trees, write_trees
from lnz.metrics.trees import Brackets, brackets
from lnz.nn import SpanParser
from lnz.nn.span_parser import minimum_bayes_risk
from lnz.tasks.parse import greedy
from lnz.tasks.parse.arithmetic import Sentence as Composed
from lnz.tasks.parse.constituency_measures import ConstituencyMeasures
from lnz.tasks.parse.structure import Examples, Structure, Tags
from lnz.tasks.parse.treebank_grammar import TreebankGrammar
from lnz.typing import IGNORE

TOP = "TOP"
"""The label of what has none, as whole sentences may."""


@dataclass(frozen=True)
class Bracketed:
    """A sentence with its constituents.

    Attributes:
        tokens: its words.
        own_tags: of the words; ``None`` of words without one.
        spans: the constituents but for the tags, each before those inside it, the whole first.
        tagged: whether the parser is given the tags.
    """

    tokens: tuple[str, ...]
    own_tags: tuple[str | None, ...]
    spans: tuple[Constituent, ...]
    tagged: bool = False

    @classmethod
    def of(cls, tree: Tree, tagged: bool) -> Bracketed:
        """The innermost constituent of each word alone is its tag."""
        last = {each.start: place for place, each in enumerate(tree.constituents) if each.stop == each.start + 1}
        own = set(last.values())
        tags = tuple(tree.constituents[last[word]].label if word in last else None for word in range(len(tree.words)))
        whole = Constituent(TOP, 0, len(tree.words))
        rest = [
            each if each.label else each._replace(label=TOP)
            for place, each in enumerate(tree.constituents)
            if place not in own
        ]
        return cls(tree.words, tags, tuple(rest or [whole]), tagged)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def tags(self) -> tuple[str | None, ...]:
        """What the parser is given."""
        return self.own_tags if self.tagged else (None,) * len(self)

    @property
    def constituents(self) -> tuple[Constituent, ...]:
        """All, tags too, each before those inside it."""
        tags = [Constituent(tag, word, word + 1) for word, tag in enumerate(self.own_tags) if tag is not None]
        return tuple(sorted((*self.spans, *tags), key=lambda each: (each.start, -each.stop)))

    @property
    def tree(self) -> Tree:
        return Tree(self.tokens, self.constituents)


class Constituency(Structure):
    """Labelled spans, in files of bracketed trees; trees are labellings ``[N, N]`` of :class:`lnz.ConstituencyTree`.

    A label is a unary chain with spaces between, ``S VP``; the first one, of no constituent, is empty.
    """

    name = "constituency"
    files = "bracketed trees"
    rules = "F1 of brackets by EVALB's rules (COLLINS.prm)"
    score = "f1"
    axes = 2
    columns: ClassVar[Mapping[str, Kind]] = {"tokens": "texts", "tree": "text"}
    picture_says = "trees of some sentences: predicted constituents above, gold ones that were missed below"

    def read(
        self, path: Path, tag_column: Tags | None, single_root: bool, trees: bool, encoding: str | None
    ) -> list[Bracketed]:
        if tag_column not in (None, "tag"):
            raise ValueError(f"data.tag_column: expected tag, since bracketed trees have no columns, got {tag_column}")
        if not trees and format_of(path) in ("text", "parquet"):
            if tag_column is not None:
                raise FormatError(f"{path}: expected bracketed trees with tags, which the parser was trained with")
            plain = read_sentences(path, tag_column=None, encoding=encoding)
            whole = [(Constituent(TOP, 0, len(each)),) for each in plain]
            return [Bracketed(s.tokens, s.tags, top) for s, top in zip(plain, whole, strict=True)]
        found = [Bracketed.of(tree, tag_column is not None) for tree in read_trees(path, encoding)]
        for number, sentence in enumerate(found, 1):
            for token, tag in zip(sentence.tokens, sentence.own_tags, strict=True):
                if tag is None:
                    raise FormatError(f"{path}, tree {number}: expected a tag of every word, found none of {token!r}")
        return found

    def of_arithmetic(self, sentence: Composed) -> Bracketed:
        return Bracketed.of(sentence.tree, tagged=False)

    def labels(self, sentences: Sequence[Bracketed], source: str) -> list[str]:
        chains = ChartLabels.of(Tree(sentence.tokens, sentence.spans) for sentence in sentences).chains
        return ["", *sorted(" ".join(chain) for chain in chains[1:])]

    def encode(self, sentence: Bracketed, labels: Sequence[str]) -> Tensor:
        return _chart_labels(tuple(labels)).encode(Tree(sentence.tokens, sentence.spans), unknown=IGNORE)

    def decode(self, sentence: Bracketed, tree: Tensor, labels: Sequence[str]) -> Bracketed:
        found = _chart_labels(tuple(labels)).decode(tree, sentence.tokens, TOP)
        return replace(sentence, spans=found.constituents)

    def gold(self, sentence: Bracketed) -> list[tuple[str, int, int]]:
        return [(label, start, stop) for label, start, stop in sentence.constituents]

    def parser(self, encoder: nn.Module, labels: Sequence[str], settings: Mapping[str, Any]) -> SpanParser:
        return SpanParser(encoder, len(labels), hidden=settings["span_width"], dropout=settings["dropout"])

    def measures(self, labels: Sequence[str], settings: Mapping[str, Any]) -> ConstituencyMeasures:
        return ConstituencyMeasures(labels)

    def greedy_nll(self, parser: SpanParser, batch: Mapping[str, Any]) -> Tensor:
        return greedy.spans_nll(parser, batch, batch["trees"])

    def greedy(self, parser: SpanParser, batch: Mapping[str, Any]) -> Softmax:
        return greedy.span_softmax(parser, batch)

    def greedy_gold(self, trees: Tensor, lengths: Tensor, labels: Sequence[str]) -> Tensor:
        return greedy.span_places(trees, lengths)

    def greedy_beliefs(self, p: Softmax, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return greedy.span_beliefs(p, lengths)

    def beliefs(self, p: ConstituencyTree, by: str) -> tuple[Tensor, Tensor]:
        return minimum_bayes_risk(p) if by == "mbr" else p.argmax(), p.marginals

    def baseline(self, train: Examples, val: Examples, labels: Sequence[str], tags: Sequence[str]) -> dict[str, float]:
        """Of the grammar that is read off the training trees; none without tags."""
        if not tags:
            return {}
        known = zip(train.trees, train.sentences, strict=True)
        grammar = TreebankGrammar.of(((chart, sentence.tags) for chart, sentence in known), len(labels), tags)
        total = Brackets()
        for sentence in val.sentences:
            found = self.decode(sentence, grammar.parse(sentence.tags)[0], labels)
            total += brackets(self.gold(sentence), self.gold(found))
        return {"f1": total.f1, "tree": 1.0}

    def says(self, settings: Mapping[str, Any]) -> str:
        return "binary trees of labelled spans"

    def picture(self, pairs: Sequence[tuple[Bracketed, Bracketed]]) -> Figure:
        return plot.constituency_trees([(gold.tokens, gold.spans, found.spans) for gold, found in pairs])

    def row(self, sentence: Bracketed) -> dict[str, Any]:
        return {"tokens": sentence.tokens, "tree": str(sentence.tree)}

    def write(self, source: Path, output: Path, sentences: Sequence[Bracketed], encoding: str | None) -> None:
        write_trees(output, (sentence.tree for sentence in sentences))


@lru_cache(maxsize=8)
def _chart_labels(labels: tuple[str, ...]) -> ChartLabels:
    return ChartLabels(tuple(tuple(label.split(" ")) if label else () for label in labels))
