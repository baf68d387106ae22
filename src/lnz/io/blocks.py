"""Blocks ``{ KEY = VALUE; … }``, of which NET and DSL files consist."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lnz.io.files import Words
from lnz.io.limits import limits

# a word is quoted, or one punctuation mark, or runs to the next space or mark
WORD = r'"(?:\\.|[^"\\])*"|[{}()=;|,"]|[^\s{}()=;|,"]+'
Value = dict[str, "Value"] | list[str]
"""A block, or the words of a value."""


def pattern(comment: str, unfinished: str = "(?!)") -> re.Pattern[str]:
    """What :class:`~lnz.io.files.Words` takes, for files whose comments match a pattern.

    A comment without an end is a word, up to the end of the file, so that it is looked through once.
    """
    return re.compile(f"{comment}|({unfinished}|{WORD})", re.DOTALL | re.ASCII)


def read_block(words: Words, depth: int = 0) -> dict[str, Value]:
    """A block, from its ``{`` to its ``}``; a ``;`` after it is read, too.

    Raises:
        FormatError: the file is cut short, nested too deeply, or has a key twice in a block.
    """
    limits().check(words.path, "depth", depth)
    words.expect("{")
    block: dict[str, Value] = {}
    while (key := words.word("'}' at the end of a block")) != "}":
        if key in block or key in set("{()=;|,"):
            words.fail("a key that is new in its block, or '}'", at=words.at - 1)
        words.expect("=")
        if len(words) and words.words[words.at] == "{":
            block[key] = read_block(words, depth + 1)
        else:
            block[key] = value = []
            while (word := words.word(f"';' after {key}")) != ";":
                if word in ("{", "}"):
                    words.fail(f"';' after {key}", at=words.at - 1)
                value.append(word)
    if len(words) and words.words[words.at] == ";":
        words.at += 1
    return block


def strings(value: Value) -> list[str]:
    """The words of a value without its parentheses, commas and quotes."""
    words: Sequence[str] = value if isinstance(value, list) else ()
    return [word.strip('"') for word in words if word not in ("(", ")", ",")]
