"""The README's Python snippets run, in order, in one namespace, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_snippets_run() -> None:
    text = README.read_text(encoding="utf-8")
    snippets = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert snippets
    namespace: dict[str, object] = {}
    for snippet in snippets:
        line = text[: snippet.start(1)].count("\n")  # so that a traceback points into the README
        code = compile("\n" * line + snippet[1], str(README), "exec")
        exec(code, namespace)


def test_commands_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([a-z-]+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), f"the Makefile has no target {command}"
