"""``lnz warmup``: compile kernels ahead of their first use."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from lnz.errors import LnzError
from lnz.tasks.parsing import Strict

SUMMARY = "compile kernels ahead of their first use, for container images and first calls without a wait"

DESCRIPTION = """\
Compile the kernels of operations, in float32 and float64, and keep them on disk.

lnz compiles a kernel for this processor when it is first called, which takes seconds, and later processes read it from
disk. This command does so beforehand, in several processes.

operations:
{operations}
"""

EPILOG = """\
Kernels lie in NUMBA_CACHE_DIR if that is set, else beside the sources of lnz, else (where these cannot be written) in
the user's cache folder. What is there already is only read: a second run takes seconds. Files that somebody other than
the user, root or the owner of lnz could have written are never read.

examples:
  lnz warmup                              everything
  lnz warmup chain ctc                    what sequence labelling and speech need
  lnz warmup chain --dtype float32        one dtype

in a container image, after lnz is installed:
  RUN lnz warmup
  Built by root, the kernels serve every user of the image. They are compiled for the processor of the machine that
  builds the image; ENV NUMBA_CPU_NAME=x86-64-v3 before that line makes them serve any recent x86 processor, and must
  hold when the image runs too. Kernels then use less of a newer processor.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``lnz warmup`` and return the exit code."""
    from lnz.tasks.warmup import DTYPES, OPERATIONS

    args = build_parser().parse_args(argv)
    chosen = [name for name in OPERATIONS if name in args.operations or "all" in args.operations]
    folders = sorted({str(_folder(name)) for name in chosen})
    start = time.monotonic()
    work = [*product(chosen, [args.dtype] if args.dtype else DTYPES)]
    for name, dtype, seconds in _shown(_compiled(work, args.jobs), len(work)):
        print(f"{name} {dtype}: {seconds:.1f} s", flush=True)
    print(f"{len(work)} of {len(work)} ready after {time.monotonic() - start:.0f} s, in {', '.join(folders)}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The options of ``lnz warmup``."""
    from lnz.tasks.warmup import DTYPES, OPERATIONS

    listed = "\n".join(f"  {name:<13}{operation.serves}" for name, operation in OPERATIONS.items())
    parser = Strict(
        prog="lnz warmup",
        description=DESCRIPTION.format(operations=listed),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "operations", nargs="*", choices=("all", *OPERATIONS), default="all", metavar="OP", help="which (default: all)"
    )
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="compile for this one alone (default: both)")
    parser.add_argument(
        "--jobs", type=_positive, default=_cores(), metavar="N", help="processes at a time (default: one per core)"
    )
    return parser


def _folder(operation: str) -> Path:
    """Where the kernels of an operation will lie."""
    from lnz.ops.jit.cpu.cache import store_for

    folder = store_for(operation).writable()
    if folder is None:
        raise LnzError("no folder to keep compiled kernels in can be written; set NUMBA_CACHE_DIR to one that can")
    return folder.parent


def _compiled(work: Sequence[tuple[str, str]], jobs: int) -> Iterator[tuple[str, str, float]]:
    """Each operation and dtype when its kernels are ready, and the seconds that took."""
    from lnz.tasks.warmup import compile_operation

    # not forked: threads of torch do not survive that
    with ProcessPoolExecutor(min(jobs, len(work)), get_context("spawn"), _quiet) as pool:
        running: dict[Future[float], tuple[str, str]] = {pool.submit(compile_operation, *item): item for item in work}
        try:
            for done in as_completed(running):
                yield *running[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _quiet() -> None:
    """In each process: what is compiled is shown once, by the command."""
    logging.getLogger("lnz").addHandler(logging.NullHandler())


def _shown(results: Iterator[tuple[str, str, float]], total: int) -> Iterator[tuple[str, str, float]]:
    """The same, under a progress bar where there is a terminal to show it, and Rich."""
    if not sys.stderr.isatty():
        yield from results
        return
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:
        yield from results
        return
    yield from track(results, "compiling kernels", total, console=Console(stderr=True), transient=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
