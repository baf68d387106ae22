"""Formulas as MathML, which browsers draw by themselves: no script, and nothing to fetch.

LaTeX is converted while the pages are built. Only the HTML builders need it.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

OPERATORS = re.compile(r"\\(ln|log|exp|max|min)(?=\s*(?:[A-Za-z]|\\[a-z]))")
"""Operators before what they apply to, where TeX leaves a thin space and MathML none."""


def mathml(latex: str, display: str) -> str:
    """A formula as a ``<math>`` element that keeps its source as its label."""
    found = convert(OPERATORS.sub(r"\\\1\\,", latex.strip()), display=display)
    return found.replace("<math ", f'<math alttext="{html.escape(latex.strip())}" ', 1)


def visit_inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math-block">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
