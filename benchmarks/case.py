"""What a benchmark case is: at each shape, several contenders for the same numbers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from types import ModuleType
from typing import Any, Protocol

import numpy as np

OURS = "lnz"
"""The contender that every other one is compared with."""

Numbers = Mapping[str, np.ndarray]
"""The answers of one call by name (a loss, a gradient, beliefs): the same names and shapes for every contender."""


class AbsentError(Exception):
    """A contender does not take part at this shape; the message says why."""


@dataclass(frozen=True)
class Contender:
    """One way to get the numbers.

    Attributes:
        call: what is timed. It starts from inputs as a user would hold them and ends with the answers computed.
        read: turns what ``call`` returned into :data:`Numbers`, not timed; raises where other work was done.
        package: the distribution whose version is written down; empty for code of the benchmark itself.
        version: the version, where it is not that of a package installed here (a peer in an environment of its own).
    """

    call: Callable[[], Any]
    read: Callable[[Any], Numbers]
    package: str = ""
    version: str = ""


Builder = Callable[[], Contender]
"""Builds a contender (model, graph, compilation: not timed) or raises :class:`AbsentError`."""


@dataclass(frozen=True)
class Workload:
    """One shape of a case.

    Attributes:
        contenders: builders by name, :data:`OURS` among them; built one by one, in order.
        reference: the right numbers, computed in another way than by the contender ``lnz``.
        tolerance: the largest ``max |a − b| / max(1, max |b|)`` against the reference, over all numbers.
        targets: how many times as fast as a contender lnz is meant to be, called again and again.
        cold_targets: the same after other work, as in a step of training.
        note: what a reader of the results must know about this shape.
        tolerances: what peers known to be less exact are held to instead; their errors are in the table.
    """

    contenders: Mapping[str, Builder]
    reference: Callable[[], Numbers]
    tolerance: float
    targets: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    tolerances: Mapping[str, float] = field(default_factory=dict)
    cold_targets: Mapping[str, float] = field(default_factory=dict)


class Case(Protocol):
    """A kind of work. ``name`` is what the command line takes, ``title`` and ``summary`` are what the table says."""

    name: str
    title: str
    summary: str

    @property
    def shapes(self) -> Sequence[str]:
        """The names of the shapes, smallest first."""
        ...

    def workload(self, shape: str, threads: int) -> Workload:
        """The work at one shape; the same numbers at every call (inputs are drawn from a fixed seed)."""
        ...


def require(module: str, install: str) -> ModuleType:
    """Import a peer's module, or raise :class:`AbsentError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise AbsentError(f"{error.name} is not installed (pip install {install})") from error


def version(package: str) -> str:
    """The installed version of a distribution, or nothing."""
    try:
        return metadata.version(package) if package else ""
    except metadata.PackageNotFoundError:
        return ""
