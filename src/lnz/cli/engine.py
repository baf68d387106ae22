"""The options of ``lnz predict`` and ``lnz align`` that spread work over machines."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lnz.cli.methods import count
from lnz.io.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from lnz.tasks.cluster.engine import Engine
    from lnz.tasks.cluster.work import Input, Make

NAMES = ("address", "workers", "gpus_per_worker", "shard_size")
ONE_PROCESS = "--engine: expected process, got ray: {command} works in one process; lnz predict and lnz align take ray"


def add_engine(parser: argparse.ArgumentParser) -> None:
    """``--engine`` and what goes with it."""
    group = parser.add_argument_group("many machines (pip install 'lnz[ray]')")
    engines = "this one process (default), or the workers of a Ray cluster: --output is then a folder of Parquet shards"
    group.add_argument("--engine", choices=("process", "ray"), default="process", help=engines)
    group.add_argument("--address", help="of the cluster (default: that of RAY_ADDRESS, else one of this machine)")
    group.add_argument("--workers", type=count, metavar="N", help="how many (default: as there are CPUs, or GPUs)")
    group.add_argument("--gpus-per-worker", type=float, metavar="G", help="GPUs of each, 0.5 to share one (default: 0)")
    group.add_argument("--shard-size", type=count, metavar="N", help="inputs of each shard (default: 64)")


def engine_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Engine | None:
    """How Ray works, or ``None`` for one process; leaves with a message where options do not fit together."""
    given = [name for name in NAMES if getattr(arguments, name) is not None]
    if arguments.engine == "process":
        if given:
            parser.error(f"--{given[0].replace('_', '-')}: goes with --engine ray")
        return None
    gpus = arguments.gpus_per_worker
    if gpus is not None and not 0 <= gpus < math.inf:
        parser.error(f"--gpus-per-worker: expected a number of at least 0, got {gpus}")
    from lnz.tasks.cluster.engine import Engine

    fields = {"gpus_per_worker": "gpus"}
    return Engine(**{fields.get(name, name): getattr(arguments, name) for name in given})


def spread_out(make: Make, inputs: Sequence[Input], output: Path, engine: Engine, strict: bool, verb: str) -> list:
    """Work on all inputs while a bar shows how far it is; what became of each."""
    from rich.progress import track

    from lnz.tasks.cluster.engine import spread

    return list(track(spread(make, inputs, output, engine, strict), verb, total=len(inputs)))


def told_count(results: Sequence[object], what: str, output: Path) -> None:
    """Say how many inputs are done."""
    from lnz.tasks.failures import Failed

    done = sum(not isinstance(result, Failed) for result in results)
    print(printable(f"{done} {what} {output}"))
