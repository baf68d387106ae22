"""Pictures of labellings, their certainty, and alignments, and curves; each function returns a matplotlib figure."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import torch
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

PALETTE = ("tab20", 20)
UNOBSERVED = "#000000"
LABEL_SIZE, LABEL_WIDTH, MOST_LINES = 9, 560.0, 3
"""Of labels of intervals: points high, points of room across a figure, lines at most."""


def segmentation(
    images: Sequence[Tensor],
    columns: Mapping[str, Sequence[Tensor]],
    confidence: Sequence[Tensor],
    names: Sequence[str],
    label_colours: Sequence[tuple[int, int, int]] | None = None,
) -> Figure:
    """One row per image: the image, one column per labelling, the confidence of the last; below, the colours' names.

    Args:
        images: ``[C, H, W]`` each, 1 or 3 channels, any range.
        columns: per title, one labelling ``int64 [H, W]`` per image; labels below 0 are void, and drawn black.
        confidence: probabilities ``[H, W]``, one per image.
        names: of the labels; of more than 20, the legend names those that are drawn.
        label_colours: red, green and blue of each label, 0 to 255; by default, those of a colour map.
    """
    titles, count = ["image", *columns, "marginal confidence"], len(names)
    height = sum(image.shape[-2] / image.shape[-1] for image in images) / max(len(images), 1)
    width = 2.2 * len(titles)
    drawn = sorted({int(label) for of in columns.values() for labels in of for label in labels.unique()})
    listed = [label for label in range(count) if count <= PALETTE[1] or label in drawn]
    per_row = max(1, int(width / (0.6 + 0.09 * max((len(name) for name in names), default=0))))
    legend = 0.25 * math.ceil((len(listed) + 1) / per_row)
    figure = Figure(figsize=(width, 2.2 * height * len(images) + 0.4 + legend), layout="constrained")
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    colours = _colours(count, label_colours)
    shown = None
    for row, image in enumerate(images):
        pixels = (image - image.min()) / (image.max() - image.min()).clamp_min(1e-9)
        axes[row, 0].imshow(pixels.movedim(0, -1).expand(-1, -1, 3).numpy(), interpolation="nearest")
        for column, labellings in enumerate(columns.values(), 1):
            labels = labellings[row]
            axes[row, column].imshow(
                labels.masked_fill(labels < 0, -1).numpy(),
                cmap=colours,
                vmin=-0.5,
                vmax=count - 0.5,
                interpolation="nearest",
            )
        shown = axes[row, -1].imshow(
            confidence[row].numpy(), cmap="viridis", vmin=1 / count, vmax=1, interpolation="nearest"
        )
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    if shown is not None:
        length = 25 * height * len(images)  # as long as the column is high, and narrow
        figure.colorbar(shown, ax=axes[:, -1].tolist(), fraction=0.06, aspect=length, label="largest marginal")
    patches = [Patch(facecolor=colours(label), edgecolor="#888888", label=literal(names[label])) for label in listed]
    if drawn and drawn[0] < 0:
        patches.append(Patch(facecolor=UNOBSERVED, label="void, not judged"))
    figure.legend(
        handles=patches, loc="outside lower center", ncols=min(per_row, len(patches)), fontsize=8, frameon=False
    )
    return figure


def curves(series: Mapping[str, Sequence[tuple[float, float]]], title: str, xlabel: str = "epoch") -> Figure:
    """One line per name, of (x, y) points; names that end in the same word after a space share a colour."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axis = figure.subplots()
    kinds = list(dict.fromkeys(name.rsplit(" ", 1)[-1] for name in series))
    labelled = set()
    for name, points in series.items():
        kind = name.rsplit(" ", 1)[-1]
        x, y = zip(*points, strict=True) if points else ((), ())
        label = None if kind in labelled else kind
        axis.plot(x, y, color=f"C{kinds.index(kind)}", label=label, alpha=0.85, marker="." if len(points) < 3 else None)
        labelled.add(kind)
    axis.set(title=title, xlabel=xlabel)
    axis.grid(alpha=0.3)
    if labelled:
        axis.legend(frameon=False)
    return figure


def reliability(series: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """How often labels are right, over the probability that they were predicted with; right is the diagonal.

    Args:
        series: by name, per bin the mean probability, the share of right labels and the share of all labels, which is
            the size of its point; names that end in the same word after a space share a colour.
        title: of the picture.
    """
    figure = curves({name: [(row[0], row[1]) for row in bins] for name, bins in series.items()}, title, "probability")
    axis = figure.axes[0]
    for line, bins in zip(list(axis.lines), series.values(), strict=True):
        for sure, right, share in bins:
            axis.scatter([sure], [right], 4 + 120 * share, color=line.get_color(), alpha=0.5, linewidths=0)
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    axis.set(ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def profiles(items: Sequence[str], answers: Sequence[Sequence[str]], classes: Mapping[str, Sequence[Tensor]]) -> Figure:
    """One row per class, one bar per item: how likely each of its answers is, stacked; below, what the colours mean.

    Args:
        items: their names.
        answers: the names of the answers to each.
        classes: per title of a class, the probabilities ``[answers]`` of each item.
    """
    width, most = max(4.8, 0.6 * len(items) + 2.5), max(map(len, answers))
    figure = Figure(figsize=(width, 1.3 * len(classes) + 1.6), layout="constrained")
    axes = figure.subplots(len(classes), 1, squeeze=False, sharex=True)[:, 0]
    colours = matplotlib.colormaps["viridis_r"]
    shades = [colours(0.08 + 0.84 * number / max(most - 1, 1)) for number in range(most)]
    for axis, (title, tables) in zip(axes, classes.items(), strict=True):
        for item, table in enumerate(tables):
            below = 0.0
            for number, share in enumerate(table.tolist()):
                axis.bar(item, share, 0.8, bottom=below, color=shades[number])
                below += share
        axis.set(ylim=(0, 1), yticks=(0, 0.5, 1))
        axis.set_title(literal(title), fontsize=9, loc="left")
    turned = max(map(len, items)) > 6
    axes[-1].set_xticks(
        range(len(items)), [literal(name[:24]) for name in items], fontsize=8,
        rotation=35 if turned else 0, ha="right" if turned else "center",
    )  # fmt: skip
    alike = len(set(map(tuple, answers))) == 1
    names = [literal(name[:16]) for name in answers[0]] if alike else [f"answer {number + 1}" for number in range(most)]
    patches = [Patch(facecolor=shade, label=name) for shade, name in zip(shades, names, strict=True)]
    figure.legend(
        handles=patches[:20], loc="outside lower center", ncols=min(len(patches), 6), fontsize=8, frameon=False
    )
    return figure


def mosaics(panels: Mapping[str, Tensor]) -> Figure:
    """One panel per title, of small images ``[K, H, W]`` in rows and columns.

    Values in [0, 1] are drawn from white to black, others from blue through white at 0 to red.
    """
    figure = Figure(figsize=(3.6 * len(panels), 4), layout="constrained")
    for axis, (title, images) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        K, H, W = images.shape
        columns = math.ceil(math.sqrt(K))
        rows = math.ceil(K / columns)
        sheet = images.new_full((rows * (H + 1) + 1, columns * (W + 1) + 1), math.nan)
        for k, image in enumerate(images):
            top, left = 1 + k // columns * (H + 1), 1 + k % columns * (W + 1)
            sheet[top : top + H, left : left + W] = image
        largest = float(images.abs().max()) or 1.0
        probabilities = images.min() >= 0 and largest <= 1
        colours = matplotlib.colormaps["Greys" if probabilities else "RdBu_r"].with_extremes(bad="#d9d9d9")
        low, high = (0, 1) if probabilities else (-largest, largest)
        shown = axis.imshow(sheet.numpy(), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set(title=title, xticks=[], yticks=[])
        if not probabilities:
            figure.colorbar(shown, ax=axis, fraction=0.05)
    return figure


def alignment(
    spectrograms: Sequence[Tensor],
    seconds: Sequence[float],
    tiers: Sequence[Mapping[str, Sequence[Any]]],
    titles: Sequence[str] = (),
    bands: str = "mel band",
) -> Figure:
    """One row per recording: its spectrogram, and below it tiers of labelled intervals, whose bounds go up through it.

    Labels of short intervals stand in up to three lines, so that none covers another; where these do not suffice, some
    are left out.

    Args:
        spectrograms: ``[T, M]`` each, any range; low frequencies first.
        seconds: how long each recording is.
        tiers: per recording and name of a tier, its intervals: (start, end, label, …) each, in seconds.
        titles: of the recordings.
        bands: what the other axis of the spectrograms is called.
    """
    count = len(spectrograms)
    lines = [[_lines(intervals, end) for intervals in of.values()] for of, end in zip(tiers, seconds, strict=True)]
    heights = [height for of in lines for height in (1.7, *(0.1 + 0.25 * _depth(tier) for tier in of))]
    figure = Figure(figsize=(9, sum(heights) + 0.3), layout="constrained")
    axes = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for row in range(count):
        top, *below = [axes.pop(0) for _ in range(1 + len(tiers[row]))]
        spectrogram, end = spectrograms[row], seconds[row]
        top.imshow(
            spectrogram.T.numpy(),
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, end, 0, spectrogram.shape[1]),
            interpolation="nearest",
        )
        top.set(ylabel=bands, xlim=(0, end), xticklabels=[] if below else None)
        if row < len(titles):
            top.set_title(titles[row], fontsize=10)
        for k, (axis, (name, intervals)) in enumerate(zip(below, tiers[row].items(), strict=True)):
            depth = _depth(lines[row][k])
            for (start, stop, label, *_), line in zip(intervals, lines[row][k], strict=True):
                axis.axvspan(start, stop, color=f"C{k}", alpha=0.35, linewidth=0.5)
                if line is not None:
                    place = (start + stop) / 2, 1 - (line + 0.5) / depth
                    axis.text(*place, label, ha="center", va="center", fontsize=LABEL_SIZE, clip_on=True)
                for bound in (start, stop):
                    axis.axvline(bound, color=f"C{k}", linewidth=0.8)
                    if k == 0:
                        top.axvline(bound, color="white", linewidth=0.8, linestyle="--")
            axis.set(xlim=(0, end), ylim=(0, 1), yticks=[0.5], yticklabels=[name])
            if axis is not below[-1]:
                axis.set_xticklabels([])
        (below or [top])[-1].set_xlabel("seconds")
    return figure


def _lines(intervals: Sequence[Any], seconds: float) -> list[int | None]:
    """In which line each label stands free of those before it, the first one that has room; ``None`` where none has."""
    ends = [-math.inf] * MOST_LINES
    found: list[int | None] = []
    for start, stop, label, *_ in intervals:
        half = (0.3 * LABEL_SIZE * len(label) + 1) / LABEL_WIDTH * seconds
        line = next((k for k, end in enumerate(ends) if end <= (start + stop) / 2 - half), None)
        if line is not None:
            ends[line] = (start + stop) / 2 + half
        found.append(line)
    return found


def _depth(lines: Sequence[int | None]) -> int:
    """How many lines are used, at least 1."""
    return 1 + max((line for line in lines if line is not None), default=0)


@dataclass(frozen=True)
class Tagging:
    """A tagged sequence, for :func:`tagging`.

    Attributes:
        elements: what is tagged: T images ``[H, W]`` or words.
        gold: ``int64 [T]``, below 0 where unknown.
        predicted: per name, tags ``int64 [T]``.
        marginals: ``[T, L]``.
    """

    elements: Sequence[Tensor | str]
    gold: Tensor
    predicted: Mapping[str, Tensor]
    marginals: Tensor


def tagging(rows: Sequence[Tagging], tags: Sequence[str], transitions: Tensor, steps: int = 16) -> Figure:
    """One panel per sequence, of the marginals of its tags with gold and predicted ones, and one of the transitions.

    Args:
        rows: of each at most the first ``steps`` elements are drawn.
        tags: names.
        transitions: scores ``[L, L]``, from each tag to the next; blue through white at 0 to red.
        steps: drawn at most.
    """
    steps = min(steps, max(len(row.elements) for row in rows))
    L, images = len(tags), isinstance(rows[0].elements[0], Tensor)
    figure = Figure(figsize=(12, (0.13 * L + 1.1) * len(rows) + 0.5), layout="constrained")
    left, right = (figure.add_subfigure(cell) for cell in figure.add_gridspec(1, 2, width_ratios=(1.6, 1)))
    heights = [0.35, 1] * len(rows) if images else [1] * len(rows)
    axes = left.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    small: Any = {"fontsize": 7 if L > 12 else 8}
    plain = [literal(tag) for tag in tags]
    for k, row in enumerate(rows):
        axis = axes[2 * k + 1] if images else axes[k]
        T = min(steps, len(row.elements))
        axis.imshow(row.marginals[:T].T.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        _marks(axis, row, T)
        axis.set_yticks(range(L), plain, **small)
        axis.set(xlim=(-0.5, steps - 0.5), xticks=[])
        if images:
            sheet = torch.full((row.elements[0].shape[0], steps * row.elements[0].shape[1]), math.nan)  # type: ignore[union-attr]
            shown = torch.cat([element for element in row.elements[:T] if isinstance(element, Tensor)], 1)
            sheet[:, : shown.shape[1]] = shown
            axes[2 * k].imshow(sheet.numpy(), cmap="Greys", aspect="auto")
            axes[2 * k].axis("off")
        else:
            axis.set_xticks(
                range(T), [literal(str(word)[:14]) for word in row.elements[:T]], rotation=25, ha="right", **small
            )
    axes[-1].legend(frameon=False, loc="upper right", fontsize=7)
    axis = right.subplots()
    largest = float(transitions.abs().max()) or 1.0
    picture = axis.imshow(transitions.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
    axis.set_xticks(range(L), plain, rotation=90, **small)
    axis.set_yticks(range(L), plain, **small)
    axis.set(title="scores of transitions", xlabel="to", ylabel="from")
    right.colorbar(picture, ax=axis, shrink=0.6)
    return figure


def _marks(axis: Any, row: Tagging, steps: int) -> None:
    """Rings around gold, and a mark on what each prediction gets wrong."""
    known = [t for t in range(steps) if row.gold[t] >= 0]
    axis.scatter(known, row.gold[known], s=46, facecolors="none", edgecolors="C2", linewidths=1.4, label="gold")
    styles = (("x", "C1"), ("+", "C3"), ("1", "C4"), ("2", "C5"))
    for (name, labels), (marker, colour) in zip(row.predicted.items(), styles, strict=False):
        wrong = [t for t in known if labels[t] != row.gold[t]]
        axis.scatter(wrong, labels[wrong], marker=marker, color=colour, s=30, label=f"{name}, wrong")


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def literal(text: str) -> str:
    """Text that matplotlib draws as it is, where two dollar signs would mean mathematics."""
    return text.replace("$", r"\$")


def _colours(num_labels: int, given: Sequence[tuple[int, int, int]] | None = None) -> Colormap:
    if given is not None:
        picked = [tuple(part / 255 for part in colour) for colour in given]
        return ListedColormap(picked).with_extremes(under=UNOBSERVED)
    name, size = PALETTE
    base = matplotlib.colormaps[name] if num_labels <= size else matplotlib.colormaps["gist_ncar"]
    steps = range(num_labels)
    picked = [base(k) if num_labels <= size else base(k / max(num_labels - 1, 1)) for k in steps]
    return ListedColormap(picked).with_extremes(under=UNOBSERVED)
