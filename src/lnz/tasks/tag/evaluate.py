"""New sentences for a trained tagger, all of them judged."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lnz.errors import FormatError
from lnz.io.sentences import read_sentences
from lnz.tasks.tag import strings as composed
from lnz.tasks.tag import text
from lnz.tasks.tag.data import TagLoaders, tagged
from lnz.tasks.tag.module import TagModule
from lnz.tasks.tag.strings import StringDataset, Strings


class TagTest(TagLoaders):
    """Tagged sentences. Without ``val``, validation strings composed of handwritten digits.

    Args:
        module: the trained one; tags are those that it knows, of the column that it was trained on.
        val: file of tagged sentences, CoNLL-U (``.conllu``) or columns; may be gzipped. Without it, strings of
            handwritten digits are composed.
        file_format: of the file; by default, CoNLL-U where its name ends in .conllu or .conllu.gz, else columns.
        tag_column: of columns, what the tags are, from 0, or from −1 backwards; the word is column 0.
        encoding: of the text in the file, as latin-1 or gbk; by default UTF-8.
        batch_size: sequences per batch.
        num_workers: processes that load batches.
        strings: how strings are composed, where no file is given.
        seed: what strings are drawn from.

    Raises:
        FormatError: a bad file, or a tag that the module does not know.
    """

    def __init__(
        self,
        module: TagModule,
        val: Path | None = None,
        *,
        file_format: Literal["conllu", "columns"] | None = None,
        tag_column: int = -1,
        encoding: str | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        strings: Strings = Strings(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size: expected a positive integer, got {batch_size}")
        self.batch_size, self.num_workers, self.seed, self.tags = batch_size, num_workers, seed, module.tags
        on_images = module.settings["image_size"] is not None
        if on_images != (val is None):
            takes = "images of strings, and takes no --data.val" if on_images else "sentences: give --data.val"
            raise FormatError(f"the tagger: was trained on {takes}")
        if val is None:
            self.val = StringDataset(strings, "val", seed)
            self.collate, self.says = composed.collate, f"{len(self.val)} composed strings of handwritten digits"
            return
        kind, column = file_format or tagged(val), module.settings["column"]
        sentences = read_sentences(val, kind=kind, column=column, tag_column=tag_column, encoding=encoding)
        self.val = text.SentenceDataset(sentences, self.tags, str(val))
        if module.settings["scheme"] is not None:
            text.check_scheme(sentences, self.tags, module.settings["scheme"], str(val))
        self.collate, self.says = text.collate, f"{len(sentences)} sentences of {val}"
