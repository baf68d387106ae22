"""``python -m benchmarks [CASE[/SHAPE] …]``: measure, write CSV, render the page of the documentation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

MODES: dict[str, Sequence[Literal["hot", "cold"]]] = {"both": ("hot", "cold"), "hot": ("hot",), "cold": ("cold",)}


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 where the correctness gate was red, or 2 for a wrong command line (from argparse)."""
    options = _parser().parse_args(arguments)
    if not (options.list or options.render):
        _limit_threads(options.threads)  # before anything that makes a thread pool is imported

    from benchmarks import cases, runner, table

    if options.render:
        rows = table.read(options.render)
        if not rows:
            print(f"{options.render}: no results there", file=sys.stderr)
            return 1
        page = table.render(rows, cases.ALL, options.render.as_posix(), (options.out or Path("-")).as_posix())
        if options.out:
            options.out.write_text(page, encoding="utf-8")
        else:
            print(page)
        return 0
    try:
        chosen = cases.select(options.cases)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for case, shape in chosen:
            print(f"{case.name}/{shape}")
        return 0
    import torch

    torch.set_num_threads(options.threads)
    setting = runner.Setting(
        repeats=options.repeats, threads=options.threads, max_seconds=options.max_seconds, modes=MODES[options.mode]
    )
    print(f"{setting.machine}; {setting.threads} threads; {setting.repeats} repeats", flush=True)
    red = []
    measured: list[runner.Row] = []
    for case, shape in chosen:
        rows = runner.run(case, shape, setting, lambda line: print(line, flush=True))
        measured += rows
        if runner.is_red(rows):
            red.append(f"{case.name}/{shape}")
        if options.out:
            table.update(options.out, rows)
    print(table.render(measured, cases.ALL, "the run above", "FILE").split("\n## ", 1)[-1])
    if red:
        print(f"The correctness gate is RED, no speed is reported for: {', '.join(red)}", file=sys.stderr)
    return 1 if red else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE[/SHAPE]", help="what to run; * and ? match; all by default")
    parser.add_argument("--repeats", type=_positive, default=15, metavar="N", help="rounds (default %(default)s)")
    parser.add_argument("--threads", type=_positive, default=2, metavar="N", help="for all contenders (default 2)")
    parser.add_argument(
        "--max-seconds", type=float, default=30.0, metavar="S", help="per contender and shape (default 30)"
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="both",
        help="hot: a call again and again; cold: after other work, as in a step of training (default: both)",
    )
    parser.add_argument("--list", action="store_true", help="name the cases and shapes and stop")
    parser.add_argument("--out", type=Path, metavar="FILE", help="CSV file to update, or the page that --render writes")
    parser.add_argument("--render", type=Path, metavar="CSV", help="measure nothing: make the page from this file")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text}")
    return value


def _limit_threads(threads: int) -> None:
    """Hold every library to ``threads``, those without a setting of their own by the processors they may use."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


if __name__ == "__main__":
    sys.exit(main())
