"""Tagged sentences as examples: numbers of tags, and the inventories of tags, words and characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from lnz.errors import FormatError
from lnz.io.sentences import Sentence
from lnz.nn.tag_schemes import Scheme, transition_mask
from lnz.typing import IGNORE


class SentenceDataset(Dataset[dict[str, Any]]):
    """Sentences with the numbers of their tags, ``int64 [T]``, −100 where a word has none."""

    def __init__(self, sentences: Sequence[Sentence], tags: Sequence[str], source: str) -> None:
        """The numbers are places in ``tags``.

        Raises:
            FormatError: a tag that is not among them; names ``source`` and the line.
        """
        number = {tag: k for k, tag in enumerate(tags)}
        self.sentences, self.tags = list(sentences), []
        for sentence in self.sentences:
            for tag, line in zip(sentence.tags, sentence.lines, strict=True):
                if tag is not None and tag not in number:
                    raise FormatError(
                        f"{source}, line {line}: expected a tag of the training sentences ({_few(tags)}), got {tag!r}"
                    )
            self.tags.append(torch.tensor([IGNORE if tag is None else number[tag] for tag in sentence.tags]))

    @property
    def lengths(self) -> list[int]:
        return [len(sentence) for sentence in self.sentences]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"tokens": self.sentences[key[1]].tokens, "tags": self.tags[key[1]], "index": torch.tensor(key[1])}


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of sentences: ``tokens`` (words of each), ``tags`` (−100 over padding), ``lengths``, ``index``."""
    tags = [example["tags"] for example in examples]
    return {
        "tokens": [example["tokens"] for example in examples],
        "tags": torch.nn.utils.rnn.pad_sequence(tags, batch_first=True, padding_value=IGNORE),
        "lengths": torch.tensor([len(each) for each in tags]),
        "index": torch.stack([example["index"] for example in examples]),
    }


def tags_of(sentences: Sequence[Sentence], source: str) -> list[str]:
    """Every tag, in alphabetical order, with ``O`` first.

    Raises:
        FormatError: no word has a tag.
    """
    found = {tag for sentence in sentences for tag in sentence.tags if tag is not None}
    if not found:
        raise FormatError(f"{source}: expected words with tags, found none that has one")
    return sorted(found, key=lambda tag: (tag != "O", tag))


def check_scheme(sentences: Sequence[Sentence], tags: Sequence[str], scheme: Scheme, source: str) -> None:
    """Raise where a sentence's tags are not of the scheme, which would make them impossible.

    Raises:
        FormatError: names ``source`` and the line.
    """
    try:
        start, end, follows = transition_mask(tags, scheme)
    except ValueError as error:
        raise FormatError(f"{source}: {error}; leave out data.scheme to forbid nothing") from error
    number = {tag: k for k, tag in enumerate(tags)}
    for sentence in sentences:
        before = None
        for tag, line in zip(sentence.tags, sentence.lines, strict=True):
            if tag is None:
                before = None
                continue
            if before is not None:
                possible, after = follows[number[before], number[tag]] == 0, repr(before)
            elif line == sentence.lines[0]:
                possible, after = start[number[tag]] == 0, "the start of a sentence"
            else:  # after a word without a tag
                possible, after = True, ""
            if not possible:
                raise FormatError(f"{source}, line {line}: {tag!r} cannot follow {after} in scheme {scheme}")
            before = tag
        if before is not None and end[number[before]] != 0:
            raise FormatError(f"{source}, line {sentence.lines[-1]}: {before!r} cannot end a sentence in {scheme}")


def _few(tags: Sequence[str]) -> str:
    return ", ".join(tags[:8]) + (", …" if len(tags) > 8 else "")
