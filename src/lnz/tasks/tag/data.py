"""The data of the tagging task: files of tagged sentences, or composed strings of handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lnz.io.sentences import Column, Sentence, format_of, read_sentences
from lnz.nn.tag_schemes import Scheme
from lnz.tasks.loaders import SequenceLoaders
from lnz.tasks.sentences import check_only_with_train, check_sizes, inventory, read_parts, sizes_of
from lnz.tasks.tag import strings as composed
from lnz.tasks.tag import text
from lnz.tasks.tag.strings import StringDataset, Strings


class TagLoaders(SequenceLoaders):
    """Batches of tagged sequences."""

    train: StringDataset | text.SentenceDataset
    val: StringDataset | text.SentenceDataset
    tags: list[str]


class TagData(TagLoaders):
    """Tagged sentences. Without ``train``, composed strings of handwritten digits: readings of a counter.

    No tagged text comes with lnz, so the strings are made up: images of scikit-learn's digits, noisy, some blotted out;
    from one to the next the counter moves on by 0, 1 or 2. Everything is read and checked on construction, before
    training starts.

    Args:
        train: file of training sentences, CoNLL-U (``.conllu``) or columns; may be gzipped. Without it, strings of
            handwritten digits are composed.
        val: file of validation sentences; without it, part of the training sentences is held out.
        val_fraction: share of the sentences held out where val is not given.
        file_format: of the files; by default, CoNLL-U where a name ends in .conllu or .conllu.gz, else columns.
        column: of CoNLL-U, what the tags are; _ is a word without a tag, which is summed over.
        tag_column: of columns, what the tags are, from 0, or from −1 backwards; the word is column 0.
        encoding: of the text in files, as latin-1 or gbk; by default UTF-8.
        scheme: of tags that mark spans, to forbid what it forbids; by default, nothing is forbidden.
        min_count: words that occur less often in training are known by their characters only.
        batch_size: sequences per batch (and per process).
        num_workers: processes that load batches.
        strings: how strings are composed, where no train file is given.
        seed: what splits, order and strings are drawn from.
    """

    def __init__(
        self,
        train: Path | None = None,
        *,
        val: Path | None = None,
        val_fraction: float = 0.1,
        file_format: Literal["conllu", "columns"] | None = None,
        column: Column = "upos",
        tag_column: int = -1,
        encoding: str | None = None,
        scheme: Scheme | None = None,
        min_count: int = 2,
        batch_size: int = 32,
        num_workers: int = 0,
        strings: Strings = Strings(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(batch_size=batch_size, min_count=min_count)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.scheme, self.column = scheme, column
        self.words: list[str] = []
        self.characters: list[str] = []
        self.image_size: tuple[int, int] | None = None
        if train is None:
            check_only_with_train(val=val, file_format=file_format, scheme=scheme)
            self.train = StringDataset(strings, "train", seed)
            self.val = StringDataset(strings, "val", seed)
            self.tags, self.image_size, self.collate = strings.tags, StringDataset.size, composed.collate
            self.says = "Composed strings of handwritten digits, readings of a counter"
            return

        def read(path: Path) -> list[Sentence]:
            kind = file_format or tagged(path)
            return read_sentences(path, kind=kind, column=column, tag_column=tag_column, encoding=encoding)

        sentences, held_out = read_parts(read, train, val, val_fraction, seed)
        source = str(val or train)
        self.tags = text.tags_of(sentences, str(train))
        self.train = text.SentenceDataset(sentences, self.tags, str(train))
        self.val = text.SentenceDataset(held_out, self.tags, source)
        if scheme is not None:
            text.check_scheme(sentences, self.tags, scheme, str(train))
            text.check_scheme(held_out, self.tags, scheme, source)
        self.words, self.characters = inventory((sentence.tokens for sentence in sentences), min_count)
        self.collate = text.collate
        self.says = sizes_of(sentences, held_out, train, val)


def tagged(path: Path) -> Literal["conllu", "columns"]:
    """The format of a file of tagged sentences, by its name."""
    return "conllu" if format_of(path) == "conllu" else "columns"  # a .txt may hold columns: plain text has no tags
