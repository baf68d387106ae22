"""Many files, some of them bad: the work goes on past those, and what failed is listed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lnz.errors import LnzError

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Failed:
    """What was wrong with one file; the message names it."""

    error: LnzError


def attempted(items: Iterable[Item], work: Callable[[Item], Done], strict: bool = False) -> Iterator[Done | Failed]:
    """``work`` of each item, or why it failed; where ``strict``, the first failure is raised instead.

    Errors of the machine, such as a full disk, are raised in any case.
    """
    for item in items:
        try:
            yield work(item)
        except LnzError as error:
            if strict:
                raise
            yield Failed(error)


def told(failures: Sequence[Failed], count: int, what: str) -> str:
    """The list of what failed, of ``count`` files of a kind."""
    lines = [" ".join(str(failed.error).split()) for failed in failures]
    return "\n  ".join([f"{len(failures)} of {count} {what} failed:", *lines])
