"""The commands of the guide print what the guide says.

``UPDATE_GUIDE=1 pytest tests/test_guide_commands.py`` writes into the pages what the commands print now.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from lnz.cli import main
from tests.cli.runs import less_compiling

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(
        page,
        block[1],
        id=f"{page.stem}:{page.read_text('utf-8').count(chr(10), 0, block.start()) + 1}",
        marks=pytest.mark.slow if "Grids" in block[1] and "--max-table" not in block[1] else (),
    )
    for page in sorted(GUIDE.rglob("*.md"))
    for block in BLOCK.finditer(page.read_text("utf-8"))
]


@pytest.mark.data
@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_commands_print_what_the_page_says(
    page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_data: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = ""
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        for name in re.findall(r"[\w.]+\.(?:uai|bif)\.gz", command):
            # of two collections that have a model of this name, the one for ln Z and marginals
            shutil.copy(min(shared_data.rglob(name), key=lambda path: "uai_map" in path.parts), tmp_path)
        shown += f"$ {command}\n{printed(command)}"
    if os.environ.get("UPDATE_GUIDE"):
        text = page.read_text("utf-8")
        page.write_text(text.replace(f"```console\n{block}", f"```console\n{shown}"), "utf-8")
        return
    expected, found = block.splitlines(), shown.splitlines()
    assert len(expected) == len(found), shown
    for line, got in zip(expected, found, strict=True):
        assert words(got) == approximately(words(line))


def printed(command: str) -> str:
    """What a command says on both streams, of a redirected one on stderr; less what the first call compiles."""
    program, *arguments = shlex.split(command)
    assert program == "lnz"
    redirected = ">" in arguments
    both = io.StringIO()
    with redirect_stdout(io.StringIO() if redirected else both), redirect_stderr(both):
        main(arguments[: arguments.index(">")] if redirected else arguments)
    return less_compiling(both.getvalue())


def words(line: str) -> Any:
    """A line as JSON, or as its words and numbers."""
    if line.startswith("{"):
        return json.loads(line)
    return [float(word) if is_number(word) else word for word in re.split(r"([\s,;()=]+)", line)]


def approximately(value: Any) -> Any:
    """The same, with numbers that any machine must reach to six digits."""
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, list):
        return [approximately(item) for item in value]
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
