"""The Python snippets of README, landing page and guide run in order, in one namespace per page, as a reader would."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    README,
    ROOT / "docs" / "index.md",
    *(page for page in sorted((ROOT / "docs" / "guide").rglob("*.md")) if SNIPPET.search(page.read_text("utf-8"))),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_snippets_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    text = page.read_text(encoding="utf-8")
    if "import onnxruntime" in text:
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
        pytest.importorskip("onnxscript", reason="needs the extra onnx")
    if "lnz.hf" in text:
        pytest.importorskip("transformers", reason="needs the extra transformers")
        pytest.importorskip("accelerate", reason="needs the extra transformers")
    for name in set(re.findall(r'read_model\("(.*?)"\)', "".join(SNIPPET.findall(text)))):
        (found,) = request.getfixturevalue("shared_data").rglob(name)
        shutil.copy(found, tmp_path)
    monkeypatch.chdir(tmp_path)  # for the files that snippets write
    snippets = list(SNIPPET.finditer(text))
    assert snippets
    namespace: dict[str, object] = {"__name__": "page"}
    for snippet in snippets:
        line = text[: snippet.start(1)].count("\n")  # so that a traceback points into the page
        code = compile("\n" * line + snippet[1], str(page), "exec")
        exec(code, namespace)


def test_commands_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make ([a-z-]+)", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), f"the Makefile has no target {command}"
