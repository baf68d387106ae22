"""Sentences of files as data of a task: what is read and held out, which words there are, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from lnz.tasks.streams import generator

T = TypeVar("T")
U = TypeVar("U")


def check_sizes(**sizes: int) -> None:
    """Raise where an option of the data that counts something is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"data.{name}: expected a positive integer, got {value}")


def check_only_with_train(**options: object) -> None:
    """Raise where an option is given that only files have, and no file is."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(f"data.{name}: needs data.train, the file of the training sentences")


def read_parts(
    read: Callable[[Path], list[T]], train: Path, val: Path | None, val_fraction: float, seed: int
) -> tuple[list[T], list[T]]:
    """The sentences of both files; or of one, part of which is held out."""
    return (read(train), read(val)) if val else split(read(train), val_fraction, seed)


def sizes_of(given: Sequence[Any], held_out: Sequence[Any], train: Path, val: Path | None) -> str:
    """How many sentences there are of what files, in words."""
    of = f"{train.name} and {val.name}" if val else train.name
    return f"{len(given)} training and {len(held_out)} validation sentences of {of}"


def inventory(sentences: Iterable[Sequence[str]], min_count: int) -> tuple[list[str], list[str]]:
    """The words, in lower case, that occur at least ``min_count`` times, and every character; both sorted."""
    tokens = [token for sentence in sentences for token in sentence]
    words = Counter(token.lower() for token in tokens)
    kept = sorted(word for word, count in words.items() if count >= min_count)
    return kept, sorted({character for token in tokens for character in token})


def by_length(sentences: Sequence[T], size: int, apply: Callable[[list[T]], Sequence[U]]) -> list[U]:
    """``apply`` to batches of sentences of similar length, its results in the order of the sentences."""
    order = sorted(range(len(sentences)), key=lambda k: len(sentences[k]))  # type: ignore[arg-type]
    found: dict[int, U] = {}
    for start in range(0, len(order), size):
        part = order[start : start + size]
        found |= dict(zip(part, apply([sentences[k] for k in part]), strict=True))
    return [found[k] for k in range(len(sentences))]


def split(sentences: Sequence[T], val_fraction: float, seed: int) -> tuple[list[T], list[T]]:
    """Training and validation sentences, drawn from ``seed``; each in the order of the file."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"data.val_fraction: expected a number in (0, 1), got {val_fraction}")
    order = torch.randperm(len(sentences), generator=generator(seed)).tolist()
    count = max(1, round(val_fraction * len(sentences)))
    if count >= len(sentences):
        raise ValueError(f"data.train: expected at least 2 sentences to split, got {len(sentences)}; or give data.val")
    return [sentences[k] for k in sorted(order[count:])], [sentences[k] for k in sorted(order[:count])]
