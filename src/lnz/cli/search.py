"""What ``lnz infer`` shows of a search for a best labelling while it runs."""

from __future__ import annotations

import dataclasses
import math
import sys

from lnz.inference import Auto, Method, Progress

QUIET = 2.0  # seconds that need no progress


def shown(method: Method) -> Method:
    """The method; one that tells its progress, to stderr."""
    return dataclasses.replace(method, progress=_show) if isinstance(method, Auto) else method


def _show(progress: Progress) -> None:
    if progress.seconds >= QUIET:
        score, bound = float(progress.score), float(progress.bound)
        above = f", no score above {bound:.10g}, gap {bound - score:.4g}" if math.isfinite(bound) else ""
        print(
            f"{progress.seconds:6.0f} s  {progress.stage}: log score {score:.10g}{above}", file=sys.stderr, flush=True
        )
