"""Tags of new sentences, by a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from lnz.errors import FormatError
from lnz.io.conllu import rewrite_conllu, write_conllu
from lnz.io.sentences import Column, Sentence, format_of, read_sentences, write_tagged
from lnz.io.shards import Kind
from lnz.tasks.sentences import by_length
from lnz.tasks.tag.module import TagModule

BATCH = 32


class Tagger:
    """Tags sentences.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.

    Raises:
        FormatError: a checkpoint of another task or version, or one that was not trained on sentences.
    """

    columns: ClassVar[Mapping[str, Kind]] = {"tokens": "texts", "tags": "texts"}

    def __init__(self, checkpoint: Mapping[str, Any], source: str) -> None:
        self.module = TagModule.from_checkpoint(checkpoint, source)
        check_sentences(checkpoint, source)
        self.column: Column = self.module.settings["column"]

    def read(self, text: Path, encoding: str | None = None) -> list[Sentence]:
        """The sentences of a file; tags that it has are not read."""
        return read_sentences(text, column=self.column, tag_column=None, encoding=encoding)

    def __call__(self, sentences: Sequence[Sentence]) -> list[list[str]]:
        """The best tags of each sentence under the chain."""
        return by_length(sentences, BATCH, self._tagged)

    def _tagged(self, some: list[Sentence]) -> list[list[str]]:
        tokens = [sentence.tokens for sentence in some]
        lengths = torch.tensor([len(words) for words in tokens], device=self.module.device)
        return self.module.predict_step({"tokens": tokens, "lengths": lengths}, 0)

    def rows(self, items: Sequence[Sentence]) -> Iterator[dict[str, Any]]:
        tagged = zip(items, self(items), strict=True)
        return ({"tokens": sentence.tokens, "tags": tags} for sentence, tags in tagged)


def predict(checkpoint: Mapping[str, Any], source: str, text: Path, output: Path, encoding: str | None = None) -> int:
    """Write the sentences of a file with their best tags under the chain; returns how many there are.

    Of a CoNLL-U file only the column of tags is replaced; of columns the word is the first; of text (``.txt``) a line
    is a sentence. The latter two are written as CoNLL-U where ``output`` is named so, else as lines of a word, a tab
    and a tag. Tags that the file has are not read.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        text: the file of sentences, gzipped or not.
        output: the file to write.
        encoding: of the text; by default UTF-8, in which the output always is.

    Raises:
        FormatError: a checkpoint of another task or version, or one that was not trained on sentences; a bad file.
        OSError: the output cannot be written.
    """
    tagger = Tagger(checkpoint, source)
    sentences, column = tagger.read(text, encoding), tagger.column
    tags = tagger(sentences)
    if format_of(text) == "conllu":
        rewrite_conllu(text, output, ({column: found} for found in tags), encoding)
        return len(sentences)
    tagged = ((sentence.tokens, found) for sentence, found in zip(sentences, tags, strict=True))
    if format_of(output) == "conllu":
        write_conllu(output, ((words, {column: found}) for words, found in tagged))
    else:
        write_tagged(output, tagged)
    return len(sentences)


def check_sentences(checkpoint: Mapping[str, Any], source: str) -> None:
    """Raise :class:`~lnz.errors.FormatError` unless a checkpoint of ``lnz fit tag`` was trained on sentences."""
    if checkpoint["lnz"].get("settings", {}).get("image_size") is not None:
        raise FormatError(f"{source}: expected a checkpoint trained on sentences, got one of strings of images")
