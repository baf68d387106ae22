"""How much work and memory a file may ask for, whatever its format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from os import PathLike

from lnz.errors import FormatError

COUNTABLE = 10**18
"""More than this is shown as such: Python refuses to print an integer of more than 4,300 digits."""


@dataclass(frozen=True)
class Limits:
    """Each reader refuses what asks for more, before it allocates anything.

    Sizes are limits for small files: a larger file may ask for ``per_byte`` times its own size.

    Attributes:
        unpacked: bytes of a decompressed file.
        values: of a YAML file, its aliases written out.
        numbers: entries of all tables of a model, or of one row of states per variable.
        samples: samples of a recording, over all channels, before and after resampling.
        pixels: of an image; Pillow has a limit of its own, about 179 million, for files of any size.
        per_byte: how many of these a byte of the file may bring.
        arity: variables of one table.
        depth: levels of nesting (XML, JSON, YAML, braces).
        resampling: numerator and denominator of the ratio of two sample rates; the filter has 20 taps for each.
        sample_rate: lowest and highest sample rate of a recording, in Hz.
    """

    unpacked: int = 2**28
    values: int = 2**16
    numbers: int = 2**24
    samples: int = 2**27
    pixels: int = 2**26
    per_byte: int = 64
    arity: int = 60
    depth: int = 64
    resampling: int = 2**17
    sample_rate: tuple[int, int] = (1_000, 1_000_000)

    def check(self, path: str | PathLike[str], name: str, wanted: int, size: int = 0) -> None:
        """Raise where a file of ``size`` bytes asks for more than the limit ``name``.

        Raises:
            FormatError: names the file, what is allowed and what came.
        """
        allowed = max(getattr(self, name), self.per_byte * size)
        if wanted > allowed:
            got = f"{wanted:,}" if wanted < COUNTABLE else f"more than {COUNTABLE:.0e}"
            more = f"lnz.io.allowing({name}=…) permits more"
            raise FormatError(f"{path}: expected at most {allowed:,} {NOUNS[name]}, got {got}; {more}")

    def table(self, path: str | PathLike[str], shape: Sequence[int], size: int = 0) -> int:
        """The number of entries of a table over variables of these cardinalities, at least 1 each.

        Raises:
            FormatError: too many variables or entries.
        """
        self.check(path, "arity", len(shape))
        entries = 1
        for cardinality in shape:
            entries *= cardinality
        self.check(path, "numbers", entries, size)
        return entries


NOUNS = {
    "unpacked": "bytes after decompression",
    "values": "values",
    "numbers": "numbers in tables",
    "samples": "samples",
    "pixels": "pixels",
    "arity": "variables in a table",
    "depth": "levels of nesting",
}
_DEFAULT = Limits()
_current: ContextVar[Limits] = ContextVar("limits", default=_DEFAULT)


def limits() -> Limits:
    """The limits in force."""
    return _current.get()


@contextmanager
def allowing(**changes: int) -> Iterator[Limits]:
    """Other limits within a block, for files that are trusted.

    Args:
        changes: fields of :class:`Limits`, as in ``with allowing(numbers=2**30): read_model(path)``.
    """
    token = _current.set(dataclasses.replace(limits(), **changes))  # type: ignore[arg-type]
    try:
        yield limits()
    finally:
        _current.reset(token)
