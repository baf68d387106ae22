"""The console of the tasks: what it is given is shown as it is, and a reader that has left is not hidden."""

from __future__ import annotations

from typing import Any, NoReturn

import rich.console

from lnz.io.printable import printable

LOG_WIDTH = 120
"""Characters of a line where nothing says how wide lines are, which rich takes for 80: tables would be folded."""


class Console(rich.console.Console):
    """Rich's console without markup, emoji codes and highlights: names in files may look like any of them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **kwargs)
        if not self.is_terminal and "COLUMNS" not in self._environ:
            self.width = LOG_WIDTH

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError  # rich would leave with status 1

    def say(self, text: str) -> None:
        """Lines that are not wrapped, so that what stands in them can be copied."""
        self.print(printable(text), soft_wrap=True)
