"""Compiling helpers as far as what calls them needs it.

Numba optimises every function that compiled ones call, makes native code of it, and does both again with what it was
linked into. A helper is called by compiled functions only: it is left as it was lowered, and optimised once, inlined.
That takes a quarter off the time of a kernel of sixty functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _Linked(JITCodeLibrary):
    """Code that others link in, which is never run from here."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


class ForCallers(Compiler):
    """Numba's compiler, without the parts that only what is called from Python needs."""

    def compile_extra(self, func: Callable[..., Any]) -> Any:
        self.state.library = _Linked(self.state.targetctx.codegen(), func.__qualname__)
        self.state.flags.no_compile = True
        return super().compile_extra(func)


def add_overload(overloads: dict[Any, Any], result: Any) -> None:
    """Keep what :class:`ForCallers` gave for compiled callers, who find it by its ``entry_point``."""
    result = result._replace(entry_point=object())
    result.target_context.insert_user_function(result.entry_point, result.fndesc, [result.library])
    overloads[tuple(result.signature.args)] = result
