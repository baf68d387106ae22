"""Shards of inputs on the machines of a Ray cluster, each written exactly once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lnz.errors import LnzError
from lnz.io.shards import clear_leftovers, prepare_shards
from lnz.tasks.cluster.work import Input, Make, Report, Shard, sharded, written
from lnz.tasks.failures import Failed


@dataclass(frozen=True)
class Engine:
    """How Ray works.

    Attributes:
        address: of a cluster; by default what ``RAY_ADDRESS`` says, else this machine alone.
        workers: how many; by default, as many as the cluster has room for.
        gpus: of each worker; a fraction shares one.
        shard_size: inputs that are worked on, and written, together.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float = 0.0
    shard_size: int = 64


def spread(
    make: Make, inputs: Sequence[Input], output: Path, engine: Engine, strict: bool = False
) -> Iterator[Failed | None]:
    """Work on inputs by Ray Data, each worker with a model of its own; yields per input, when done, or why it failed.

    Inputs are cut into shards. A worker writes a shard as one Parquet file of the shard's number, in one step: where a
    worker or machine dies, its shards are worked on again by others, and no row is lost or doubled. Where workers die
    at one shard again and again, its inputs fail.

    Args:
        make: makes a worker, once for each process.
        inputs: at least one; paths in them are absolute, and serve on every machine.
        output: folder for the shards, the same on every machine.
        engine: how Ray works.
        strict: raise at the first input that fails.

    Raises:
        FormatError: the folder has shards already.
        ImportError: Ray or pyarrow is not installed.
        LnzError: a worker stopped for another reason than one input; ``strict``, and an input failed.
    """
    try:
        import pyarrow  # noqa: F401
        import ray
        from ray.data import ActorPoolStrategy, DataContext
        from ray.exceptions import RayError
    except ModuleNotFoundError as error:
        raise ImportError(f"--engine ray needs {error.name}; install it with: pip install 'lnz[ray]'") from error
    prepare_shards(output)
    shards, output = sharded(inputs, engine.shard_size), output.resolve()
    with _cluster(ray, engine):
        context = DataContext.get_current()
        context.enable_progress_bars = False  # the command has its own
        context.enable_fallback_to_arrow_object_ext_type = True  # shards and reports are objects of ours
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        workers = min(engine.workers or _room(ray, engine), len(shards))
        reports = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map(
            cast("Any", _Worker),
            fn_constructor_args=(make, str(output), "cuda" if engine.gpus else "cpu"),
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
            num_gpus=engine.gpus or None,
        )
        try:
            for row in reports.iter_rows():
                yield from _told(row["report"], strict)
        except RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LnzError(f"--engine ray: the cluster cannot go on: {reason}") from error
    clear_leftovers(output)


class _Worker:
    """What Ray makes once for each process."""

    def __init__(self, make: Make, output: str, device: str) -> None:
        self.worker, self.output = make(device), Path(output)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard: Shard = row["shard"]
        return {"report": written(self.worker, shard, self.output)}


def _told(report: Report, strict: bool) -> Iterator[Failed | None]:
    if report.stopped is not None:
        raise LnzError(report.stopped)
    for error in report.errors:
        if error is not None and strict:
            raise LnzError(error)
        yield None if error is None else Failed(LnzError(error))


def _room(ray: Any, engine: Engine) -> int:
    """How many workers the cluster has room for."""
    there = ray.cluster_resources()
    room = int(there.get("GPU", 0) / engine.gpus) if engine.gpus else int(there.get("CPU", 1))
    if room < 1:
        raise LnzError(f"--gpus-per-worker: expected a cluster with {engine.gpus:g} GPUs, it has {there.get('GPU', 0)}")
    return room


@contextmanager
def _cluster(ray: Any, engine: Engine) -> Iterator[None]:
    """The cluster of an address, or one of this machine, which is left at the end; one that is joined already stays."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    own = {"num_cpus": engine.workers, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, logging_level="error", log_to_driver=False, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LnzError(f"--address: cannot join a Ray cluster at {address} ({reason})") from error
    try:
        yield
    finally:
        ray.shutdown()
