"""Between words and the pieces that a tokenizer makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lnz.typing import IGNORE


def encode_words(
    tokenizer: Any,
    sentences: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str | None]] | None = None,
    *,
    label2id: Mapping[str, int] | None = None,
    max_length: int | None = None,
) -> dict[str, list[list[int]]]:
    """What :class:`~lnz.hf.CRFForTokenClassification` is trained on, from words and their tags.

    A word is at its first piece: there ``word_mask`` is 1, and ``labels`` the number of its tag. One whose characters
    the tokenizer drops counts as an unknown word.

    Args:
        tokenizer: a fast one.
        sentences: words of each sentence.
        tags: of each word, ``None`` where it is unknown; without them there are no labels.
        label2id: numbers of tags, ``model.config.label2id``.
        max_length: pieces of the longest sentence, special ones included; words beyond are cut off. By default, none.

    Returns:
        Lists per sentence: the tokenizer's own, ``word_mask`` and, with tags, ``labels`` (−100 where the mask is 0, or
        a tag is unknown). A ``Dataset.map(batched=True)`` may return them; :class:`~lnz.hf.CRFDataCollator` pads them.

    Raises:
        TypeError: a slow tokenizer, which does not know the word of a piece.
        ValueError: a sentence with another number of tags than words; a tag without a number.
    """
    encoded, first = first_pieces(tokenizer, sentences, truncation=max_length is not None, max_length=max_length)
    columns = {name: list(values) for name, values in encoded.items()}
    lengths = [len(pieces) for pieces in columns["input_ids"]]
    columns["word_mask"] = [[0] * length for length in lengths]
    for mask, places in zip(columns["word_mask"], first, strict=True):
        for place in places.values():
            mask[place] = 1
    if tags is not None:
        if label2id is None:
            raise ValueError("label2id: expected the numbers of the tags beside them, model.config.label2id")
        columns["labels"] = [
            _labels(k, words, its, places, length, label2id)
            for k, (words, its, places, length) in enumerate(zip(sentences, tags, first, lengths, strict=True))
        ]
    return columns


def _labels(
    k: int,
    words: Sequence[str],
    tags: Sequence[str | None],
    places: Mapping[int, int],
    length: int,
    label2id: Mapping[str, int],
) -> list[int]:
    if len(words) != len(tags):
        raise ValueError(f"tags: expected {len(words)} in sentence {k}, a tag per word, got {len(tags)}")
    labels = [IGNORE] * length
    for word, place in places.items():
        tag = tags[word]
        if tag is not None and tag not in label2id:
            raise ValueError(f"tags: expected one of {', '.join(label2id)}, got {tag!r} in sentence {k}")
        labels[place] = IGNORE if tag is None else label2id[tag]
    return labels


def first_pieces(
    tokenizer: Any, sentences: Sequence[Sequence[str]], **options: Any
) -> tuple[Any, list[dict[int, int]]]:
    """The tokenizer's encoding of words, and per sentence the place of the first piece of each word.

    Args:
        tokenizer: a fast one.
        sentences: words of each; see :func:`known_words`.
        options: for the tokenizer.

    Raises:
        TypeError: a slow tokenizer.
    """
    encoded = tokenizer(known_words(tokenizer, sentences), is_split_into_words=True, **options)
    return encoded, [_first(encoded.word_ids(row)) for row in range(len(sentences))]


def known_words(tokenizer: Any, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """The words, of which each has a piece: one whose characters the tokenizer drops is its unknown word.

    Raises:
        TypeError: a slow tokenizer.
        ValueError: such a word, and a tokenizer without an unknown word.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(f"tokenizer: expected a fast tokenizer, got {type(tokenizer).__name__}")
    known = [list(words) for words in sentences]
    if not known:
        return known
    encoded = tokenizer(known, is_split_into_words=True, verbose=False)
    for row, words in enumerate(known):
        places = _first(encoded.word_ids(row))
        for k, word in enumerate(words):
            if k not in places:
                if tokenizer.unk_token is None:
                    raise ValueError(f"sentences: expected words with a piece, got {word!r} in sentence {row}")
                words[k] = tokenizer.unk_token
    return known


def _first(word_ids: Sequence[int | None]) -> dict[int, int]:
    """The place of the first piece of each word."""
    places: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            places.setdefault(word, place)
    return places


def longest_input(model: Any, tokenizer: Any) -> int:
    """The number of pieces, special ones included, that an encoder and its tokenizer take at most.

    Position embeddings of a kind that begins after the padding token's (RoBERTa's) serve that many fewer.
    """
    longest = int(tokenizer.model_max_length)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        skipped = getattr(table, "padding_idx", None)
        longest = min(longest, positions - (0 if skipped is None else skipped + 1))
    return longest
