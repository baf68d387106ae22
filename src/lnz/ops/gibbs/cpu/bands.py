"""Which thread sweeps what: whole chains where there are enough, else bands of rows of one grid.

Checkerboard half-sweeps look one row up and down, so that bands need not meet after each of them: every band runs
through many, leaving out one more row at each inner end each time, and what was left out, triangles in rows and time,
follows. There is one band more than threads, two of them a single thread's, so that there is a triangle for each
thread. What is drawn does not depend on the bands: a redrawn node reads its neighbours exactly as in a plain sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from lnz.ops.gibbs.cpu.arguments import Band
from lnz.ops.jit.threads import side_by_side

_SHARED = 2**16  # node updates from which threads share the work
_DEPTH = 64  # half-sweeps between two meetings of the threads

Part = Callable[[Band], None]
"""What redraws a band. Kernels release the interpreter's lock: plain threads run them."""


def advance(part: Part, images: int, entries: int, height: int, width: int, steps: int) -> None:
    """All half-sweeps 0 … steps − 1 of all images; image i is of batch entry i mod ``entries``."""
    threads = torch.get_num_threads() if images * height * width * steps >= _SHARED else 1

    def band(group: range, first: int, steps: int, low: int, high: int, up: int, down: int) -> Band:
        return Band(group.start, group.stop, group.step, first, steps, low, high, up, down)

    if threads == 1 or images % threads == 0 or images >= 4 * threads or height < 4 * threads:
        across(lambda group: part(band(group, 0, steps, 0, height, 0, 0)), chunks(images, entries, threads), threads)
        return
    depth = min(_DEPTH, height // threads // 4)
    cuts = [*(band * height // threads for band in range(threads)), height]
    cuts.insert(-1, (cuts[-2] + height) // 2)
    bands = list(itertools.pairwise(cuts))
    owned = [*([band] for band in bands[:-2]), bands[-2:]]

    def shrink(group: range, first: int, n: int, own: list[tuple[int, int]]) -> None:
        for low, high in own:
            part(band(group, first, n, low, high, int(low > 0), -int(high < height)))

    for image in range(images):
        group = range(image, image + 1)
        for first in range(0, steps, depth):
            n = min(depth, steps - first)
            side_by_side([partial(shrink, group, first, n, own) for own in owned])
            side_by_side([partial(part, band(group, first, n, cut, cut, -1, 1)) for cut in cuts[1:-1]])


def chunks(images: int, entries: int, threads: int) -> list[range]:
    """The images of each batch entry, cut so that every thread has some."""
    pieces = 1 if entries >= 4 * threads else threads
    size = max(1, -(-(images // entries) // pieces)) * entries
    return [
        range(start + entry, min(start + size, images), entries)
        for start in range(0, images, size)
        for entry in range(entries)
    ]


def across(task: Callable[[Any], object], items: Sequence[Any], threads: int) -> None:
    """``task`` for every item, side by side."""
    ahead = iter(items)

    def run() -> None:
        for item in ahead:  # each is handed out once: the iterator is advanced under the interpreter's lock
            task(item)

    side_by_side([run] * min(threads, len(items)))
