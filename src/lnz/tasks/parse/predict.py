"""Trees of new sentences, by a trained parser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lnz.io.shards import Kind
from lnz.tasks.parse.module import ParseModule
from lnz.tasks.sentences import by_length

BATCH = 32


class Parser:
    """Parses sentences.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.

    Raises:
        FormatError: a checkpoint of another task or version.
    """

    def __init__(self, checkpoint: Mapping[str, Any], source: str) -> None:
        self.module = ParseModule.from_checkpoint(checkpoint, source)

    @property
    def columns(self) -> Mapping[str, Kind]:
        return self.module.structure.columns

    def read(self, text: Path, encoding: str | None = None) -> list[Any]:
        """The sentences of a file, as the parser takes them; trees that it has are not read."""
        settings = self.module.settings
        return self.module.structure.read(text, settings["tag_column"], settings["single_root"], False, encoding)

    def __call__(self, sentences: Sequence[Any]) -> list[Any]:
        """The sentences with their trees."""
        return by_length(sentences, BATCH, self.module.parse)

    def rows(self, items: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
        return map(self.module.structure.row, self(items))


def predict(checkpoint: Mapping[str, Any], source: str, text: Path, output: Path, encoding: str | None = None) -> int:
    """Write the sentences of a file with their trees; returns how many there are.

    Dependency trees are written as CoNLL-U. Of a CoNLL-U file heads and relations are replaced, and the enhanced graph,
    which went with them, is left out; of columns the word is the first; of text (``.txt``) a line is a sentence.
    Constituency trees are written in brackets, one on a line; what is parsed is text, or the words and tags of
    bracketed trees. Trees that the file has are not read.

    Args:
        checkpoint: a loaded checkpoint.
        source: the file it is from, for messages.
        text: the file of sentences, gzipped or not.
        output: the file to write.
        encoding: of the text; by default UTF-8, in which the output always is.

    Raises:
        FormatError: a checkpoint of another task or version; a bad file, or one without tags for a parser that was
            trained with them.
        OSError: the output cannot be written.
    """
    parser = Parser(checkpoint, source)
    sentences = parser.read(text, encoding)
    parser.module.structure.write(text, output, parser(sentences), encoding)
    return len(sentences)
