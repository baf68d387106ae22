"""What is done to many inputs, whoever does it: workers, the inputs they take, and the shards they write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lnz.errors import FormatError, LnzError
from lnz.io.checkpoints import load_checkpoint
from lnz.io.shards import Kind, begun, finished, write_shard
from lnz.tasks.failures import Failed

Row = Mapping[str, Any]
"""Plain values by column."""

OWN: dict[str, Kind] = {"input": "integer", "source": "text"}
"""Columns of every shard: the number of the input, from 0, and the file that it is from."""

DEATHS = 5
"""Of workers at one shard, after which its inputs are left out: one of them may be what kills."""


class Worker(Protocol):
    """Has a model, and applies it to inputs: in the one process of a command, or in each of those of a cluster."""

    columns: ClassVar[Mapping[str, Kind]]
    """What its rows have."""

    def rows(self, items: Sequence[Any]) -> Iterable[Row | Failed]:
        """A row for each input, or why it failed."""
        ...


Make = Callable[[str], Worker]
"""Makes a worker on a device; of functions and plain values, so that it travels."""


@dataclass(frozen=True)
class Input:
    """One input, and the file that it is from."""

    source: str
    item: Any


@dataclass(frozen=True)
class Shard:
    """Inputs that are worked on together, by number.

    Attributes:
        number: of the shard, from 0.
        first: the number of its first input.
        inputs: at least one.
    """

    number: int
    first: int
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Report:
    """What became of a shard.

    Attributes:
        errors: of each input, ``None`` where it is done.
        stopped: an error that is none of a single input: a full disk, say.
    """

    errors: tuple[str | None, ...] = ()
    stopped: str | None = None


def files_of(given: Path) -> list[Path]:
    """The file, or those of a folder in order of name, without hidden ones.

    Raises:
        FormatError: an empty folder.
    """
    if not given.is_dir():
        return [given]
    files = sorted(path for path in given.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise FormatError(f"{given}: expected files, found none")
    return files


def sharded(inputs: Sequence[Input], size: int) -> list[Shard]:
    """Inputs in shards of ``size``; the last one may be smaller."""
    return [
        Shard(number, first, tuple(inputs[first : first + size]))
        for number, first in enumerate(range(0, len(inputs), size))
    ]


def written(worker: Worker, shard: Shard, output: Path) -> Report:
    """Work on a shard, and write it.

    Doing so again gives the same file, in the same place: a shard that is worked on twice, since the first worker was
    killed or cut off, is there once.
    """
    if not output.is_dir():
        return Report(stopped=f"{output}: not seen by every machine; it has to lie on a file system that all share")
    try:
        if begun(output, shard.number) > DEATHS:
            why = f"left out, since {DEATHS} workers died at its shard (of memory? a smaller --shard-size may do)"
            results: list[Row | Failed] = [Failed(LnzError(f"{each.source}: {why}")) for each in shard.inputs]
        else:
            results = list(worker.rows([each.item for each in shard.inputs]))
        rows, errors = [], []
        for k, (each, result) in enumerate(zip(shard.inputs, results, strict=True)):
            found, error = ({}, " ".join(str(result.error).split())) if isinstance(result, Failed) else (result, None)
            rows.append({**found, "input": shard.first + k, "source": each.source, "error": error})
            errors.append(error)
        write_shard(output, shard.number, {**OWN, **worker.columns, "error": "text"}, rows)
        finished(output, shard.number)
    except (LnzError, OSError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        return Report(stopped=f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Report(tuple(errors))


def made(kind: Callable[..., Any], checkpoint: Path, options: Mapping[str, Any], device: str) -> Worker:
    """A worker with the network of a checkpoint, on a device."""
    worker = kind(load_checkpoint(checkpoint), str(checkpoint), **options)
    worker.module.to(device)
    return worker
