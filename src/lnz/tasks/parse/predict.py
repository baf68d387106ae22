"""Trees of new sentences, by a trained parser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnz.errors import FormatError
from lnz.io.dependencies import Dependencies, read_dependencies, rewrite_dependencies, write_dependencies
from lnz.io.sentences import format_of, read_sentences
from lnz.tasks.parse.module import ParseModule

BATCH = 32


def predict(checkpoint: Mapping[str, Any], source: str, text: Path, output: Path, encoding: str | None = None) -> int:
    """Write the sentences of a file with their trees, as CoNLL-U; returns how many there are.

    Of a CoNLL-U file heads and relations are replaced, and the enhanced graph, which went with them, is left out; of
    columns the word is the first; of text (``.txt``) a line is a sentence. Trees that the file has are not read.

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
    module = ParseModule.from_checkpoint(checkpoint, source)
    column, kind = module.settings["tag_column"], format_of(text)
    if kind == "conllu":
        sentences = read_dependencies(text, tag_column=column, trees=False, encoding=encoding)
    elif column is not None:
        raise FormatError(f"{text}: expected CoNLL-U with tags ({column}), which the parser was trained with")
    else:
        plain = read_sentences(text, tag_column=None, encoding=encoding)
        nothing = [(None,) * len(each) for each in plain]
        sentences = [Dependencies(s.tokens, no, no, no, s.lines) for s, no in zip(plain, nothing, strict=True)]
    order = sorted(range(len(sentences)), key=lambda k: len(sentences[k]))
    parsed: dict[int, Dependencies] = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        parsed |= dict(zip(part, module.parse([sentences[k] for k in part]), strict=True))
    trees = (parsed[k] for k in range(len(sentences)))
    if kind == "conllu":
        rewrite_dependencies(text, output, trees, encoding)
    else:
        write_dependencies(output, trees)
    return len(sentences)


def check_sentences(checkpoint: Mapping[str, Any], source: str) -> None:
    """Nothing to refuse: every parser takes sentences."""
