"""The data of the parsing task: treebanks in CoNLL-U files, or composed sentences of arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies, TagColumn, read_dependencies
from lnz.tasks.loaders import SequenceLoaders, split
from lnz.tasks.parse.arithmetic import Arithmetic, sentences
from lnz.tasks.parse.text import Inventory, TreeDataset, collate, inventory


class ParseLoaders(SequenceLoaders):
    """Batches of sentences with trees."""

    train: TreeDataset
    val: TreeDataset


class ParseData(ParseLoaders):
    """Sentences with dependency trees. Without ``train``, composed sentences of arithmetic.

    No treebank comes with lnz, so the sentences are made up: ``3 + ? * ( 2 - 1 )``, whose trees brackets and the rule
    that times goes before plus decide; some symbols cannot be read. Everything is read and checked on construction,
    before training starts.

    Args:
        train: CoNLL-U file of training sentences; may be gzipped. Without it, sentences of arithmetic are composed.
        val: CoNLL-U file of validation sentences; without it, part of the training sentences is held out.
        val_fraction: share of the sentences held out where val is not given.
        tag_column: the columns of the words' tags, which the parser is given; by default, words come without tags.
        encoding: of the text in files, as latin-1 or gbk; by default UTF-8.
        min_count: words that occur less often in training are known by their characters only.
        projective: whether training sentences whose arcs cross are left out, since the trees are to have none.
        single_root: whether one word at most may hang under the root.
        batch_size: sentences per batch (and per process).
        num_workers: processes that load batches.
        arithmetic: how sentences are composed, where no train file is given.
        seed: what splits, order and sentences are drawn from.
    """

    inventory: Inventory

    def __init__(
        self,
        train: Path | None = None,
        *,
        val: Path | None = None,
        val_fraction: float = 0.1,
        tag_column: TagColumn | None = None,
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
        for name, value in {"batch_size": batch_size, "min_count": min_count}.items():
            if value < 1:
                raise ValueError(f"data.{name}: expected a positive integer, got {value}")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.tag_column, self.composed, self.collate = tag_column, train is None, collate
        if train is None:
            for name, value in {"val": val, "tag_column": tag_column}.items():
                if value is not None:
                    raise ValueError(f"data.{name}: needs data.train, the file of the training sentences")
            given, held_out = (sentences(arithmetic, part, seed) for part in ("train", "val"))
            self.says, source = f"{len(given)} training and {len(held_out)} validation sentences of arithmetic", ""
        else:

            def read(path: Path) -> list[Dependencies]:
                return read_dependencies(path, tag_column=tag_column, single_root=single_root, encoding=encoding)

            given, held_out, source = read(train), read(val) if val else [], str(train)
            if not val:
                given, held_out = split(given, val_fraction, seed)
            given, left_out = projective_only(given, source) if projective else (given, "")
            self.says = f"{len(given)} training and {len(held_out)} validation sentences of {train.name}" + (
                f" and {val.name}" if val else ""
            )
            self.says += left_out
        self.inventory = inventory(given, min_count, source)
        self.train, self.val = (TreeDataset(part, self.inventory.relations) for part in (given, held_out))

    @property
    def words(self) -> list[str]:
        return self.inventory.words

    @property
    def characters(self) -> list[str]:
        return self.inventory.characters

    @property
    def tags(self) -> list[str]:
        return self.inventory.tags

    @property
    def relations(self) -> list[str]:
        return self.inventory.relations


def projective_only(given: Sequence[Dependencies], source: str) -> tuple[list[Dependencies], str]:
    """The sentences whose arcs do not cross, and how many are left out, in words."""
    kept = [sentence for sentence in given if sentence.is_projective]
    if not kept:
        raise FormatError(f"{source}: expected sentences whose arcs do not cross, found none; leave out --projective")
    left = len(given) - len(kept)
    return kept, f"; left out of training: {left} whose arcs cross" if left else ""
