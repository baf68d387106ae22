"""Dependency trees as a structure of the parsing task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from lnz import plot
from lnz.distributions import DependencyTree, Softmax
from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies, read_dependencies, rewrite_dependencies, write_dependencies
from lnz.io.sentences import format_of, read_sentences
from lnz.io.shards import Kind
from lnz.nn import DependencyParser
from lnz.tasks.parse import greedy
from lnz.tasks.parse.arithmetic import Sentence as Composed
from lnz.tasks.parse.dependency_measures import DependencyMeasures
from lnz.tasks.parse.structure import Structure, Tags
from lnz.typing import IGNORE


class Dependency(Structure):
    """A head and a relation of every word, in CoNLL-U files; trees are ``int64 [N + 1, 2]``."""

    name = "dependency"
    files = "CoNLL-U"
    rules = "Attachment by the rules of CoNLL 2018"
    score = "las"
    axes = 1
    columns: ClassVar[Mapping[str, Kind]] = {"tokens": "texts", "heads": "integers", "relations": "texts"}
    picture_says = "trees of some sentences: predicted arcs above, gold arcs that were missed below"

    def read(
        self, path: Path, tag_column: Tags | None, single_root: bool, trees: bool, encoding: str | None
    ) -> list[Dependencies]:
        if tag_column == "tag":
            raise ValueError("data.tag_column: expected columns of CoNLL-U, such as upos or upos+xpos, got tag")
        if trees or format_of(path) == "conllu":
            return read_dependencies(
                path, tag_column=tag_column, single_root=single_root, trees=trees, encoding=encoding
            )
        if tag_column is not None:
            raise FormatError(f"{path}: expected CoNLL-U with tags ({tag_column}), which the parser was trained with")
        plain = read_sentences(path, tag_column=None, encoding=encoding)
        nothing = [(None,) * len(each) for each in plain]
        return [Dependencies(s.tokens, no, no, no, s.lines) for s, no in zip(plain, nothing, strict=True)]

    def of_arithmetic(self, sentence: Composed) -> Dependencies:
        return sentence.dependencies

    def labels(self, sentences: Sequence[Dependencies], source: str) -> list[str]:
        found = {
            relation
            for sentence in sentences
            for head, relation in zip(sentence.heads, sentence.relations, strict=True)
            if head is not None and relation is not None
        }
        if not found:
            raise FormatError(f"{source}: expected words with heads and relations, found none that has both")
        return sorted(found)

    def encode(self, sentence: Dependencies, labels: Sequence[str]) -> Tensor:
        number = {relation: k for k, relation in enumerate(labels)}
        arcs = zip(sentence.heads, sentence.relations, strict=True)
        known = [(IGNORE if head is None else head, number.get(relation or "", IGNORE)) for head, relation in arcs]
        return torch.tensor([(0, 0), *known])

    def decode(self, sentence: Dependencies, tree: Tensor, labels: Sequence[str]) -> Dependencies:
        arcs = tree[1 : len(sentence) + 1].tolist()
        heads, relations = tuple(head for head, _ in arcs), tuple(labels[relation] for _, relation in arcs)
        return replace(sentence, heads=heads, relations=relations)

    def gold(self, sentence: Dependencies) -> tuple[str | None, ...]:
        return sentence.relations

    def parser(self, encoder: nn.Module, labels: Sequence[str], settings: Mapping[str, Any]) -> DependencyParser:
        return DependencyParser(
            encoder,
            len(labels),
            projective=settings["projective"],
            single_root=settings["single_root"],
            arc_width=settings["arc_width"],
            label_width=settings["label_width"],
            dropout=settings["dropout"],
        )

    def measures(self, labels: Sequence[str], settings: Mapping[str, Any]) -> DependencyMeasures:
        return DependencyMeasures(labels, settings["single_root"])

    def greedy_nll(self, parser: DependencyParser, batch: Mapping[str, Any]) -> Tensor:
        return greedy.arcs_nll(parser, batch, batch["trees"])

    def greedy(self, parser: DependencyParser, batch: Mapping[str, Any]) -> Softmax:
        return greedy.arc_softmax(parser, batch)

    def greedy_gold(self, trees: Tensor, lengths: Tensor, labels: Sequence[str]) -> Tensor:
        return greedy.arc_places(trees, len(labels))

    def greedy_beliefs(self, p: Softmax, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return greedy.arc_beliefs(p, lengths)

    def beliefs(self, p: DependencyTree, by: str) -> tuple[Tensor, Tensor]:
        return p.minimum_bayes_risk() if by == "mbr" else p.argmax(), p.marginals

    def says(self, settings: Mapping[str, Any]) -> str:
        shape = "projective dependency trees" if settings["projective"] else "dependency trees of any shape"
        return f"{shape}, {'one word' if settings['single_root'] else 'any number of words'} under the root"

    def picture(self, pairs: Sequence[tuple[Dependencies, Dependencies]]) -> Figure:
        return plot.dependency_trees(
            [plot.Parse(gold.tokens, gold.heads, gold.relations, found.heads, found.relations) for gold, found in pairs]
        )

    def row(self, sentence: Dependencies) -> dict[str, Any]:
        return {"tokens": sentence.tokens, "heads": sentence.heads, "relations": sentence.relations}

    def write(self, source: Path, output: Path, sentences: Sequence[Dependencies], encoding: str | None) -> None:
        if format_of(source) == "conllu":
            rewrite_dependencies(source, output, sentences, encoding)
        else:
            write_dependencies(output, sentences)
