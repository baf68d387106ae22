"""A report that is one HTML file: a table, pictures, what ran, and its configuration."""

from __future__ import annotations

import base64
import html
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import torch

import lnz

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}th,td{padding:.35rem .8rem;text-align:right;border-bottom:1px solid #ccc}
th:first-child{text-align:left}.strong{font-weight:bold}img{max-width:100%}
pre{background:#f4f4f4;padding:1rem;overflow:auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dd{margin:0}"""


@dataclass(frozen=True)
class Row:
    """A row of the table: its name, its cells as they are shown, and whether it stands out."""

    name: str
    cells: Sequence[str]
    strong: bool = False


@dataclass(frozen=True)
class Section:
    """A table of its own below the first one, with a heading and a note."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    note: str


@dataclass(frozen=True)
class Page:
    """What a report says; everything in plain text.

    Args:
        title: the command.
        headings: of the columns after the first.
        rows: of the table.
        notes: paragraphs below it.
        picture: PNG.
        picture_says: what is to be seen, in words.
        charts: PNGs of curves, if any.
        config: the configuration that makes it again.
        about: facts about the run, by name.
        tables: further ones, after the notes.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]
    picture: bytes
    picture_says: str
    charts: Sequence[bytes]
    config: str
    about: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Section] = ()

    def html(self) -> str:
        """One page that needs no other file."""
        facts = {
            "written": datetime.now().astimezone().isoformat(timespec="seconds"),
            "lnz": lnz.__version__,
            "torch": torch.__version__,
            "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
            **self.about,
        }
        listed = "".join(
            f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in facts.items()
        )
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in self.notes)
        tables = "".join(
            f"<h2>{html.escape(part.title)}</h2>{_table(part.headings, part.rows)}\n<p>{html.escape(part.note)}</p>\n"
            for part in self.tables
            if part.rows
        )
        curves = "".join(_inline(chart, "curve") for chart in self.charts)
        charts = f"<h2>Curves</h2><div>{curves}</div>\n" if curves else ""
        return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(self.title)}</h1>
{_table(self.headings, self.rows)}
{notes}{tables}<h2>Picture</h2>{_inline(self.picture, self.picture_says)}
{charts}<h2>Run</h2><dl>{listed}</dl>
<h2>Configuration</h2><pre>{html.escape(self.config)}</pre>
</body></html>
"""


def _table(headings: Sequence[str], rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in ("", *headings))
    body = "".join(
        f"<tr{' class=strong' if row.strong else ''}><th>{html.escape(row.name)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds; the deviation of one seed alone is NaN."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")


def _inline(image: bytes, what: str) -> str:
    return f'<img alt="{html.escape(what)}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
