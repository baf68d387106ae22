"""Pictures of parse trees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from lnz.plot.figures import literal

MOST_WORDS = 20
"""Of a sentence, drawn at most."""
RIGHT, OTHER, WRONG, MISSED = "C2", "C1", "C3", "#888888"


@dataclass(frozen=True)
class Parse:
    """A sentence and its dependency trees, for :func:`dependency_trees`.

    Attributes:
        words: N.
        heads: gold ones, of each word the number of a word from 1, or 0 for the root; ``None`` where not known.
        relations: to these.
        predicted_heads: of each word.
        predicted_relations: to these.
    """

    words: Sequence[str]
    heads: Sequence[int | None]
    relations: Sequence[str | None]
    predicted_heads: Sequence[int | None]
    predicted_relations: Sequence[str | None]


def dependency_trees(rows: Sequence[Parse]) -> Figure:
    """One panel per sentence: predicted arcs above its words, from head to dependent, gold arcs that were missed below.

    Args:
        rows: sentences; of each at most the first 20 words are drawn, with the arcs between them.
    """
    spans = [_widest(row) for row in rows]
    heights = [0.9 + 0.32 * above + 0.28 * below for above, below in spans]
    widest = max(min(len(row.words), MOST_WORDS) for row in rows)
    figure = Figure(figsize=(max(6.0, 0.68 * widest), sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, row, span in zip(axes, rows, spans, strict=True):
        _draw(axis, row, span, widest)
    named = {RIGHT: "right", OTHER: "right head, wrong relation", WRONG: "wrong head", MISSED: "gold, missed"}
    lines = [
        Line2D([], [], color=colour, linestyle="--" if colour == MISSED else "-", label=name)
        for colour, name in named.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _arcs(row: Parse) -> list[tuple[int, int, str, str]]:
    """Word, head, relation and colour of every arc that is drawn."""
    found: list[tuple[int, int, str, str]] = []
    given = zip(row.heads, row.relations, row.predicted_heads, row.predicted_relations, strict=True)
    for word, (head, relation, predicted, said) in enumerate(given, 1):
        if word > MOST_WORDS:
            break
        colour = WRONG if predicted != head else RIGHT if said == relation else OTHER
        if predicted is not None and predicted <= MOST_WORDS:
            found.append((word, predicted, said or "", MISSED if head is None else colour))
        if head is not None and predicted != head and head <= MOST_WORDS:
            found.append((word, head, relation or "", MISSED))
    return found


def _widest(row: Parse) -> tuple[float, float]:
    """How far the arcs go up and down."""
    up = [_height(word, head) for word, head, _, colour in _arcs(row) if colour != MISSED]
    down = [_height(word, head) for word, head, _, colour in _arcs(row) if colour == MISSED]
    return max(up, default=1.0), max(down, default=0.0)


def _height(word: int, head: int) -> float:
    return 1.5 if head == 0 else 0.6 + 0.75 * abs(word - head) ** 0.75


def _draw(axis: Axes, row: Parse, span: tuple[float, float], widest: int) -> None:
    words = row.words[:MOST_WORDS]
    small = 8 if max(map(len, words)) < 10 else 7
    for place, word in enumerate(words, 1):
        axis.text(place, 0, literal(word[:14]), ha="center", va="center", fontsize=small)
    if len(row.words) > MOST_WORDS:
        axis.text(len(words) + 0.8, 0, "…", ha="center", va="center", fontsize=small)
    for word, head, relation, colour in _arcs(row):
        sign = -1 if colour == MISSED else 1
        base, top = 0.3 * sign, sign * _height(word, head)
        style = {"color": colour, "lw": 1.1, "ls": "--" if colour == MISSED else "-"}
        tip = {"arrowstyle": "-|>", "color": colour, "lw": 1.1}
        if head == 0:
            axis.annotate("", (word, base), (word, top), arrowprops={**tip, "ls": style["ls"]})
        else:
            start, end = head + 0.12 * (1 if word > head else -1), word - 0.12 * (1 if word > head else -1)
            corners = [(start, base), (start, base + 1.3 * (top - base)), (end, base + 1.3 * (top - base)), (end, base)]
            curve = Path(corners, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
            axis.add_patch(PathPatch(curve, fill=False, **style))
            axis.annotate("", (end, base), (end, base + 0.15 * sign), arrowprops=tip)
        middle = (word + head) / 2 if head else word
        axis.text(
            middle, top * 0.98, literal(relation[:12]), ha="center", va="center", fontsize=6, color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
        )  # fmt: skip
    axis.set(xlim=(0.4, widest + 1.0), ylim=(-max(span[1], 0.3) - 0.4, span[0] + 0.4))
    axis.axis("off")


Span = tuple[str, int, int]
"""The label of a constituent, and its words, from the first one to before the last, counted from 0."""


def constituency_trees(rows: Sequence[tuple[Sequence[str], Sequence[Span], Sequence[Span]]]) -> Figure:
    """One panel per sentence: predicted constituents above its words, gold ones that were missed below, as bars.

    Args:
        rows: words, gold and predicted constituents of each, the outer ones first; of sentences of more than 20 words,
            those of the first 20 words.
    """
    bars = [_bars(gold, predicted) for _, gold, predicted in rows]
    heights = [0.5 + 0.24 * sum(max((level for *_, level in side), default=0) for side in sides) for sides in bars]
    widest = max(min(len(words), MOST_WORDS) for words, _, _ in rows)
    figure = Figure(figsize=(max(6.0, 0.68 * widest), sum(heights) + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (words, _, _), (up, down) in zip(axes, rows, bars, strict=True):
        for place, word in enumerate(words[:MOST_WORDS], 1):
            axis.text(place, 0, literal(word[:14]), ha="center", va="center", fontsize=8)
        for sign, side in ((1, up), (-1, down)):
            for label, start, stop, colour, level in side:
                x = (start + 0.6, stop + 0.4)
                axis.plot(x, (sign * level, sign * level), color=colour, lw=1.4, ls="--" if sign < 0 else "-")
                for end in x:
                    axis.plot((end, end), (sign * level, sign * (level - 0.25)), color=colour, lw=1.4)
                axis.text(
                    sum(x) / 2, sign * level, literal(label[:12]), ha="center", va="center", fontsize=6, color=colour,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
                )  # fmt: skip
        top, bottom = (max((level for *_, level in side), default=0) for side in (up, down))
        axis.set(xlim=(0.4, widest + 1.0), ylim=(-bottom - 0.7, top + 0.7))
        axis.axis("off")
    named = {RIGHT: "right", WRONG: "wrong", MISSED: "gold, missed"}
    lines = [
        Line2D([], [], color=colour, linestyle="--" if colour == MISSED else "-", label=name)
        for colour, name in named.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _bars(gold: Sequence[Span], predicted: Sequence[Span]) -> tuple[list[tuple], list[tuple]]:
    """Label, start, stop, colour and level of what is drawn above and below; what is outer lies farther out."""
    known, left = Counter(gold), Counter(gold)
    left.subtract(predicted)
    missed = [span for span in dict.fromkeys(gold) for _ in range(max(left[span], 0))]
    given: Counter[Span] = Counter()
    above = []
    for span in predicted:
        given[span] += 1
        above.append((span, RIGHT if given[span] <= known[span] else WRONG))
    return _levels(above), _levels([(span, MISSED) for span in missed])


def _levels(spans: Sequence[tuple[Span, str]]) -> list[tuple]:
    tops = [0] * MOST_WORDS
    found = []
    for (label, start, stop), colour in reversed(spans):
        if stop > MOST_WORDS:
            continue
        level = 1 + max(tops[start:stop])
        tops[start:stop] = [level] * (stop - start)
        found.append((label, start, stop, colour, level))
    return found
