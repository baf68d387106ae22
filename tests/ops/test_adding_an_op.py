"""The page "Adding an op": its files, as it says, become an op, and its test passes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import lnz.ops
from lnz.ops import dispatch

PAGE = Path(__file__).parents[2] / "docs/developer/adding_an_op.md"


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text()
    assert page.count("\n") < 150
    files = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.DOTALL))
    assert [*files] == [
        *(f"lnz/ops/subset/{name}.py" for name in ("reference", "cpu", "op")),
        "tests/ops/test_subset.py",
    ]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "lnz/ops/subset/__init__.py").touch()
    monkeypatch.setattr(lnz.ops, "__path__", [*lnz.ops.__path__, str(tmp_path / "lnz/ops")])
    try:
        namespace: dict[str, object] = {}
        exec(compile(files["tests/ops/test_subset.py"], "test_subset.py", "exec"), namespace)
        namespace["test_subset"]()  # type: ignore[operator]
        assert dispatch.backends("subset") == ("cpu", "reference")
    finally:
        dispatch._ops.pop("subset", None)
        for name in [name for name in sys.modules if name.startswith("lnz.ops.subset")]:
            del sys.modules[name]
