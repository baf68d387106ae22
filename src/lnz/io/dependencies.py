"""Dependency trees in CoNLL-U files, with errors that name the line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lnz.errors import FormatError
from lnz.io.conllu import UNKNOWN, Word, rewrite_conllu, sentences, text_lines, write_conllu
from lnz.io.files import Source

TagColumn = Literal["upos", "xpos", "feats", "upos+xpos", "upos+feats", "upos+xpos+feats"]
"""A column, or several that are one tag together."""


@dataclass(frozen=True)
class Dependencies:
    """A sentence and its tree, and where it stands.

    Attributes:
        tokens: its words.
        tags: of the words; ``None`` for a word that has not been tagged.
        heads: of each word, the number of a word from 1, or 0 for the root; ``None`` where it is not known.
        relations: to the heads; ``None`` where they are not known.
        lines: the line of the file, from 1, that each word stands on.
    """

    tokens: tuple[str, ...]
    tags: tuple[str | None, ...]
    heads: tuple[int | None, ...]
    relations: tuple[str | None, ...]
    lines: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_projective(self) -> bool:
        """Whether no two arcs cross, those from the root at the left included."""
        spans = [(min(word, head), max(word, head)) for word, head in enumerate(self.heads, 1) if head is not None]
        spans.sort(key=lambda span: (span[0], -span[1]))
        open_: list[int] = []
        for low, high in spans:
            while open_ and open_[-1] <= low:
                open_.pop()
            if open_ and open_[-1] < high:
                return False
            open_.append(high)
        return True


def read_dependencies(
    path: Source,
    *,
    tag_column: TagColumn | None = "upos",
    single_root: bool = True,
    trees: bool = True,
    encoding: str | None = None,
) -> list[Dependencies]:
    """Read sentences with their dependency trees from a CoNLL-U file, gzipped or not.

    Trees are over words: multiword tokens and empty nodes are passed over, as the format says. An underscore as head or
    relation is one that is not known.

    Args:
        path: the file.
        tag_column: the columns that tags are read from; ``None`` where words need no tags.
        single_root: whether one word of a sentence at most may hang under the root.
        trees: whether heads and relations are read; else they are not looked at, and none is known.
        encoding: of the text; by default UTF-8.

    Raises:
        FormatError: the file cannot be read, is malformed or cut short, or holds no sentence; a head that is no number
            or not of the sentence, a second root, or words that hang under each other in a circle. Names the line.
    """
    found = []
    for words in sentences(path, text_lines(path, encoding)):
        heads, relations = (None,) * len(words), (None,) * len(words)
        if trees:
            heads = tuple(_head(path, word, len(words)) for word in words)
            relations = tuple(word.known("deprel") for word in words)
            _check_tree(path, words, heads, single_root)
        tokens, tags = tuple(word["form"] for word in words), tuple(_tag(word, tag_column) for word in words)
        found.append(Dependencies(tokens, tags, heads, relations, tuple(word.line for word in words)))
    if not found:
        raise FormatError(f"{path}: expected at least one sentence, found none")
    return found


def _tag(word: Word, column: TagColumn | None) -> str | None:
    """The columns with a space between, where one at least is known."""
    parts = [] if column is None else [word[name] for name in column.split("+")]
    return " ".join(parts) if any(part != UNKNOWN for part in parts) else None


def _head(path: Source, word: Word, count: int) -> int | None:
    text = word.known("head")
    if text is None:
        return None
    plain = text.isascii() and text.isdigit() and len(text) < 10
    if not plain or int(text) > count:
        raise FormatError(
            f"{path}, line {word.line}: expected a head in 0 … {count}, the words of the sentence, got {text[:40]!r}"
        )
    return int(text)


def _check_tree(path: Source, words: Sequence[Word], heads: Sequence[int | None], single_root: bool) -> None:
    """Raise where heads are not those of one tree; O(words)."""
    roots = [word for word, head in zip(words, heads, strict=True) if head == 0]
    if single_root and len(roots) > 1:
        raise FormatError(
            f"{path}, line {roots[1].line}: expected one word with head 0, got a second one after line "
            f"{roots[0].line}; files with several roots are read with single_root false"
        )
    ends = [False] * (len(words) + 1)  # whether the way up from a word is known to end
    for start in range(1, len(words) + 1):
        way: list[int] = []
        on_way: set[int] = set()
        at: int | None = start
        while at and not ends[at]:
            if at in on_way:
                circle = way[way.index(at) :]
                named = ", ".join(map(str, sorted(circle)[:8])) + (", …" if len(circle) > 8 else "")
                raise FormatError(
                    f"{path}, line {words[min(circle) - 1].line}: expected a tree, got a cycle: "
                    + (f"word {named} is its own head" if len(circle) == 1 else f"words {named} hang under each other")
                )
            way.append(at)
            on_way.add(at)
            at = heads[at - 1]
        for word in way:
            ends[word] = True


def write_dependencies(path: Source, trees: Iterable[Dependencies]) -> None:
    """Write words, tags as UPOS, heads and relations in the CoNLL-U format; the other columns say nothing."""
    write_conllu(
        path,
        (
            (
                tree.tokens,
                {"upos": [tag or "_" for tag in tree.tags], **_columns(tree.heads, tree.relations)},
            )
            for tree in trees
        ),
    )


def rewrite_dependencies(
    source: Source, path: Source, trees: Iterable[Dependencies], encoding: str | None = None
) -> None:
    """Write the file ``source`` with the heads and relations of ``trees``, one for each sentence, in order.

    The enhanced graph (``deps``) went with the old tree, and is left out; everything else stays as it is.
    """
    columns = ({**_columns(tree.heads, tree.relations), "deps": ["_"] * len(tree)} for tree in trees)
    rewrite_conllu(source, path, columns, encoding)


def _columns(heads: Sequence[int | None], relations: Sequence[str | None]) -> dict[str, list[str]]:
    return {
        "head": ["_" if head is None else str(head) for head in heads],
        "deprel": [relation or "_" for relation in relations],
    }
