"""The backend seam: which kernels compute an op, and who decides.

Every op has a ``reference.py`` in plain torch, for any device and dtype. A *backend* is a module of faster functions
for some devices and dtypes. An op declares its backends once, in its own folder::

    KERNELS = Kernels("chain")
    KERNELS.register("cpu", "lnz.ops.chain.cpu", devices=("cpu",), dtypes=(torch.float32, torch.float64))

and asks for one function where it computes; ``None`` means the reference::

    viterbi = KERNELS.find("viterbi", node, edge)

The module is imported when it is first chosen. It is a file with a function per verb, or a package whose ``VERBS``
say in which of its files each verb is. It may lack verbs: the next backend, in the end the reference, serves those. A
second backend is a file and a line in the op's folder; nothing else changes.

Users choose with :func:`backend` (per thread and asyncio task) or the variable ``LNZ_BACKEND``:

- ``"auto"``: the first registered backend that serves the tensors, else the reference. Where a backend would, but the
  package that it requires is missing, one :class:`~lnz.errors.MissingPackageWarning` says so.
- ``"reference"``: the reference.
- the name of a backend: ops that have it use it; tensors that it does not serve raise a ``ValueError``. Ops without a
  backend of that name choose as under ``"auto"``.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from lnz.caching import constant
from lnz.checks import plain
from lnz.errors import MissingPackageWarning, warn

REFERENCE = "reference"
_chosen: ContextVar[str | None] = ContextVar("lnz_backend", default=None)
_ops: dict[str, Kernels] = {}


class Backend(NamedTuple):
    """Kernels of one op.

    Attributes:
        module: imported when it is first chosen; its functions are the verbs of the op.
        devices: the device types that it serves.
        dtypes: the dtypes of scores that it serves.
        requires: a package without which it is left out, or ``None``.
        by_name: says which further device types it serves where it was asked for by its name.
    """

    module: str
    devices: Collection[str]
    dtypes: Collection[torch.dtype]
    requires: str | None = None
    by_name: Callable[[], Collection[str]] = tuple

    def serves(self, tensors: tuple[Tensor, ...], named: bool = False) -> bool:
        devices = (*self.devices, *self.by_name()) if named else self.devices
        return all(x.device.type in devices and x.dtype in self.dtypes for x in tensors)


class Kernels:
    """The backends of one op, in order of preference."""

    def __init__(self, op: str) -> None:
        self.op = op
        self.registered: dict[str, Backend] = {}
        self.missing: dict[str, Backend] = {}
        self._found: dict[tuple[str, str], Callable[..., Any] | None] = {}
        _ops[op] = self

    def register(
        self,
        name: str,
        module: str,
        *,
        devices: Collection[str],
        dtypes: Collection[torch.dtype],
        requires: str | None = None,
        by_name: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Add a backend, preferred after those registered before; for the arguments see :class:`Backend`."""
        if name in ("auto", REFERENCE):
            raise ValueError(f"name: expected the name of a backend of {self.op}, got {name!r}, which is reserved")
        there = requires is None or find_spec(requires) is not None
        (self.registered if there else self.missing)[name] = Backend(module, devices, dtypes, requires, by_name)

    def serving(self, *tensors: Tensor) -> str:
        """The name of the backend that is to compute with ``tensors``; ``"reference"`` where none is.

        Raises:
            ValueError: the user chose a backend that does not serve them; an unknown name in ``LNZ_BACKEND``.
        """
        return next(self._candidates(tensors), REFERENCE)

    def find(self, verb: str, *tensors: Tensor) -> Callable[..., Any] | None:
        """The function ``verb`` of the backend that serves ``tensors``; ``None`` where the reference does."""
        for name in self._candidates(tensors):
            at = self.registered[name].module, verb
            if at not in self._found:
                self._found[at] = _load(*at)
            if self._found[at] is not None:
                return self._found[at]
        return None

    def _candidates(self, tensors: tuple[Tensor, ...]) -> Iterator[str]:
        chosen = _choice()
        if chosen == REFERENCE:
            return
        only = self.registered.get(chosen)
        if only is None:
            for name, entry in self.registered.items():
                if entry.serves(tensors):
                    yield name
            for entry in self.missing.values():
                if entry.serves(tensors):
                    _warn_of_missing(str(entry.requires))
        elif only.serves(tensors, named=True):
            yield chosen
        else:
            raise ValueError(
                f"{self.op}: backend {chosen!r} serves {_listed(only.dtypes)} on {', '.join(only.devices)}, "
                f"got {_listed({x.dtype for x in tensors})} on {', '.join(sorted({x.device.type for x in tensors}))}; "
                "backend('auto') takes what serves them"
            )


@cache
def _warn_of_missing(package: str) -> None:
    """Once in a process for each package."""
    warn(
        f"{package} is not installed: operations on an accelerator run in plain torch, step by step, which is slow; "
        "pip install 'lnz[gpu]' adds its kernels, and LNZ_BACKEND=reference says that plain torch is meant",
        MissingPackageWarning,
    )


def _load(name: str, verb: str) -> Callable[..., Any] | None:
    module = import_module(name)
    files = getattr(module, "VERBS", None)
    if files is not None:
        return getattr(import_module(f"{name}.{files[verb]}"), verb) if verb in files else None
    return getattr(module, verb, None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Choose how ops are computed inside a ``with`` block: ``"auto"``, ``"reference"`` or the name of a backend.

    Ops that have a backend of this name use it; where it does not serve their tensors they raise a ``ValueError``. Ops
    without one choose as under ``"auto"``. Stronger than ``LNZ_BACKEND``; nests, and concerns only the current thread
    or asyncio task. :func:`backends` lists the names.

    Raises:
        ValueError: no op has a backend of this name.
    """
    token = _chosen.set(_checked("backend", name))
    try:
        yield
    finally:
        _chosen.reset(token)


@overload
def backends(op: str) -> tuple[str, ...]: ...
@overload
def backends(op: None = None) -> dict[str, tuple[str, ...]]: ...
def backends(op: str | None = None) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    """The backends that can compute ``op`` here, in order of preference, ``"reference"`` last; of all ops for ``None``.

    Raises:
        ValueError: no op has this name.
    """
    _import_ops()
    every = {name: (*kernels.registered, REFERENCE) for name, kernels in sorted(_ops.items())}
    if op is None:
        return every
    if op not in every:
        raise ValueError(f"op: expected one of {', '.join(map(repr, every))}, got {op!r}")
    return every[op]


def is_eager(*tensors: Tensor) -> bool:
    """Whether no tracer, transform or mode looks on, so that an op need not go through torch's dispatcher.

    The dispatcher takes as long as a small op itself.
    """
    if not all(map(plain, tensors)):  # first: the compiler cannot trace what follows
        return False
    return torch._C._len_torch_dispatch_stack() == 0  # pyright: ignore[reportAttributeAccessIssue]


@constant
def _choice() -> str:
    """What the user chose; for the compiler a constant, that of the time of compilation."""
    return _chosen.get() or _checked("LNZ_BACKEND", os.environ.get("LNZ_BACKEND", "auto"))


def _checked(source: str, name: str) -> str:
    if name in ("auto", REFERENCE) or any(name in kernels.registered for kernels in _ops.values()):
        return name
    _import_ops()
    names = ["auto", REFERENCE, *dict.fromkeys(name for kernels in _ops.values() for name in kernels.registered)]
    if name not in names:
        raise ValueError(f"{source}: expected one of {', '.join(map(repr, names))}, got {name!r}")
    return name


def _import_ops() -> None:
    """Import every op, and with it what it registers."""
    import lnz.ops

    for module in pkgutil.iter_modules(lnz.ops.__path__, "lnz.ops."):
        if module.ispkg:
            import_module(module.name)


def _listed(dtypes: Collection[torch.dtype]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
