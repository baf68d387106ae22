"""What the documentation is built with: formulas without scripts, whole docstrings, and every call of a module."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
import torch

import lnz.nn

DOCS = Path(__file__).resolve().parents[1] / "docs"


def extension(name: str) -> ModuleType:
    """A module of docs/_ext."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("latex", "drawn"),
    [
        (r"\ln Z - s(y)", "ln Z−s(y)"),
        (r"\frac{\partial \ln Z}{\partial s[\alpha, \tilde y]}", "∂ln Z∂s[α,y~]"),
        (r"a < b", "a<b"),
        (r"\sum_\alpha s[\alpha, y[\alpha]]", "∑αs[α,y[α]]"),
    ],
)
def test_formulas_are_markup_that_a_browser_draws(latex: str, drawn: str) -> None:
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    pytest.importorskip("docutils", reason="needs the extra docs")
    element = ElementTree.fromstring(extension("mathml").mathml(latex, "block"))
    assert element.attrib["alttext"] == latex
    space = "{http://www.w3.org/1998/Math/MathML}mspace"
    text = "".join(" " if part.tag == space else (part.text or "") for part in element.iter())
    assert text == drawn


@pytest.mark.parametrize("what", ["property", "attribute", "data"])
def test_docstrings_of_properties_are_sentences(what: str) -> None:
    napoleon = pytest.importorskip("sphinx.ext.napoleon", reason="needs the extra docs")
    lines = ["ln P(y): what a tagging weighs.", "", "More."]
    extension("property_docs").keep_sentence(None, what, "lnz.x", None, None, lines)
    shown = str(napoleon.GoogleDocstring("\n".join(lines), what=what, name="lnz.x"))
    assert ":type:" not in shown
    assert "ln P(y): what a tagging weighs." in shown


MODULES = [cls for cls in vars(lnz.nn).values() if inspect.isclass(cls) and issubclass(cls, torch.nn.Module)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_what_a_module_is_called_with_is_documented(module: type[torch.nn.Module]) -> None:
    documented = next(base for base in module.__mro__ if vars(base).get("forward") and vars(base)["forward"].__doc__)
    assert documented is not torch.nn.Module
    assert "exclude-members: forward" not in (DOCS / "api" / "nn.md").read_text(encoding="utf-8")
