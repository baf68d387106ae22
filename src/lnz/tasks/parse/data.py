"""The data of the parsing task: treebanks, or composed sentences of arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies
from lnz.tasks.loaders import SequenceLoaders
from lnz.tasks.parse.arithmetic import Arithmetic, sentences
from lnz.tasks.parse.structure import Name, Tags
from lnz.tasks.parse.structures import structure_of
from lnz.tasks.parse.text import TreeDataset, collator
from lnz.tasks.sentences import check_only_with_train, check_sizes, inventory, read_parts, sizes_of


class ParseLoaders(SequenceLoaders):
    """Batches of sentences with trees."""

    train: TreeDataset
    val: TreeDataset


class ParseData(ParseLoaders):
    """Sentences with trees. Without ``train``, composed sentences of arithmetic.

    No treebank comes with lnz, so the sentences are made up: ``3 + ? * ( 2 - 1 )``, whose trees brackets and the rule
    that times goes before plus decide; some symbols cannot be read. Everything is read and checked on construction,
    before training starts.

    Args:
        train: file of training sentences, of CoNLL-U for dependency trees, else of bracketed trees; may be gzipped.
            Without it, sentences of arithmetic are composed.
        val: such a file of validation sentences; without it, part of the training sentences is held out.
        val_fraction: share of the sentences held out where val is not given.
        structure: "dependency" or "constituency".
        tag_column: the columns of CoNLL-U with the words' tags, or tag, those of bracketed trees, which the parser is
            then given; by default, words come without tags.
        encoding: of the text in files, as latin-1 or gbk; by default UTF-8.
        min_count: words that occur less often in training are known by their characters only.
        projective: of dependency trees, whether training sentences whose arcs cross are left out, since the trees are
            to have none.
        single_root: of dependency trees, whether one word at most may hang under the root.
        batch_size: sentences per batch (and per process).
        num_workers: processes that load batches.
        arithmetic: how sentences are composed, where no train file is given.
        seed: what splits, order and sentences are drawn from.
    """

    def __init__(
        self,
        train: Path | None = None,
        *,
        val: Path | None = None,
        val_fraction: float = 0.1,
        structure: Name = "dependency",
        tag_column: Tags | None = None,
        encoding: str | None = None,
        min_count: int = 2,
        projective: bool = False,
        single_root: bool = True,
        batch_size: int = 32,
        num_workers: int = 0,
        arithmetic: Arithmetic = Arithmetic(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(batch_size=batch_size, min_count=min_count)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        kind = structure_of(structure)
        self.tag_column, self.composed, self.collate = tag_column, train is None, collator(kind)
        if kind.name != "dependency" and (projective or not single_root):
            raise ValueError(f"structure: projective and single_root are of dependency trees, got {structure}")
        given: list[Any]
        if train is None:
            check_only_with_train(val=val, tag_column=tag_column)
            given, held_out = (
                [kind.of_arithmetic(sentence) for sentence in sentences(arithmetic, part, seed)]
                for part in ("train", "val")
            )
            self.says, source = f"{len(given)} training and {len(held_out)} validation sentences of arithmetic", ""
        else:

            def read(path: Path) -> list[Any]:
                return kind.read(path, tag_column, single_root, True, encoding)

            given, held_out = read_parts(read, train, val, val_fraction, seed)
            source = str(train)
            given, left_out = projective_only(given, source) if projective else (given, "")
            self.says = sizes_of(given, held_out, train, val) + left_out
        self.labels = kind.labels(given, source)
        self.words, self.characters = inventory((sentence.tokens for sentence in given), min_count)
        self.tags = sorted({tag for sentence in given for tag in sentence.tags if tag is not None})
        self.train, self.val = (TreeDataset(kind, part, self.labels) for part in (given, held_out))


def projective_only(given: Sequence[Dependencies], source: str) -> tuple[list[Dependencies], str]:
    """The sentences whose arcs do not cross, and how many are left out, in words."""
    kept = [sentence for sentence in given if sentence.is_projective]
    if not kept:
        raise FormatError(f"{source}: expected sentences whose arcs do not cross, found none; leave out --projective")
    left = len(given) - len(kept)
    return kept, f"; left out of training: {left} whose arcs cross" if left else ""
